"""kill -9 of whatever runs a night: nothing is lost, it is taken over within a stated time, and it ends in the same bytes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flow.flow_support import ROOT, Published, days_of, rows_of, serve_prefect, table_uri
from tests.support.flow.server_support import PATIENCE, LocalServer, free_port

# Long enough to be killed in.
SLOW = ["anchors.epochs=400", "anchors.patience=400"]


@pytest.fixture
def server(demo: Path, tmp_path: Path) -> Iterator[LocalServer]:
    found = LocalServer(tmp_path / "a server", free_port())
    try:
        found.start(demo / "run.toml")
        yield found
    finally:
        found.command("stop")


def wait_for(said: str, log: Path) -> None:
    """Until a line of a day's log says so."""
    end = time.monotonic() + PATIENCE
    while not log.exists() or not re.search(said, log.read_text()):
        assert time.monotonic() < end, said
        time.sleep(0.2)


@pytest.mark.slow
def test_a_run_whose_process_and_worker_are_killed_is_taken_over(
    server: LocalServer, demo: Path, one_day: Published
) -> None:
    day = one_day.days[0]
    run_id = server.run("nightly", as_of=day, overrides=SLOW)
    server.wait_until_running(run_id)
    wait_for("anchors: loss", demo / "runs" / "logs" / f"{day}.log")
    server.kill("run", "worker")
    assert server.look(run_id)["state"]["type"] == "RUNNING"
    server.start(demo / "run.toml")
    found = server.ended(run_id, patience=900)
    assert (found["state"]["type"], found["run_count"]) == ("COMPLETED", 2)
    assert days_of(table_uri(demo)) == [day]


@pytest.mark.slow
def test_a_run_outlives_its_server_and_its_worker(server: LocalServer, demo: Path, one_day: Published) -> None:
    day = one_day.days[0]
    run_id = server.run("nightly", as_of=day)
    server.wait_until_running(run_id)
    server.kill("worker", "server")
    server.start(demo / "run.toml")
    found = server.ended(run_id, patience=900)
    assert found["state"]["type"] == "COMPLETED"
    assert rows_of(table_uri(demo), day).equals(rows_of(table_uri(one_day.demo), day))
    again = server.ended(server.run("nightly", as_of=day))
    assert again["state"]["type"] == "COMPLETED"
    assert len(days_of(table_uri(demo))) == 1


HOLD = """
import sys, time
from flows.config.run_config import RunConfig
from flows.steps.publish_slot import publish_slot
from pathlib import Path
with publish_slot(RunConfig.from_toml(Path(sys.argv[1])).publish):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(server: LocalServer, demo: Path, seconds: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "PREFECT_API_URL": server.url, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", HOLD, str(demo / "run.toml"), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_holders_slot_comes_back_though_the_server_was_killed_too(server: LocalServer, demo: Path) -> None:
    with hold(server, demo, 600) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        first.kill()
    killed = time.monotonic()
    server.kill("server")
    server.start(demo / "run.toml")
    with hold(server, demo, 0) as second:
        assert second.stdout is not None
        assert second.stdout.readline() == "held\n"
        assert second.wait(60) == 0
    # Not before the lease has ended: the slot was really taken.
    assert time.monotonic() - killed > 5


@pytest.mark.slow
def test_a_run_whose_server_is_gone_for_good_ends_well(demo: Path, one_day: Published, tmp_path: Path) -> None:
    day = one_day.days[0]
    (tmp_path / "home").mkdir()
    config = ("--config", str(demo / "run.toml"))
    command = [sys.executable, "-m", "flows", "rectify", *config, "--as-of", day, "--verbose"]
    with serve_prefect(tmp_path / "home") as url:
        environment = {
            **os.environ,
            "PREFECT_API_URL": url,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "PYTHONUNBUFFERED": "1",
        }
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for said in process.stderr:
            if "anchors: loss" in said:
                for pid in Path("/proc").glob("[0-9]*"):
                    if _serves(pid, url):
                        os.kill(int(pid.name), signal.SIGKILL)
                break
        out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert "published version 0" in out
    assert "did not take how the run ended" in err
    assert rows_of(table_uri(demo), day).equals(rows_of(table_uri(one_day.demo), day))


def _serves(process: Path, url: str) -> bool:
    port = url.rsplit(":", 1)[1].split("/")[0]
    try:
        return f"\0--port\0{port}\0".encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False

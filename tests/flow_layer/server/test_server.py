"""A server and a worker on this machine: start, run a night, refuse wrong parameters, stop."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flow.flow_support import Published, days_of, rows_of, table_uri
from tests.support.flow.server_support import PATIENCE, LocalServer, free_port


@pytest.fixture(scope="module")
def demo(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(tiny_demo, tmp_path_factory.mktemp("served") / "a demo"))
    with (folder / "run.toml").open("a") as stream:
        stream.write("\n[feature_store]\nenabled = true\n")
    return folder


@pytest.fixture(scope="module")
def server(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    found = LocalServer(tmp_path_factory.mktemp("a server"), free_port())
    try:
        found.start(demo / "run.toml")
        yield found
    finally:
        found.command("stop")


@pytest.mark.slow
def test_it_runs_nights_refreshes_what_they_publish_and_refuses_nonsense_by_name(
    server: LocalServer, demo: Path, one_day: Published
) -> None:
    day = one_day.days[0]
    runs = {
        "good": server.run("nightly", as_of=day),
        "unknown": server.run("nightly", as_off=day),
        "no day": server.run("nightly", as_of="yesterday"),
        "no key": server.run("nightly", as_of=day, overrides=["anchors.epoch=3"]),
    }
    found = {name: server.ended(run_id) for name, run_id in runs.items()}
    states = {name: (x["state"]["name"], x["state"]["message"]) for name, x in found.items()}
    assert states["unknown"] == (
        "BadInput",
        "nightly: as_off: unknown parameter; it takes config, as_of, timezone, overrides",
    )
    assert states["no day"][0] == states["no key"][0] == "BadInput"
    assert states["no day"][1].startswith("nightly: as_of: ")
    assert states["no key"][1] == f"{demo / 'run.toml'}: anchors.epoch: unknown key; did you mean epochs?"
    assert (found["good"]["name"], states["good"][0]) == (f"nightly {day}", "Completed")
    assert days_of(table_uri(demo)) == [day]
    assert rows_of(table_uri(demo), day).equals(rows_of(table_uri(one_day.demo), day))
    (refresh,) = _refreshes(server, 1)
    assert refresh["parameters"] == {"config": str(demo / "run.toml"), "version": 0, "older": "skip"}


def _refreshes(server: LocalServer, count: int) -> list[dict[str, object]]:
    end = time.monotonic() + PATIENCE
    while True:
        found = server.ask("flow_runs", {"deployments": {"name": {"any_": ["refresh"]}}})
        if len(found) >= count:
            return list(found)
        assert time.monotonic() < end, "no refresh was triggered"
        time.sleep(0.5)


@pytest.mark.slow
def test_its_deployments_and_automations_are_there_once_however_often_it_is_started(
    server: LocalServer, demo: Path
) -> None:
    status, pid = server.status(), server.processes()["server"]
    assert status["server"] and status["worker"]
    again = server.start(demo / "run.toml")
    assert server.processes()["server"] == pid
    assert again["deployments"] == ["nightly", "backfill", "refresh", "freshness", "audit", "evaluate"]
    assert sorted(x["name"] for x in server.ask("deployments", {})) == sorted(again["deployments"])
    names = [x["name"] for x in server.ask("automations", {})]
    assert len(names) == len(set(names))
    assert set(again["automations"]) < set(names)
    (nightly,) = server.ask("deployments", {"deployments": {"name": {"any_": ["nightly"]}}})
    assert [(x["schedule"]["cron"], x["schedule"]["timezone"]) for x in nightly["schedules"]] == [("30 2 * * *", "UTC")]


def test_it_ends_with_all_it_started_and_can_be_ended_again(server: LocalServer) -> None:
    assert {"server", "worker"} <= server.processes().keys()
    assert json.loads(server.command("stop").stdout)["stopped"]
    assert server.processes() == {}
    assert not json.loads(server.command("stop").stdout)["stopped"]
    assert not server.status()["server"]


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [("run.toml", 2, "is not free"), ("nowhere.toml", 2, "nowhere.toml: the config cannot")],
)
def test_what_cannot_start_is_one_line(tiny_demo: Path, tmp_path: Path, config: str, code: int, said: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = LocalServer(tmp_path / "server", port).command(
            "start", "--config", tiny_demo / config, "--port", str(port)
        )
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr

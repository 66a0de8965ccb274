"""The state of every day after real runs: done, stale, failed, refused, dead, running, missing, rolled back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from flows.config.run_config import RunConfig
from tasks.runs.day_status import DayStatus, read_status
from tasks.runs.table_days import read_table_days
from tests.support.flow.cli_process import Death
from tests.support.flow.flow_support import ROOT, CommandLine, Published

HOLD = """
import sys, time
from datetime import date
from pathlib import Path
from flows.config.run_config import RunConfig
config = RunConfig.from_toml(Path(sys.argv[1]))
with config.journal.hold(date.fromisoformat(sys.argv[2])) as day, day.under_way():
    day.enter("anchors")
    print("held", flush=True)
    time.sleep(300)
"""


def status(demo: Path, *sets: str, start: str | None = None, end: str | None = None) -> dict[str, DayStatus]:
    config = RunConfig.from_toml(demo / "run.toml", sets)
    first, last = (None if x is None else date.fromisoformat(x) for x in (start, end))
    found = read_status(
        config.source, config.publish, config.run, config.shaping, read_table_days(config.publish), first, last
    )
    return {x.day.isoformat(): x for x in found}


def states(demo: Path, days: list[str], *sets: str) -> list[str]:
    found = status(demo, *sets)
    return [found[x].state for x in days]


def test_what_was_published_is_done_until_what_it_was_made_from_changes(
    published: Published, cli: CommandLine, tmp_path: Path
) -> None:
    demo, days = published.demo, published.days
    assert states(demo, [*days, published.tomorrow]) == ["done", "done", "done", "missing"]
    changed = status(demo, "anchors.epochs=3", "trust.resamples=21")
    assert {(changed[x].state, changed[x].why) for x in days} == {("stale", "config changed: anchors, trust")}
    # Neither where things lie nor what a run may take of the machine makes other rows.
    assert states(demo, days, "resources.threads=1", "publish.keep_trend=7") == ["done"] * 3

    (part,) = (demo / "interactions" / f"dt={days[1]}").iterdir()
    os.utime(part, (1_700_000_000, 1_700_000_000))
    assert states(demo, days) == ["done", "stale", "stale"]
    assert status(demo)[days[1]].why.startswith("log changed: written ")
    again = cli.published(demo, days[1])
    assert not again["published"]
    # Nothing was computed, so the seconds and the flow run of the run that did stay: plans of backfills estimate by them.
    entry = status(demo)[days[1]].entry
    assert entry is not None and entry["flow_run_id"] is not None and "rectify" in entry["seconds"]
    # The run read the same rows: it published nothing, and the day is known to be up to date.
    assert states(demo, days) == ["done", "done", "stale"]
    # Without the journal the commit says which config and which code made the rows.
    (demo / "runs" / "days" / f"{days[0]}.json").unlink()
    first = status(demo)[days[0]]
    assert (first.state, first.why) == ("done", "its inputs were not recorded, so a change in them cannot be seen")
    assert status(demo, "seed=3")[days[0]].why == "config changed"

    rolled = cli("rollback", "--config", demo / "run.toml", "--to", "0")
    assert rolled.code == 0, rolled.err
    picture = tmp_path / "days.png"
    asked = ("status", "--config", demo / "run.toml", "--start", days[0], "--end", days[2])
    shown = cli(*asked, "--picture", picture, "--json")
    assert shown.code == 0, shown.err
    assert [x["state"] for x in shown.result["days"]] == ["done", "rolled-back", "rolled-back"]
    assert shown.result["counts"] == {"done": 1, "rolled-back": 2}
    assert shown.result["latest"] == days[0]
    assert shown.result["days"][1]["last_run"]["state"] == "done"
    assert "taken out by the rollback of version 3" in shown.result["days"][1]["why"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert cli(*asked).out.splitlines()[1].startswith(f"{days[0]}  ")


def test_a_day_that_went_wrong_says_how_until_a_run_of_it_goes_well(published: Published, cli: CommandLine) -> None:
    demo, day = published.demo, published.tomorrow
    finished = cli.rectify(demo, day, "--set", "source.modalities.audio='sound'")
    assert finished.code == 2
    failed = status(demo)[day]
    assert failed.state == "failed"
    assert failed.why == f"exit 2: {finished.error.removeprefix('error: ')}"

    finished = cli.rectify(demo, day, "--set", "quality.min_drift_cosine=1.0")
    assert finished.code == 3, finished.err
    refused = status(demo)[day]
    assert refused.state == "refused"
    assert refused.why == f"exit 3: {finished.error.removeprefix('error: ')}"
    assert refused.entry is not None
    assert refused.entry["run_id"] in finished.error

    assert cli.rectify(demo, day, death=Death("os.rename", r"/\.part-.*\.tmp$")).code == -signal.SIGKILL
    dead = status(demo)[day]
    assert dead.state == "dead"
    assert dead.why.startswith("killed at publish, last sign of life ")

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(demo / "run.toml"), day]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            running = status(demo)[day]
            assert running.state == "running"
            assert running.why.startswith("at anchors since ")
            entry = running.entry
            turned_away = cli.rectify(demo, day)
            assert turned_away.code == 4
            assert f"pid {holder.pid} on " in turned_away.error
            assert status(demo)[day].entry == entry
        finally:
            holder.kill()
    assert status(demo)[day].state == "dead"
    result = cli.published(demo, day)
    done = status(demo)[day]
    assert (done.state, done.why) == ("done", "")
    assert done.published is not None
    assert (done.published.version, done.published.run_id, done.published.rows) == (
        result["version"],
        result["run_id"],
        result["rows"],
    )
    config = RunConfig.from_toml(demo / "run.toml")
    entry = config.journal.read(date.fromisoformat(day))
    assert entry is not None
    assert entry["flow_run_id"] is not None
    assert {"source", "anchors", "rectify", "quality", "publish", "report"} <= entry["seconds"].keys()


def test_days_that_are_asked_for_and_cannot_be(demo: Path) -> None:
    config = ["status", "--config", str(demo / "run.toml")]
    refused = CliRunner().invoke(app, [*config, "--start", "2026-06-30", "--end", "2026-06-01"])
    assert (refused.exit_code, refused.stderr) == (2, "error: --start 2026-06-30: is after --end 2026-06-01\n")
    refused = CliRunner().invoke(app, [*config, "--start", "June"])
    assert (refused.exit_code, refused.stderr) == (2, "error: --start June: wanted a day as YYYY-MM-DD\n")
    found = status(demo, start="2026-06-19", end="2026-07-02")
    assert [x.state for x in found.values()] == ["no-data"] * 2 + ["missing"] * 10 + ["no-data"] * 2
    shutil.rmtree(demo / "interactions" / "dt=2026-06-24")
    assert status(demo)["2026-06-24"].state == "no-data"
    # A table that keeps fewer days is not asked about more.
    assert list(status(demo, "publish.keep_snapshots=3")) == ["2026-06-28", "2026-06-29", "2026-06-30"]


@pytest.mark.parametrize("state", ["warehouse", "runs"])
def test_a_table_or_a_run_folder_that_is_gone_leaves_nothing_to_tell(published: Published, state: str) -> None:
    shutil.rmtree(published.demo / state)
    wanted = "missing" if state == "warehouse" else "done"
    assert states(published.demo, published.days) == [wanted] * 3


@pytest.mark.parametrize("command", ["versions", "status", "freshness"])
def test_looking_at_a_table_loads_no_heavy_library(three_days: Published, command: str) -> None:
    more = ["--within", "900000"] if command == "freshness" else []
    words = [command, "--config", str(three_days.demo / "run.toml"), *more]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flows", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    loaded = {x.rpartition("|")[2].strip() for x in done.stderr.splitlines() if x.startswith("import time:")}
    assert "flows.config.run_config" in loaded
    assert not loaded & {"torch", "faiss", "prefect"}

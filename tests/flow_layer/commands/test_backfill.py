"""Backfills as processes: side by side or not, stopped, killed or racing, they end in the same bytes and run no day twice."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from flows.__main__ import app
from flows.config.run_config import RunConfig
from tasks.table.lock import table_lock
from tasks.table.snapshot import open_snapshot
from tests.support.flow.flow_support import PATIENCE, CommandLine, Finished, Published, ask_prefect, days_of, table_uri


def command(demo: Path, days: list[str], *more: str) -> tuple[str | Path, ...]:
    return ("backfill", "--config", demo / "run.toml", "--start", days[0], "--end", days[-1], "--json", *more)


def backfill(cli: CommandLine, demo: Path, days: list[str], *more: str) -> Finished:
    return cli(*command(demo, days, *more))


def outcomes(found: dict[str, Any]) -> dict[str, str]:
    return {x["day"]: x["outcome"] for x in found["days"]}


def file_bytes(uri: str, day: str) -> dict[str, bytes]:
    return {x.name: x.read_bytes() for x in sorted((Path(uri) / f"as_of={day}").iterdir())}


def same_days(demo: Path, other: Path, days: list[str]) -> None:
    for day in days:
        # A file's name says the version that added it, which depends on the order of the days.
        ours, theirs = (list(file_bytes(table_uri(x), day).values()) for x in (demo, other))
        assert ours == theirs, day


def log_part(demo: Path, day: str) -> Path:
    (part,) = (demo / "interactions" / f"dt={day}").iterdir()
    return part


def break_day(demo: Path, day: str) -> bytes:
    """Cut the log of one day off, and return what it was."""
    content = log_part(demo, day).read_bytes()
    log_part(demo, day).write_bytes(content[: len(content) // 2])
    return content


def now() -> str:
    return datetime.now(UTC).isoformat()


def runs_of_days(cli: CommandLine, since: str) -> list[dict[str, Any]]:
    """The flow runs that backfills made for days."""
    question = {"flow_runs": {"tags": {"all_": ["backfill"]}, "start_time": {"after_": since}}}
    found: list[dict[str, Any]] = ask_prefect(cli.environment["PREFECT_API_URL"], "flow_runs", question)
    return found


@pytest.mark.slow
def test_days_side_by_side_are_the_days_one_by_one_and_a_bad_one_stops_no_other(
    demo: Path, three_days: Published, cli: CommandLine
) -> None:
    uri, days, bad, begun = table_uri(demo), three_days.days, three_days.tomorrow, now()
    cli.published(demo, days[2])
    newest = file_bytes(uri, days[2])
    whole = break_day(demo, bad)
    asked = [*days, bad]

    plan = backfill(cli, demo, asked, "--parallel", "2", "--dry-run")
    assert plan.code == 0, plan.err
    assert days_of(uri) == [days[2]]
    assert {x["day"]: (x["state"], x["action"]) for x in plan.result["days"]} == {
        **dict.fromkeys([*days[:2], bad], ("missing", "run")),
        days[2]: ("done", "skip"),
    }
    assert (plan.result["to_run"], plan.result["dropped"]) == (3, [])

    done = backfill(cli, demo, asked, "--parallel", "2", "--verbose")
    assert done.code == 2, done.err
    assert outcomes(done.result) == {**dict.fromkeys(days[:2], "published"), days[2]: "skipped", bad: "failed"}
    last = done.err.splitlines()[-1]
    assert last.startswith(f"error: 1 of 4 days failed ({bad}), the first: {demo}/interactions/dt={bad}/")
    assert last.endswith("run them again alone with --reprocess failed")
    assert "Traceback" not in done.err
    assert f"day 1 of 3: {days[0]} published: version 1; 2 left, about " in done.err

    # The newest day was there before: what readers take for the latest is that one still, untouched.
    config = RunConfig.from_toml(demo / "run.toml")
    assert (done.result["latest"], open_snapshot(config.publish).day) == (days[2], days[2])
    assert DeltaTable(uri).version() == 2
    assert file_bytes(uri, days[2]) == newest
    same_days(demo, three_days.demo, days)
    # The outputs of the two runs that ran last and of the two newest days stay.
    assert len(list((demo / "runs" / "stages").glob("rectify-*"))) == 3
    # One flow run a day, each a child of the backfill's.
    made = runs_of_days(cli, begun)
    assert sorted(x["name"] for x in made) == [f"rectify {x}" for x in sorted([*days[:2], bad])]
    assert all(x["parent_task_run_id"] for x in made)
    assert sorted(x["state_type"] for x in made) == ["COMPLETED", "COMPLETED", "FAILED"]

    log_part(demo, bad).write_bytes(whole)
    alone = backfill(cli, demo, asked, "--reprocess", "failed", "--dry-run")
    assert [x["day"] for x in alone.result["days"] if x["action"] == "run"] == [bad]
    rolled = cli("rollback", "--config", demo / "run.toml", "--to", "0", "--json")
    assert rolled.result["as_of"] == days[2]
    states = ("--reprocess", "missing,failed,rolled-back")
    again = backfill(cli, demo, asked, "--dry-run", "--newest-first", *states)
    assert [x["action"] for x in again.result["days"]] == ["run", "skip", "run", "run"]


REFUSED = {
    "no day": (["--start", "June"], "--start June: wanted a day as YYYY-MM-DD"),
    "another word": (["--reprocess", "done"], "--reprocess done: wanted missing, failed, stale, rolled-back, all"),
    "both": (["--force", "--reprocess", "stale"], "--force, --reprocess stale: give one of the two"),
    "none at a time": (["--parallel", "0"], "--parallel 0: wanted at least 1"),
    "too little memory": (
        ["--parallel", "4", "--set", 'resources.memory="1GiB"'],
        "--parallel 4: memory: wanted at least 512MiB",
    ),
    "incremental": (
        ["--parallel", "2", "--set", "incremental.enabled=true"],
        "--parallel 2: with incremental.enabled a day's rows depend",
    ),
    "warm": (
        ["--newest-first", "--set", "anchors.warm_start=true"],
        "--newest-first: with anchors.warm_start a day's rows depend",
    ),
    "no room": (["--set", "publish.keep_snapshots=3"], "publish.keep_snapshots: the table keeps 3 days"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_spent(tiny_demo: Path, case: str) -> None:
    given, said = REFUSED[case]
    words = command(tiny_demo, ["2026-06-25", "2026-06-28"], "--dry-run", *given)
    finished = CliRunner().invoke(app, [str(x) for x in words])
    assert finished.exit_code == 2, finished.output
    assert said in finished.stderr
    assert not (tiny_demo / "runs").exists()


@pytest.mark.slow
def test_failed_days_are_run_again_alone_and_a_repeat_runs_nothing(
    demo: Path, three_days: Published, cli: CommandLine
) -> None:
    days = three_days.days
    whole = break_day(demo, days[2])
    first = backfill(cli, demo, days, "--newest-first")
    assert first.code == 2, first.err
    assert list(outcomes(first.result).items()) == [(days[2], "failed"), (days[1], "published"), (days[0], "published")]
    log_part(demo, days[2]).write_bytes(whole)
    second = backfill(cli, demo, days, "--reprocess", "failed")
    assert second.code == 0, second.err
    assert outcomes(second.result) == {days[0]: "skipped", days[1]: "skipped", days[2]: "published"}
    third = backfill(cli, demo, days)
    assert set(outcomes(third.result).values()) == {"skipped"}
    forced = backfill(cli, demo, days, "--force", "--parallel", "3")
    assert set(outcomes(forced.result).values()) == {"unchanged"}
    assert DeltaTable(table_uri(demo)).version() == 2
    same_days(demo, three_days.demo, days)


def wait_for_stage(demo: Path, day: str, *stages: str) -> dict[str, Any]:
    """The day's entry, once its run has come to one of these stages."""
    config, end = RunConfig.from_toml(demo / "run.toml"), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        entry = config.journal.read(date.fromisoformat(day))
        if entry is not None and entry["state"] == "running" and entry["stage"] in stages:
            return entry
        time.sleep(0.005)
    raise AssertionError(f"{day} did not come to {stages}")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize(("how", "parallel"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 2)])
def test_a_backfill_that_was_stopped_goes_on_to_the_same_bytes(
    demo: Path, three_days: Published, cli: CommandLine, how: signal.Signals, parallel: int
) -> None:
    days = three_days.days
    arguments = command(demo, days, "--parallel", str(parallel))
    running = cli.start(*arguments)
    # A day that computed longer than the one before it has its turn at once.
    stages = ("rectify",) if parallel == 1 else ("its turn", "quality", "publish")
    entry = wait_for_stage(demo, days[1], *stages)
    assert running.process.pid is not None
    os.kill(running.process.pid, how)
    finished = running.wait()
    assert finished.code == (130 if how == signal.SIGINT else -how), finished.err
    if how == signal.SIGINT:
        assert "stopped; days that were done stay done, the same command goes on with the rest" in finished.error
    end = time.monotonic() + 30
    while not gone(entry["pid"]) and time.monotonic() < end:
        time.sleep(0.1)
    assert gone(entry["pid"]), "a day's process outlived its backfill"
    shown = cli("status", "--config", demo / "run.toml", "--start", days[0], "--end", days[-1], "--json").result
    assert shown["days"][1]["state"] == ("dead" if how == signal.SIGKILL else "failed")
    assert shown["days"][2]["state"] == "missing"
    again = cli(*arguments)
    assert again.code == 0, again.err
    assert days_of(table_uri(demo)) == days
    same_days(demo, three_days.demo, days)


@pytest.mark.slow
def test_a_days_process_that_dies_stops_no_other(demo: Path, three_days: Published, cli: CommandLine) -> None:
    days, begun = three_days.days, now()
    running = cli.start(*command(demo, days))
    os.kill(wait_for_stage(demo, days[0], "rectify")["pid"], signal.SIGKILL)
    finished = running.wait()
    assert finished.code == 1, finished.err
    assert outcomes(finished.result) == {days[0]: "failed", days[1]: "published", days[2]: "published"}
    assert "its process was ended by SIGKILL; if memory was short" in finished.err.splitlines()[-1]
    crashed = [x for x in runs_of_days(cli, begun) if x["state_type"] == "CRASHED"]
    assert [x["name"] for x in crashed] == [f"rectify {days[0]}"]
    assert backfill(cli, demo, days).code == 0
    same_days(demo, three_days.demo, days)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [1, 2])
def test_two_backfills_at_once_run_no_day_twice(
    demo: Path, three_days: Published, cli: CommandLine, parallel: int
) -> None:
    days, begun = three_days.days, now()
    arguments = command(demo, days, "--parallel", str(parallel))
    ends = [x.wait() for x in [cli.start(*arguments), cli.start(*arguments)]]
    assert [x.code for x in ends] == [0, 0], [x.err for x in ends]
    for day in days:
        assert sorted(outcomes(x.result)[day] for x in ends) == ["published", "skipped"]
    assert DeltaTable(table_uri(demo)).version() == 2
    # Whoever came second was turned away before it computed anything.
    done = [x for x in runs_of_days(cli, begun) if x["state_type"] == "COMPLETED"]
    assert len(done) == 3
    same_days(demo, three_days.demo, days)


@pytest.mark.slow
def test_a_day_that_is_held_is_left_to_its_run_and_a_held_table_is_waited_for(
    demo: Path, three_days: Published, cli: CommandLine
) -> None:
    days = three_days.days
    config = RunConfig.from_toml(demo / "run.toml")
    with config.journal.hold(date.fromisoformat(days[0])):
        finished = backfill(cli, demo, days[:1])
        assert finished.code == 0, finished.err
        assert outcomes(finished.result) == {days[0]: "skipped"}
        assert finished.result["days"][0]["reason"] == "another run works on it"
    with table_lock(config.publish, run="somebody else"):
        impatient = backfill(cli, demo, days[:1], "--patience", "1")
        assert impatient.code == 4
        assert "run somebody else" in impatient.err.splitlines()[-1]
        waiting = cli.start(*command(demo, days[:1]))
        wait_for_stage(demo, days[0], "its turn")
    done = waiting.wait()
    assert done.code == 0, done.err
    assert outcomes(done.result) == {days[0]: "published"}
    same_days(demo, three_days.demo, days[:1])

"""A day's journal and its lease, with real processes that hold, fail and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from tasks.errors import GateRefusedError, InputError, TableHeldError
from tasks.runs.day_journal import DayTakenError, entry_version, hold_day, is_held, journal_folder, read_day, read_days
from tasks.store.run_context import RunContext, bind_run, timed_stage
from tasks.table.config import PublishConfig

DAY, OTHER = date(2024, 3, 1), date(2024, 3, 2)
HOLD = """
import sys, time
from datetime import date
from tasks.runs.day_journal import hold_day
from tasks.table.config import PublishConfig
folder, uri, day = sys.argv[1:]
with hold_day(folder, PublishConfig(uri=uri), date.fromisoformat(day)) as held, held.under_way():
    held.enter("anchors")
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def publish(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "table"))


def test_a_killed_run_leaves_a_free_lease_and_the_day_can_run_again(tmp_path: Path, publish: PublishConfig) -> None:
    folder = str(tmp_path)
    command = [sys.executable, "-c", HOLD, folder, publish.uri, DAY.isoformat()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        entry = read_day(folder, publish, DAY)
        assert entry is not None
        assert (entry["state"], entry["stage"], entry["pid"]) == ("running", "anchors", process.pid)
        assert is_held(folder, publish, DAY)
        with pytest.raises(TableHeldError, match=rf"pid {process.pid} on .*wait for it"):
            hold_day(folder, publish, DAY).__enter__()
        assert read_day(folder, publish, DAY) == entry
        # Other days of the table, and the same day of another table, are free.
        with hold_day(folder, publish, OTHER), hold_day(folder, PublishConfig(uri=f"{publish.uri}-2"), DAY):
            assert is_held(folder, publish, OTHER)
        assert not is_held(folder, publish, OTHER)
        process.send_signal(signal.SIGKILL)
    assert read_day(folder, publish, DAY) == entry
    assert not is_held(folder, publish, DAY)
    with hold_day(folder, publish, DAY, since=entry_version(entry)) as held, held.under_way():
        held.done({"run_id": "r", "version": 4})
    done = read_day(folder, publish, DAY)
    assert done is not None
    assert (done["state"], done["run_id"], done["version"], done["exit_code"]) == ("done", "r", 4, 0)
    with pytest.raises(DayTakenError, match="another run did that day in the meantime: done"):
        hold_day(folder, publish, DAY, since=entry_version(entry)).__enter__()


@pytest.mark.parametrize(
    ("error", "state", "code", "message"),
    [
        (GateRefusedError("the gate\nrefused"), "refused", 3, "the gate refused"),
        (InputError("no column"), "failed", 2, "no column"),
        (ZeroDivisionError("by zero"), "failed", 1, "ZeroDivisionError: by zero"),
        (KeyboardInterrupt(), "failed", 130, "KeyboardInterrupt"),
    ],
)
def test_the_entry_has_the_end_of_a_run(
    tmp_path: Path, publish: PublishConfig, error: BaseException, state: str, code: int, message: str
) -> None:
    def run() -> None:
        with (
            bind_run(RunContext(folder=tmp_path)),
            hold_day(str(tmp_path), publish, DAY) as held,
            held.under_way(flow_run_id="f", made_from={"code": "1"}),
        ):
            with timed_stage("source"):
                pass
            with timed_stage("anchors"):
                raise error

    with pytest.raises(type(error)):
        run()
    (entry,) = read_days(str(tmp_path), publish).values()
    assert (entry["state"], entry["exit_code"], entry["message"], entry["stage"]) == (state, code, message, "anchors")
    assert entry["started"] <= entry["heartbeat"] <= entry["ended"]
    assert set(entry["seconds"]) == {"source"}
    assert (entry["flow_run_id"], entry["made_from"]) == ("f", {"code": "1"})
    assert not is_held(str(tmp_path), publish, DAY)


def test_a_run_that_does_not_get_the_table_leaves_the_entry(tmp_path: Path, publish: PublishConfig) -> None:
    for _ in range(2):
        before = read_day(str(tmp_path), publish, DAY)
        with pytest.raises(TableHeldError), hold_day(str(tmp_path), publish, DAY) as held, held.under_way():
            raise TableHeldError("the table is held")
        assert read_day(str(tmp_path), publish, DAY) == before
        with hold_day(str(tmp_path), publish, DAY) as held, held.under_way():
            held.done({"run_id": "r", "version": 0})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "as_of": "2024-03-02", "state": "done"}']
)
def test_a_damaged_entry_is_none(tmp_path: Path, publish: PublishConfig, text: str) -> None:
    with hold_day(str(tmp_path), publish, DAY) as held, held.under_way():
        held.done({"run_id": "r", "version": 0})
    assert read_day(str(tmp_path), PublishConfig(uri=f"{publish.uri}-2"), DAY) is None
    (journal_folder(str(tmp_path)) / f"{DAY}.json").write_text(text)
    assert read_days(str(tmp_path), publish) == {}


def test_entries_are_kept_for_as_many_days_as_the_trend(tmp_path: Path) -> None:
    publish = PublishConfig(uri=str(tmp_path / "table"), keep_trend=2)
    for day in (3, 1, 2):
        with hold_day(str(tmp_path), publish, date(2024, 3, day)) as held, held.under_way():
            held.done({"run_id": "r", "version": 0})
    assert sorted(read_days(str(tmp_path), publish)) == [date(2024, 3, 2), date(2024, 3, 3)]

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
from tasks.runs.day_journal import DayJournal, DayTakenError, entry_version
from tasks.store.run_context import RunContext, bind_run, timed_stage
from tasks.table.config import PublishConfig

DAY, OTHER = date(2024, 3, 1), date(2024, 3, 2)
HOLD = """
import sys, time
from datetime import date
from tasks.runs.day_journal import DayJournal
from tasks.table.config import PublishConfig
folder, uri, day = sys.argv[1:]
with DayJournal(folder, PublishConfig(uri=uri)).hold(date.fromisoformat(day)) as held, held.under_way():
    held.enter("anchors")
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def journal(tmp_path: Path) -> DayJournal:
    return DayJournal(str(tmp_path), PublishConfig(uri=str(tmp_path / "table"), keep_trend=2))


@pytest.fixture
def other(tmp_path: Path) -> DayJournal:
    """The journal of another table that shares the run folder."""
    return DayJournal(str(tmp_path), PublishConfig(uri=str(tmp_path / "other")))


def test_a_killed_run_leaves_a_free_lease_and_the_day_can_run_again(journal: DayJournal, other: DayJournal) -> None:
    command = [sys.executable, "-c", HOLD, journal.run_folder, journal.publish.uri, DAY.isoformat()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        entry = journal.read(DAY)
        assert entry is not None
        assert (entry["state"], entry["stage"], entry["pid"]) == ("running", "anchors", process.pid)
        assert journal.is_held(DAY)
        with pytest.raises(TableHeldError, match=rf"pid {process.pid} on .*wait for it"):
            journal.hold(DAY).__enter__()
        assert journal.read(DAY) == entry
        # Other days of the table, and the same day of another table, are free.
        with journal.hold(OTHER), other.hold(DAY):
            assert journal.is_held(OTHER)
        assert not journal.is_held(OTHER)
        process.send_signal(signal.SIGKILL)
    assert journal.read(DAY) == entry
    assert not journal.is_held(DAY)
    with journal.hold(DAY, since=entry_version(entry)) as held, held.under_way():
        held.done({"run_id": "r", "version": 4})
    done = journal.read(DAY)
    assert done is not None
    assert (done["state"], done["run_id"], done["version"], done["exit_code"]) == ("done", "r", 4, 0)
    with pytest.raises(DayTakenError, match="another run did that day in the meantime: done"):
        journal.hold(DAY, since=entry_version(entry)).__enter__()


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
    tmp_path: Path, journal: DayJournal, error: BaseException, state: str, code: int, message: str
) -> None:
    def run() -> None:
        with (
            bind_run(RunContext(folder=tmp_path)),
            journal.hold(DAY) as held,
            held.under_way(flow_run_id="f", made_from={"code": "1"}),
        ):
            with timed_stage("source"):
                pass
            with timed_stage("anchors"):
                raise error

    with pytest.raises(type(error)):
        run()
    (entry,) = journal.read_all().values()
    assert (entry["state"], entry["exit_code"], entry["message"], entry["stage"]) == (state, code, message, "anchors")
    assert entry["started"] <= entry["heartbeat"] <= entry["ended"]
    assert set(entry["seconds"]) == {"source"}
    assert (entry["flow_run_id"], entry["made_from"]) == ("f", {"code": "1"})
    assert not journal.is_held(DAY)


def test_a_run_that_does_not_get_the_table_leaves_the_entry(journal: DayJournal) -> None:
    for _ in range(2):
        before = journal.read(DAY)
        with pytest.raises(TableHeldError), journal.hold(DAY) as held, held.under_way():
            raise TableHeldError("the table is held")
        assert journal.read(DAY) == before
        with journal.hold(DAY) as held, held.under_way():
            held.done({"run_id": "r", "version": 0})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "as_of": "2024-03-02", "state": "done"}']
)
def test_a_damaged_entry_is_none(journal: DayJournal, other: DayJournal, text: str) -> None:
    with journal.hold(DAY) as held, held.under_way():
        held.done({"run_id": "r", "version": 0})
    assert other.read(DAY) is None
    journal.path(DAY).write_text(text)
    assert journal.read_all() == {}


def test_entries_are_kept_for_as_many_days_as_the_trend(journal: DayJournal) -> None:
    for day in (3, 1, 2):
        with journal.hold(date(2024, 3, day)) as held, held.under_way():
            held.done({"run_id": "r", "version": 0})
    assert sorted(journal.read_all()) == [date(2024, 3, 2), date(2024, 3, 3)]

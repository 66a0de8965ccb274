"""A day's journal and its lease, with real processes that hold, fail and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from tasks.errors import GateRefusedError, InputError, StorageError, TableHeldError
from tasks.runs.day_journal import DayTakenError, hold_day, is_held, journal_folder, mark, read_day, read_days
from tasks.table.config import PublishConfig

DAY, OTHER = date(2024, 3, 1), date(2024, 3, 2)
HOLD = """
import sys, time
from datetime import date
from tasks.runs.day_journal import hold_day
from tasks.table.config import PublishConfig
folder, uri, day = sys.argv[1:]
with hold_day(folder, PublishConfig(uri=uri), date.fromisoformat(day)) as held, held.under_way(), held.at("anchors"):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def publish(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "table"))


def holder(folder: Path, publish: PublishConfig, day: date) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", HOLD, str(folder), publish.uri, day.isoformat()]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_killed_run_is_told_by_its_free_lease_and_the_day_can_be_had_again(
    tmp_path: Path, publish: PublishConfig
) -> None:
    with holder(tmp_path, publish, DAY) as process:
        entry = read_day(str(tmp_path), publish, DAY)
        assert entry is not None
        assert (entry["state"], entry["stage"], entry["pid"], entry["ended"]) == (
            "running",
            "anchors",
            process.pid,
            None,
        )
        assert is_held(str(tmp_path), publish, DAY)
        with pytest.raises(TableHeldError, match=rf"pid {process.pid} on .*, since .*, at anchors.*; wait for it"):
            hold_day(str(tmp_path), publish, DAY).__enter__()
        assert read_day(str(tmp_path), publish, DAY) == entry
        # Other days of the table and the same day of another table are free all the while.
        with (
            hold_day(str(tmp_path), publish, OTHER),
            hold_day(str(tmp_path), PublishConfig(uri=f"{publish.uri}-2"), DAY),
        ):
            assert is_held(str(tmp_path), publish, OTHER)
        assert not is_held(str(tmp_path), publish, OTHER)
        process.send_signal(signal.SIGKILL)
    assert read_day(str(tmp_path), publish, DAY) == entry
    assert not is_held(str(tmp_path), publish, DAY)
    with hold_day(str(tmp_path), publish, DAY, since=mark(entry)) as held, held.under_way():
        held.done({"run_id": "r", "version": 4})
    now = read_day(str(tmp_path), publish, DAY)
    assert now is not None
    assert (now["state"], now["run_id"], now["version"], now["exit_code"], now["message"]) == ("done", "r", 4, 0, None)
    with pytest.raises(DayTakenError, match="another run has had that day since: done"):
        hold_day(str(tmp_path), publish, DAY, since=mark(entry)).__enter__()


@pytest.mark.parametrize(
    ("error", "state", "code", "message"),
    [
        (GateRefusedError("the gate\nrefused"), "refused", 3, "the gate refused"),
        (InputError("no column"), "failed", 2, "no column"),
        (StorageError("disk full"), "failed", 1, "disk full"),
        (ZeroDivisionError("by zero"), "failed", 1, "ZeroDivisionError: by zero"),
        (KeyboardInterrupt(), "failed", 130, "KeyboardInterrupt"),
    ],
)
def test_how_a_run_ended_is_kept(
    tmp_path: Path, publish: PublishConfig, error: BaseException, state: str, code: int, message: str
) -> None:
    def run() -> None:
        with hold_day(str(tmp_path), publish, DAY) as held, held.under_way(flow_run_id="f", asked={"code": "1"}):
            with held.at("source"):
                pass
            held.enter("anchors")
            raise error

    with pytest.raises(type(error)):
        run()
    (found,) = read_days(str(tmp_path), publish).values()
    assert (found["state"], found["exit_code"], found["message"], found["stage"]) == (state, code, message, "anchors")
    assert found["started"] <= found["heartbeat"] <= found["ended"]
    assert set(found["seconds"]) == {"source"}
    assert (found["flow_run_id"], found["asked"]) == ("f", {"code": "1"})
    assert not is_held(str(tmp_path), publish, DAY)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "as_of": "2024-03-02", "state": "done"}']
)
def test_an_entry_that_is_none_is_none(tmp_path: Path, publish: PublishConfig, text: str) -> None:
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

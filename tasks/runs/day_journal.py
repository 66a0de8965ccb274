"""What became of each day: one small file a day under ``<run.folder>/days``, there whole or not at all.

An entry is JSON: ``format, as_of, table, state`` ("running", "done", "refused" or "failed"), ``run_id, version, started, ended, heartbeat``
(UTC, ISO), ``stage, pid, host, flow_run_id, exit_code, message`` (the one line), ``seconds`` by stage, and ``asked``: what the run was made
from, to tell by whether that has changed since. A day keeps the entry of the run that came last. One that says "running" while
nobody holds the day's lease is of a run that is dead: nothing else has to be cleaned up after it. Where two tables share a run folder a
day's file is that of the run that came last on either, and says which.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tasks.errors import GateRefusedError, StorageError, TableHeldError, exit_code_of
from tasks.run_logger import run_logger
from tasks.runs.day_lease import DayHeldError, is_leased, lease_day
from tasks.runs.log import told_in_one_line
from tasks.store.atomic_files import write_whole
from tasks.store.run_context import timed_stage
from tasks.store.store import StageStore
from tasks.table.config import PublishConfig

FORMAT = 1
FOLDER = "days"
STATES = ("running", "done", "refused", "failed")
Entry = dict[str, Any]


class DayTakenError(DayHeldError):
    """Another run has had the day since this one was asked for."""


def journal_folder(run_folder: str) -> Path:
    """Where the entries of a run folder lie."""
    return Path(run_folder) / FOLDER


def read_day(run_folder: str, publish: PublishConfig, day: date) -> Entry | None:
    """The entry of one day of a table, None where there is none that can be read."""
    try:
        found = json.loads((journal_folder(run_folder) / f"{day}.json").read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and found.get("format") == FORMAT and found.get("as_of") == day.isoformat()
    return (
        found if whole and found.get("state") in STATES and found.get("table") == _place(run_folder, publish) else None
    )


def _place(run_folder: str, publish: PublishConfig) -> str:
    """Where the table lies, as seen from the run folder when it is local: both may be moved together, and the days are still known."""
    return (
        publish.uri
        if publish.folder is None
        else os.path.relpath(os.path.realpath(publish.folder), os.path.realpath(run_folder))
    )


def read_days(run_folder: str, publish: PublishConfig) -> dict[date, Entry]:
    """Every entry of a table that can be read, by day, oldest first."""
    found = {}
    for path in sorted(journal_folder(run_folder).glob("*.json")):
        with suppress(ValueError):
            day = date.fromisoformat(path.stem)
            if (entry := read_day(run_folder, publish, day)) is not None:
                found[day] = entry
    return found


def is_held(run_folder: str, publish: PublishConfig, day: date) -> bool:
    """Whether a run of that day is under way: somebody who lives holds its lease."""
    return is_leased(journal_folder(run_folder), publish, day)


def mark(entry: Entry | None) -> str:
    """What tells an entry from any later one of its day; empty where there is none."""
    return "" if entry is None else f"{entry['started']}/{entry['pid']}/{entry['state']}"


@contextmanager
def hold_day(run_folder: str, publish: PublishConfig, day: date, *, since: str | None = None) -> Iterator[DayRun]:
    """Hold the lease of a day for the block.

    Raises DayHeldError when another run holds it; DayTakenError when another has had the day since its entry's ``mark`` was ``since``.
    """
    with ExitStack() as held:
        with _told(run_folder, publish, day):
            held.enter_context(lease_day(journal_folder(run_folder), publish, day))
        before = read_day(run_folder, publish, day)
        if since is not None and mark(before) != since:
            state = "its entry is gone" if before is None else before["state"]
            raise DayTakenError(f"{day} of table {publish.uri}: another run has had that day since: {state}")
        yield DayRun(run_folder, publish, day)


@contextmanager
def _told(run_folder: str, publish: PublishConfig, day: date) -> Iterator[None]:
    try:
        yield
    except DayHeldError as error:
        entry = read_day(run_folder, publish, day)
        if entry is None or entry["state"] != "running":
            raise
        holder = f"pid {entry['pid']} on {entry['host']}, since {entry['started'][:19]}, at {entry['stage'] or 'its beginning'}"
        raise DayHeldError(f"{error} ({holder}); wait for it to end or stop it, then run again") from None


@dataclass(slots=True)
class DayRun:
    """A day whose lease is held, and its entry as far as its run has come."""

    run_folder: str
    publish: PublishConfig
    day: date
    entry: Entry = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def under_way(self, *, flow_run_id: str | None = None, asked: Mapping[str, Any] | None = None) -> Iterator[DayRun]:
        """Write that the day is running, and if the block fails how; ``done`` says that it went well. Raises StorageError.

        A run that another one kept from the table has not had the day: its former entry stays.
        """
        before = read_day(self.run_folder, self.publish, self.day)
        self.entry = {
            "format": FORMAT,
            "as_of": self.day.isoformat(),
            "table": _place(self.run_folder, self.publish),
            "state": "running",
            "run_id": None,
            "version": None,
            "started": _now(),
            "ended": None,
            "heartbeat": _now(),
            "stage": None,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "flow_run_id": flow_run_id,
            "exit_code": None,
            "message": None,
            "seconds": {},
            "asked": dict(asked or {}),
        }
        self._write()
        try:
            yield self
        except TableHeldError:
            self._restore(before)
            raise
        except BaseException as error:
            self._failed(error)
            raise

    def enter(self, stage: str) -> None:
        """Note that a stage begins; that is also the heartbeat. A disk that does not take it stops nothing."""
        with self._lock:
            self.entry |= {"stage": stage, "heartbeat": _now()}
            with suppress(StorageError):
                self._write()

    def left(self, stage: str, seconds: float) -> None:
        """Note what a stage took."""
        with self._lock:
            self.entry["seconds"][stage] = round(self.entry["seconds"].get(stage, 0.0) + seconds, 3)

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """A stage, from its beginning to its end."""
        self.enter(stage)
        start = time.monotonic()
        with timed_stage(stage):
            yield
        self.left(stage, time.monotonic() - start)

    def watched(self, store: StageStore) -> StageStore:
        """``store``, telling this journal what it builds or finds."""
        return replace(store, watch=self.at)

    def of_run(self, run_id: str) -> None:
        """Note which run it is, once that is known."""
        with self._lock:
            self.entry["run_id"] = run_id

    def done(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Note that the day is done as ``summary`` says, which comes back; entries go with the table's trend. Raises StorageError."""
        self._end("done", 0, None, run_id=summary["run_id"], version=summary["version"])
        sweep_days(self.run_folder, self.publish.keep_trend)
        return summary

    def _failed(self, error: BaseException) -> None:
        try:
            self._end(
                "refused" if isinstance(error, GateRefusedError) else "failed",
                exit_code_of(error),
                told_in_one_line(error),
            )
        except StorageError as full:
            # The lease goes all the same: the day is then told as dead, which asks for the same rerun.
            run_logger().warning("%s", full)

    def _restore(self, before: Entry | None) -> None:
        with self._lock, suppress(StorageError):
            if before is None:
                self._path.unlink(missing_ok=True)
            else:
                self.entry = before
                self._write()

    @property
    def _path(self) -> Path:
        return journal_folder(self.run_folder) / f"{self.day}.json"

    def _end(self, state: str, code: int, message: str | None, **known: Any) -> None:
        with self._lock:
            now = _now()
            self.entry |= {
                "state": state,
                "ended": now,
                "heartbeat": now,
                "exit_code": code,
                "message": message,
                **known,
            }
            self._write()

    def _write(self) -> None:
        text = json.dumps(self.entry, indent=1, sort_keys=True, allow_nan=False)
        write_whole(
            self._path,
            lambda path: path.write_text(text),
            failed="{path}: the day's entry cannot be written: {why}; free or fix the disk, then run again",
        )


def sweep_days(run_folder: str, keep: int) -> None:
    """Drop the entries of all but the newest ``keep`` days."""
    for path in sorted(journal_folder(run_folder).glob("????-??-??.json"))[:-keep]:
        path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

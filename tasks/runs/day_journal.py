"""How the last run of each day stands or ended: one small JSON file a day, `<run.folder>/days/<day>.json`.

Keys: `format, as_of, table, state` ("running", "done", "refused" or "failed"), `run_id, version, started, ended, heartbeat` (UTC, ISO),
`stage, pid, host, flow_run_id, exit_code, message, seconds` by stage, and `made_from`, which shows later whether the inputs, the config or
the code changed. If two tables share a run folder, a day's file is that of the last run on either.

The process that runs a day holds a file lock, its lease. The kernel frees it when the process dies, so a day that is "running" without a
lease is dead.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tasks.errors import GateRefusedError, InputError, StorageError, TableHeldError, exit_code_of
from tasks.runs.log import error_text
from tasks.store.atomic_files import write_text
from tasks.store.file_lock import held_file
from tasks.store.run_context import current_run
from tasks.table.config import PublishConfig

FORMAT = 1
# `DayJournal.is_held` takes a shared lock for an instant, which must not look like another run.
_PATIENCE = 1.0
STATES = ("running", "done", "refused", "failed")
Entry = dict[str, Any]


class DayHeldError(TableHeldError):
    """Another run works on the day."""


class DayTakenError(DayHeldError):
    """Another run did the day after this run was planned."""


def entry_version(entry: Entry | None) -> str:
    """A text that differs from that of any later entry of the day; empty for no entry."""
    return "" if entry is None else f"{entry['started']}/{entry['pid']}/{entry['state']}"


@dataclass(frozen=True, slots=True)
class DayJournal:
    """The entries and the leases of the days of one table, under a run folder."""

    run_folder: str
    publish: PublishConfig

    @property
    def folder(self) -> Path:
        """The folder of the entries."""
        return Path(self.run_folder) / "days"

    @property
    def table(self) -> str:
        """The table as seen from the run folder: a local table and its run folder may move together."""
        if self.publish.folder is None:
            return self.publish.uri
        return os.path.relpath(os.path.realpath(self.publish.folder), os.path.realpath(self.run_folder))

    def path(self, day: date) -> Path:
        """The file of a day's entry."""
        return self.folder / f"{day}.json"

    def read(self, day: date) -> Entry | None:
        """The entry of one day, None if there is none or it is damaged."""
        try:
            entry = json.loads(self.path(day).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        expected = {"format": FORMAT, "as_of": day.isoformat(), "table": self.table}
        valid = isinstance(entry, dict) and expected.items() <= entry.items() and entry.get("state") in STATES
        return entry if valid else None

    def read_all(self) -> dict[date, Entry]:
        """Every entry by day, oldest first."""
        entries = {}
        for path in sorted(self.folder.glob("*.json")):
            with suppress(ValueError):
                day = date.fromisoformat(path.stem)
                if (entry := self.read(day)) is not None:
                    entries[day] = entry
        return entries

    def is_held(self, day: date) -> bool:
        """Whether a live process runs that day."""
        try:
            with self._lease(day).open() as lease:
                fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return isinstance(error, BlockingIOError)
        return False

    @contextmanager
    def hold(self, day: date, *, since: str | None = None) -> Iterator[DayRun]:
        """Hold the lease of a day for the block.

        Raises DayHeldError if another run holds it, DayTakenError if the day's `entry_version` is no longer `since`, and StorageError.
        """
        table_day = f"{day} of table {self.publish.uri}"
        with held_file(self._lease(day), table_day, run=f"rectify {day}", patience=_PATIENCE, error=DayHeldError):
            entry = self.read(day)
            if since is not None and entry_version(entry) != since:
                state = "its entry is gone" if entry is None else entry["state"]
                raise DayTakenError(f"{table_day}: another run did that day in the meantime: {state}")
            yield DayRun(self, day)

    def sweep(self) -> None:
        """Delete old entries with the table's trend. Lock files stay: deleting one could let two runs lock the same day."""
        for path in sorted(self.folder.glob("????-??-??.json"))[: -self.publish.keep_trend]:
            path.unlink(missing_ok=True)

    def _lease(self, day: date) -> Path:
        """The lock file of one day. Two spellings of one local folder share it."""
        folder = self.publish.folder
        table = os.path.realpath(folder) if folder is not None else self.publish.uri.rstrip("/")
        return self.folder / f".{day}-{hashlib.blake2b(table.encode(), digest_size=6).hexdigest()}.lock"


@dataclass(slots=True)
class DayRun:
    """A day whose lease is held, and the entry of its run so far."""

    journal: DayJournal
    day: date
    entry: Entry = field(default_factory=dict)
    previous: Entry | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def under_way(
        self, *, flow_run_id: str | None = None, made_from: Mapping[str, Any] | None = None
    ) -> Iterator[None]:
        """Write that the day runs, and how it failed if the block fails; `done` writes its success. Raises StorageError.

        If another run holds the table, this run has not touched the day and its former entry stays. So does the entry of a day that is done
        if the config or the input is bad: the table shows that day as before.
        """
        previous = self.previous = self.journal.read(self.day)
        empty = dict.fromkeys(("run_id", "version", "ended", "stage", "exit_code", "message"))
        self.entry = empty | {
            "format": FORMAT,
            "as_of": self.day.isoformat(),
            "table": self.journal.table,
            "state": "running",
            "started": _now(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "flow_run_id": flow_run_id,
            "seconds": {},
            "made_from": dict(made_from or {}),
        }
        self._write()
        run = current_run()
        if run is not None:
            run.on_stage = self.enter
        try:
            yield
        except BaseException as error:
            was_done = previous is not None and previous["state"] == "done"
            if isinstance(error, TableHeldError) or (isinstance(error, InputError) and was_done):
                self._restore(previous)
            else:
                self._fail(error)
            raise
        finally:
            if run is not None:
                run.on_stage = None

    def enter(self, stage: str) -> None:
        """Write that a stage begins, which is also the heartbeat. The run goes on if the disk does not take it."""
        with suppress(StorageError):
            self._write(stage=stage)

    def done(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write that the day is done and return `summary`. Old entries go with the table's trend. Raises StorageError.

        A repeat that computed nothing keeps the seconds of the run that did, and its flow run.
        """
        run, kept = current_run(), Entry()
        if run is not None and "rectify" not in run.stages:
            kept = {"seconds": summary["seconds"]}
            if self.previous is not None and self.previous["run_id"] == summary["run_id"]:
                kept = {name: self.previous[name] for name in ("seconds", "flow_run_id")}
        self._end("done", 0, None, run_id=summary["run_id"], version=summary["version"], **kept)
        self.journal.sweep()
        return summary

    def _restore(self, previous: Entry | None) -> None:
        self.entry = previous or {}
        if previous is None:
            self.journal.path(self.day).unlink(missing_ok=True)
            return
        with suppress(StorageError):
            self._write(heartbeat=previous["heartbeat"])

    def _fail(self, error: BaseException) -> None:
        state, run = "refused" if isinstance(error, GateRefusedError) else "failed", current_run()
        # If the disk does not take this, the day counts as dead without its lease, which asks for the same rerun.
        with suppress(StorageError):
            self._end(state, exit_code_of(error), error_text(error), run_id=None if run is None else run.run_id)

    def _end(self, state: str, code: int, message: str | None, **facts: Any) -> None:
        run, now = current_run(), _now()
        seconds = {} if run is None else {name: round(spent.seconds, 3) for name, spent in run.stages.items()}
        ending = {"state": state, "ended": now, "heartbeat": now, "exit_code": code, "message": message}
        self._write(**ending | {"seconds": seconds} | facts)

    def _write(self, **changes: Any) -> None:
        with self._lock:
            self.entry |= {"heartbeat": _now(), **changes}
            write_text(self.journal.path(self.day), json.dumps(self.entry, indent=1, sort_keys=True, allow_nan=False))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

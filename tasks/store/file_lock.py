"""A file that one process holds at a time: an operating-system lock that the kernel frees when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from tasks.errors import StorageError, TableHeldError

_AGAIN = 0.1


@contextmanager
def held_file(path: Path, what: str, *, run: str = "", patience: float = 0.0) -> Iterator[Path]:
    """Hold the file ``path`` for the block; it is made where it is missing.

    ``what`` names in messages what it stands for, ``run`` is written into it for whoever meets it. Raises TableHeldError when another
    holds it for all of ``patience`` seconds, StorageError when the file cannot be made or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StorageError(
            f"{what}: the lock file {path} cannot be opened: {error.strerror}; make its folder writable"
        ) from error
    try:
        _take(handle, what, path, run, time.monotonic() + patience)
        yield path
        # Who held it is of no interest any more; that it cannot be wiped out is no failure of the run.
        with suppress(OSError):
            os.ftruncate(handle, 0)
    finally:
        # The file itself stays: were it deleted, one process could lock a new file of that name while another holds the old one.
        os.close(handle)


def _take(handle: int, what: str, path: Path, run: str, until: float) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run,
    }
    try:
        while not _locked(handle):
            if time.monotonic() >= until:
                raise TableHeldError(
                    f"{what}: {_holder(handle)} holds it ({path}); wait for it to end or stop it, then run again"
                )
            time.sleep(_AGAIN)
    except OSError as error:
        raise StorageError(
            f"{what}: {path} cannot be locked: {error.strerror}; put it on a disk that takes locks"
        ) from error
    # Whoever is locked out without it is still locked out.
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: int) -> str:
    try:
        told = json.loads(os.pread(handle, 4096, 0))
        run = f"run {told['run']}, " if told["run"] else ""
        return f"another process ({run}pid {told['pid']} on {told['host']}, since {told['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"

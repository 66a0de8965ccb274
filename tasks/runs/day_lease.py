"""A lease a day: who runs a day of a table holds a lock that the kernel frees with its holder, and others can look at without taking it.

One file serves every day of every table that shares a run folder: each has a byte of its own to lock, so nothing is left lying about
and there is no file to delete under someone's hands. These are open file description locks: like ``flock`` they belong to the open
file and not to the process, and they hold among machines where the file system passes locks on.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from tasks.errors import StorageError, TableHeldError
from tasks.table.config import PublishConfig

LEASES = ".leases"
# struct flock of Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi4x")
_DAY_BITS = 22


class DayHeldError(TableHeldError):
    """Another run is at the day."""


@contextmanager
def lease_day(folder: Path, publish: PublishConfig, day: date) -> Iterator[None]:
    """Hold the lease of one day of a table for the block; its file lies in ``folder``.

    Raises DayHeldError at once when another holds it, StorageError where the file cannot be made or locked.
    """
    path = folder / LEASES
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StorageError(
            f"{error.filename or path}: {error.strerror}; free or fix the disk, then run again"
        ) from error
    try:
        _lock(handle, path, publish, day)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, publish: PublishConfig, day: date) -> None:
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _request(fcntl.F_WRLCK, publish, day))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise DayHeldError(f"{day} of table {publish.uri}: another process runs that day") from None
        raise StorageError(
            f"{path}: cannot be locked: {error.strerror}; put run.folder on a disk that takes locks"
        ) from error


def is_leased(folder: Path, publish: PublishConfig, day: date) -> bool:
    """Whether anyone holds the lease of that day now; looking takes nothing from anybody."""
    try:
        handle = os.open(folder / LEASES, os.O_RDONLY)
    except OSError:
        return False
    try:
        found = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK, publish, day))
    except OSError:
        return False
    finally:
        os.close(handle)
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def _request(kind: int, publish: PublishConfig, day: date) -> bytes:
    table = os.path.realpath(publish.folder) if publish.folder is not None else publish.uri.rstrip("/")
    number = int.from_bytes(hashlib.blake2b(table.encode(), digest_size=5).digest(), "big")
    return _FLOCK.pack(kind, os.SEEK_SET, (number << _DAY_BITS) + day.toordinal(), 1, 0)

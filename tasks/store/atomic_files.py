"""Files and folders that have to be on the disk, digested on the way there, and folders that somebody holds."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

DIGESTED = 1 << 20
"""Bytes read at a time: what still lies in a core's cache when it is digested."""


def fsync(path: Path) -> None:
    """Flush a file's or a folder's own entry to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Mark a folder that is being written as in use for the block: a lock that the kernel drops with its holder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # A file system without locks leaves it unmarked, and nobody but this run may then share the store.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def is_abandoned(folder: Path) -> bool:
    """Whether nobody writes a folder any more: its writer is dead."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        os.close(handle)
    return True


def flushed_files(folder: Path, state: Callable[[], Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    """Flush every file below ``folder``; a digest over them all, and each one's ``size`` and ``digest`` by its relative path.

    ``state`` makes what digests a file's bytes, as of ``hashlib``. Files are read by two threads: neither holds the interpreter's lock.
    """
    paths = sorted(x for x in folder.rglob("*") if x.is_file())
    with ThreadPoolExecutor(max_workers=2) as pool:
        digests = list(pool.map(lambda path: _flushed_digest(path, state()), paths))
    files, whole = {}, hashlib.blake2b(digest_size=16)
    for path, digest in zip(paths, digests, strict=True):
        name = str(path.relative_to(folder))
        files[name] = {"size": path.stat().st_size, "digest": digest}
        whole.update(f"{name}\0{digest}\0".encode())
    return whole.hexdigest(), files


def _flushed_digest(path: Path, state: Any) -> str:
    chunk = memoryview(bytearray(DIGESTED))
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(chunk):
            state.update(chunk[:size])
        os.fsync(stream.fileno())
    return str(state.hexdigest())


def flush_folders(folder: Path) -> None:
    """Flush the entries of ``folder`` and of the folders below it."""
    for inner in [x for x in folder.rglob("*") if x.is_dir()] + [folder]:
        fsync(inner)

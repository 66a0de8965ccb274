"""Files and folders that appear complete and flushed under their names, and marks on folders that are in use."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import polars as pl

from tasks.errors import StorageError

TEMPORARY = ".tmp-"
_CHUNK = 1 << 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folders(folder: Path) -> None:
    """Flush the entries of ``folder`` and of the folders below it."""
    for inner in [x for x in folder.rglob("*") if x.is_dir()] + [folder]:
        fsync(inner)


def flushed_files(
    folder: Path, state: Callable[[], Any], *, apart: str | None = None
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Flush every file below ``folder``; return one digest over all but ``apart``, and ``{relative path: {size, digest}}``.

    ``state`` makes the hash object of a file, as ``hashlib`` does. Two threads read: hashing and reading release the interpreter.
    """
    paths = sorted(x for x in folder.rglob("*") if x.is_file())
    with ThreadPoolExecutor(max_workers=2) as pool:
        digests = list(pool.map(lambda path: _flushed_digest(path, state()), paths))
    names = [str(path.relative_to(folder)) for path in paths]
    digested = [f"{n}\0{d}\0" for n, d in zip(names, digests, strict=True) if n != apart]
    total = hashlib.blake2b("".join(digested).encode(), digest_size=16)
    entries = zip(names, paths, digests, strict=True)
    return total.hexdigest(), {name: {"size": path.stat().st_size, "digest": digest} for name, path, digest in entries}


def _flushed_digest(path: Path, state: Any) -> str:
    chunk = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(chunk):
            state.update(chunk[:size])
        os.fsync(stream.fileno())
    return str(state.hexdigest())


@contextmanager
def held(path: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB, flags: int = os.O_RDONLY) -> Iterator[bool]:
    """Mark a file or folder as in use for the block, and yield whether it was free. The kernel drops the mark when the process dies."""
    handle, free = os.open(path, flags, 0o666), True
    try:
        try:
            fcntl.flock(handle, how)
        except OSError as error:
            # Some file systems take no locks. Only one run may then use the store.
            free = not isinstance(error, BlockingIOError)
        yield free
    finally:
        os.close(handle)


def is_abandoned(folder: Path) -> bool:
    """Return whether no live process uses a folder. A folder that cannot be opened counts as in use."""
    try:
        with held(folder) as free:
            return free
    except OSError:
        return False


def write_whole(
    path: Path, write: Callable[[Path], object], *, way_out: str = "free or fix the disk, then run again"
) -> None:
    """Let ``write`` fill a file under a temporary name, flush it, and rename it to ``path``. Raises StorageError, which ends in ``way_out``."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            fsync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync(path.parent)
    except (OSError, pl.exceptions.ComputeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(f"{path}: cannot be written: {why}; {way_out}") from error


def write_text(path: Path, text: str, **options: str) -> None:
    """Write a text file by ``write_whole``, which takes the same options."""
    write_whole(path, lambda temporary: temporary.write_text(text, "utf-8"), **options)


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder to fill. It replaces ``final`` in one step when the block ends without an error.

    The block must flush its files; the folder entries are flushed here. A killed writer leaves a hidden folder, which the next writer
    deletes. Raises OSError.
    """
    hidden = f"{TEMPORARY}{final.name}-"
    final.parent.mkdir(parents=True, exist_ok=True)
    for left in final.parent.glob(f"{glob.escape(hidden)}????????????"):
        # An empty folder may belong to a live writer that has not marked it yet.
        if is_abandoned(left) and any(left.iterdir()):
            shutil.rmtree(left, ignore_errors=True)
    temporary = final.with_name(hidden + token_hex(6))
    try:
        temporary.mkdir()
        with held(temporary):
            yield temporary
            flush_folders(temporary)
            _replace_folder(temporary, final)
        fsync(final.parent)
    finally:
        # After an exchange this is the old folder.
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(temporary: Path, final: Path) -> None:
    try:
        # This also replaces an empty folder.
        temporary.rename(final)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    # Python has no call that swaps two folders. Readers would see no folder between two renames.
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    paths = _AT_FDCWD, os.fsencode(temporary), _AT_FDCWD, os.fsencode(final)
    if exchange is not None and exchange(*paths, _RENAME_EXCHANGE) == 0:
        return
    # Some network file systems cannot swap.
    aside = temporary.with_name(f"{TEMPORARY}{final.name}-{token_hex(6)}")
    final.rename(aside)
    temporary.rename(final)
    shutil.rmtree(aside, ignore_errors=True)

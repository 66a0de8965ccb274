"""Writing a folder so that it is there whole or not at all, also where another one lay under its name.

It is filled under a hidden name beside its own, flushed, and given its name by one system call. A killed writer leaves the hidden folder,
which the next one removes.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from tasks.store.atomic_files import flush_folders, fsync, held, is_abandoned
from tasks.store.store import TEMPORARY

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_OFFERED = {errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP}


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``final`` when the block ends well; whatever lay there is gone then. Raises OSError.

    The block flushes its files; the folders' entries are flushed here.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final)
    temporary = final.with_name(f"{_hidden(final)}{token_hex(6)}")
    try:
        temporary.mkdir()
        with held(temporary):
            yield temporary
            flush_folders(temporary)
            _give_name(temporary, final)
        fsync(final.parent)
    finally:
        # After an exchange this is what lay there before.
        shutil.rmtree(temporary, ignore_errors=True)


def _hidden(final: Path) -> str:
    return f"{TEMPORARY}{final.name}-"


def _sweep(final: Path) -> None:
    """Remove what writers of this folder left when they died."""
    for left in final.parent.glob(f"{glob.escape(_hidden(final))}????????????"):
        if _is_left(left):
            shutil.rmtree(left, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    try:
        # An empty one may be another writer's that is about to be marked as in use.
        return any(folder.iterdir()) and is_abandoned(folder)
    except OSError:
        return False


def _give_name(temporary: Path, final: Path) -> None:
    try:
        # This replaces an empty folder as well.
        temporary.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _exchange(temporary, final)


def _exchange(temporary: Path, final: Path) -> None:
    """Swap two folders at once; where the file system cannot, put the old one aside first, so that for a moment there is none."""
    library = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(library, "renameat2", None)
    if renameat2 is not None:
        if renameat2(_AT_FDCWD, os.fsencode(temporary), _AT_FDCWD, os.fsencode(final), _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _NOT_OFFERED:
            raise OSError(code, os.strerror(code), str(final))
    aside = temporary.with_name(f"{_hidden(final)}{token_hex(6)}")
    final.rename(aside)
    temporary.rename(final)
    shutil.rmtree(aside, ignore_errors=True)

"""Memory maps that do not stay in memory: runs of rows are read and written past the map, the pages that anything else touched are let go
once all maps together have too many, and rows from all over a large file are read one by one.

A plain map keeps every page it ever touched in the process's resident memory until something else needs the room, so a stage that streams
ten gigabytes in small blocks looks ten gigabytes large, and is killed where memory is limited. The pages stay in the system's cache: to
touch one again is a minor fault, not a read. But a fault a page is what mapping costs: a run of rows is read with three fifths of the
processor time, and written with a tenth, where the system copies it in one call; map and file are one and the same cache.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

DEFAULT_ROOM = 128 << 20
MOST_A_CALL = 1 << 30
AROUND = 2 << 20
"""What one fault may bring in around its page, and so what a single row may cost however short it is."""


class _Room:
    """The bytes that reading and writing may leave resident in all maps of the process together, and what they have touched so far."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._touched: weakref.WeakKeyDictionary[mmap.mmap, int] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def take(self, pages: mmap.mmap, size: int) -> None:
        """Note ``size`` bytes about to be touched, of which there are at most as many as the map has; make room for them first."""
        with self._lock:
            touched = min(len(pages), self._touched.get(pages, 0) + size)
            if sum(self._touched.values()) - self._touched.get(pages, 0) + touched > self.size:
                for other in list(self._touched.keys()):
                    other.madvise(mmap.MADV_DONTNEED)
                self._touched.clear()
                touched = min(len(pages), size)
            self._touched[pages] = touched

    def forget(self, pages: mmap.mmap) -> None:
        """Take a map's pages out of the process."""
        with self._lock:
            pages.madvise(mmap.MADV_DONTNEED)
            self._touched.pop(pages, None)


_ROOM = _Room(DEFAULT_ROOM)


def use_room(size: int) -> None:
    """Let the maps of this process keep ``size`` bytes resident: less is slower, a row touched again is another fault."""
    _ROOM.size = max(size, 2 * AROUND)


class Mapped(np.memmap[Any, Any]):
    """A map of one ``.npy`` file. What is taken from a read-only one is a copy; what is put into a writable one is in the file at once.

    Whole-array arithmetic goes around this and leaves its pages resident until the map is closed.
    """

    _path: Path | None = None

    def __getitem__(self, index: Any) -> Any:
        """The rows as an array of their own; from a writable map, a view of it as ever."""
        if self.flags.writeable:
            return super().__getitem__(index)
        if isinstance(index, np.ndarray) and index.ndim == 1:
            return self._gathered(
                np.flatnonzero(index) if index.dtype == np.bool_ and len(index) == len(self) else index
            )
        if (run := self._run(index)) is not None:
            return self._read(run)
        self._touch(index)
        found = super().__getitem__(index)
        return np.array(found, copy=True, subok=False) if isinstance(found, np.ndarray) else found

    def _gathered(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Rows from all over the file: of a large one read each by itself, for a fault would bring in its whole neighbourhood."""
        if self._path is not None and self.nbytes > _ROOM.size // 2 and np.issubdtype(rows.dtype, np.integer):
            return _read_rows(self._path, self.offset, self, np.where(rows < 0, rows + len(self), rows))
        self._touch(rows)
        return np.array(super().__getitem__(rows), copy=False, subok=False)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write into the file."""
        if self.flags.writeable and (run := self._run(index)) is not None:
            self._write(run, value)
            return
        self._touch(index)
        super().__setitem__(index, value)

    def _run(self, index: Any) -> range | None:
        """The rows of an index that asks for a run of whole ones, None for any other index and for a view of a map."""
        if self._path is None or not isinstance(index, slice):
            return None
        run = range(*index.indices(len(self)))
        return run if run.step == 1 and len(run) and self._row else None

    def _read(self, run: range) -> np.ndarray[Any, Any]:
        rows = np.empty((len(run), *self.shape[1:]), self.dtype)
        with _opened(self._path, os.O_RDONLY) as handle:
            for at, part in _parts(rows, self.offset + run.start * self._row):
                if os.preadv(handle, [part], at) != len(part):
                    raise OSError(errno.EIO, "the file is shorter than it was", str(self._path))
        return rows

    def _write(self, run: range, value: Any) -> None:
        rows = np.ascontiguousarray(np.broadcast_to(np.asarray(value, self.dtype), (len(run), *self.shape[1:])))
        with _opened(self._path, os.O_WRONLY) as handle:
            for at, part in _parts(rows, self.offset + run.start * self._row):
                if os.pwrite(handle, part, at) != len(part):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """What is computed from a map is in memory like any other array."""
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain

    def let_go(self) -> None:
        """Take the map's pages out of this process; what was written to them is kept by the system, and by ``flush`` on the disk."""
        if (pages := self._pages) is not None:
            _ROOM.forget(pages)

    def _touch(self, index: Any) -> None:
        if (pages := self._pages) is not None:
            first = index[0] if isinstance(index, tuple) and index else index
            rows = len(range(*first.indices(len(self)))) if isinstance(first, slice) else self._places(first)
            _ROOM.take(pages, self._row * rows + AROUND * self._places(first))

    @property
    def _pages(self) -> mmap.mmap | None:
        pages = getattr(self, "_mmap", None)
        return pages if isinstance(pages, mmap.mmap) else None

    @property
    def _row(self) -> int:
        return self.nbytes // max(1, len(self))

    def _places(self, first: Any) -> int:
        """How many places of the file an index touches at most: one for a run of rows."""
        if isinstance(first, slice | int | np.integer):
            return 1
        return len(first) if isinstance(first, np.ndarray | list) else len(self)


@contextmanager
def _opened(path: Path | None, flags: int) -> Iterator[int]:
    handle = os.open(str(path), flags)
    try:
        yield handle
    finally:
        os.close(handle)


def _parts(rows: np.ndarray[Any, Any], start: int) -> Iterator[tuple[int, memoryview]]:
    """The bytes of contiguous rows that lie at ``start`` of a file, no more at a time than one system call takes whole."""
    whole = rows.reshape(-1).view(np.uint8).data
    for at in range(0, len(whole), MOST_A_CALL):
        yield start + at, whole[at : at + MOST_A_CALL]


def open_mapped(path: Path) -> np.ndarray[Any, Any]:
    """A read-only map of a ``.npy`` file; a file without elements, which cannot be mapped, as an empty array."""
    found: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(found, np.memmap):
        return found
    mapped = found.view(Mapped)
    mapped._path = path if found.flags.c_contiguous else None
    return mapped


@contextmanager
def whole_rows(rows: np.ndarray[Any, Any], room: int) -> Iterator[np.ndarray[Any, Any]]:
    """A read-only map of at most ``room`` bytes as a plain array for the block, its pages left resident until then; a larger one as it is.

    A row that is read often costs no copy and one fault then.
    """
    pages = rows._pages if isinstance(rows, Mapped) else None
    if pages is None or rows.nbytes > room:
        yield rows
        return
    pages.madvise(mmap.MADV_WILLNEED)
    try:
        yield np.asarray(rows)
    finally:
        pages.madvise(mmap.MADV_DONTNEED)


def _read_rows(path: Path, offset: int, like: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The given rows of the file that ``like`` maps, read one by one without the interpreter's lock."""
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(like):
        raise IndexError(f"{path}: wanted rows below {len(like)}, got {int(rows.min())} to {int(rows.max())}")
    taken = np.empty((len(rows), *like.shape[1:]), like.dtype)
    row, into = like.nbytes // len(like), taken.reshape(-1).view(np.uint8).data
    with _opened(path, os.O_RDONLY) as handle:
        for at, place in enumerate(rows.tolist()):
            if os.preadv(handle, [into[at * row : (at + 1) * row]], offset + place * row) != row:
                raise OSError(errno.EIO, "the file is shorter than it was", str(path))
    return taken


def create_mapped(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap[Any, Any]:
    """A new writable ``.npy`` file of zeros."""
    made = open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape).view(Mapped)
    made._path = path
    return made

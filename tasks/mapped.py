"""Memory maps that do not stay in memory: the pages that blocks touched are let go once all maps together have too many.

A plain map keeps every page it ever touched in the process's resident memory until something else needs the room, so a stage that streams
ten gigabytes in small blocks looks ten gigabytes large, and is killed where memory is limited. The pages stay in the system's cache: to
touch one again is a minor fault, not a read.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from rectifier_core.numerics import row_blocks

DEFAULT_ROOM = 128 << 20
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

    def __getitem__(self, index: Any) -> Any:
        """The rows as an array of their own; from a writable map, a view of it as ever."""
        if self.flags.writeable:
            return super().__getitem__(index)
        if isinstance(index, np.ndarray) and index.ndim == 1:
            return self._gathered(np.flatnonzero(index) if index.dtype == np.bool_ and len(index) == len(self) else index)
        self._touch(index)
        found = super().__getitem__(index)
        return np.array(found, copy=True, subok=False) if isinstance(found, np.ndarray) else found

    def _gathered(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Rows from all over the file, a few at a time where it is large: each may bring in its whole neighbourhood."""
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        whole = self.nbytes <= _ROOM.size // 2
        for block in row_blocks(len(rows), max(1, len(rows) if whole else _ROOM.size // 2 // (AROUND + self._row))):
            self._touch(rows[block])
            taken[block] = super().__getitem__(rows[block])
        return taken

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write into the file's pages."""
        self._touch(index)
        super().__setitem__(index, value)

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


def open_mapped(path: Path) -> np.ndarray[Any, Any]:
    """A read-only map of a ``.npy`` file; a file without elements, which cannot be mapped, as an empty array."""
    found: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found.view(Mapped) if isinstance(found, np.memmap) else found


def create_mapped(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap[Any, Any]:
    """A new writable ``.npy`` file of zeros."""
    return open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape).view(Mapped)

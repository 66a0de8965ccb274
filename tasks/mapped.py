"""Memory maps that do not stay in memory: the pages that a block touched are let go once many have been.

A plain map keeps every page it ever touched in the process's resident memory until something else needs the room, so a stage that streams
ten gigabytes in small blocks looks ten gigabytes large, and is killed where memory is limited. The pages stay in the system's cache: to
touch one again is a minor fault, not a read.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from rectifier_core.numerics import row_blocks

LET_GO_AT = 64 << 20
"""Bytes that reading or writing may touch before the map's pages are let go."""
AROUND = 2 << 20
"""What one fault may bring in around its page, and so what a single row may cost however short it is."""


class Mapped(np.memmap[Any, Any]):
    """A map of one ``.npy`` file. What is taken from a read-only one is a copy; what is put into a writable one is in the file at once.

    Whole-array arithmetic goes around this and leaves its pages resident until the map is closed.
    """

    _touched: int = 0

    def __getitem__(self, index: Any) -> Any:
        """The rows as an array of their own; from a writable map, a view of it as ever."""
        if not self.flags.writeable and isinstance(index, np.ndarray) and index.ndim == 1:
            return self._gathered(np.flatnonzero(index) if index.dtype == np.bool_ and len(index) == len(self) else index)
        found = super().__getitem__(index)
        if self.flags.writeable or not isinstance(found, np.ndarray):
            return found
        taken = np.array(found, copy=True, subok=False)
        self._count(taken.nbytes + AROUND * self._places(index))
        return taken

    def _gathered(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Rows from all over the file, a few at a time: each may bring in its whole neighbourhood."""
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        few = max(1, LET_GO_AT // (AROUND + self._row))
        for block in row_blocks(len(rows), few):
            taken[block] = super().__getitem__(rows[block])
            self._count((AROUND + self._row) * (block.stop - block.start))
        return taken

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write into the file's pages."""
        super().__setitem__(index, value)
        rows = len(range(*index.indices(len(self)))) if isinstance(index, slice) else self._places(index)
        self._count(self._row * rows + AROUND * self._places(index))

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """What is computed from a map is in memory like any other array."""
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain

    def let_go(self) -> None:
        """Take the map's pages out of this process; what was written to them is kept by the system, and by ``flush`` on the disk."""
        pages = getattr(self, "_mmap", None)
        if isinstance(pages, mmap.mmap):
            pages.madvise(mmap.MADV_DONTNEED)
        self._touched = 0

    def _count(self, size: int) -> None:
        self._touched += size
        if self._touched >= LET_GO_AT:
            self.let_go()

    @property
    def _row(self) -> int:
        return self.nbytes // max(1, len(self))

    def _places(self, index: Any) -> int:
        """How many places of the file an index touches at most: one for a run of rows."""
        first = index[0] if isinstance(index, tuple) and index else index
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

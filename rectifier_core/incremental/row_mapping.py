"""Where the items of a run were in a previous one, and values of the previous run in this run's order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Bool, Int32, Int64, check_array
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.seeding import generator

BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMapping:
    """One modality of a run beside a previous one.

    ``previous`` [I] int64 is each item's row there, -1 for a new item. ``same`` [I] is True where its feature is bit for bit the same.
    ``fold`` [I] int32 is the fold whose map was fitted without the item. An item keeps its fold.
    """

    previous: Int64
    same: Bool
    fold: Int32

    def __post_init__(self) -> None:
        check_array("previous", self.previous, (None,), np.int64)
        check_array("same", self.same, self.previous.shape, np.bool_)
        check_array("fold", self.fold, self.previous.shape, np.int32)

    @property
    def known(self) -> Bool:
        """The items that the previous run had: [I] bool."""
        known: Bool = self.previous >= 0
        return known

    def now(self, num_previous: int) -> Int64:
        """The row of this run for each previous row, -1 where the item is gone: [num_previous] int64."""
        now = np.full(num_previous, -1, np.int64)
        now[self.previous[self.known]] = np.flatnonzero(self.known)
        return now

    def marked(self, items: Bool, num_previous: int) -> Bool:
        """Which previous rows belong to the ``items`` [I] bool of this run: [num_previous] bool."""
        marked = np.zeros(num_previous, np.bool_)
        marked[self.previous[items & self.known]] = True
        return marked

    def rows(self, values: np.ndarray[Any, Any], fill: Any) -> np.ndarray[Any, Any]:
        """``values`` [J, ...] of the previous run in this run's order [I, ...], ``fill`` for new items."""
        return mapped_rows(values, self.previous, fill)


def mapped_rows(values: np.ndarray[Any, Any], previous: Int64, fill: Any) -> np.ndarray[Any, Any]:
    """``values`` [J, ...] at the rows ``previous`` [I], read in blocks; ``fill`` where a row is -1."""
    mapped = np.full((len(previous), *values.shape[1:]), fill, values.dtype)
    for block in row_blocks(len(previous), BLOCK_ROWS):
        known = np.flatnonzero(previous[block] >= 0)
        mapped[block][known] = gathered(values, previous[block][known])
    return mapped


def gathered(values: np.ndarray[Any, Any], rows: Int64) -> np.ndarray[Any, Any]:
    """``values[rows]``; rows that lie close together are read from a memory map as one range, which is faster."""
    if len(rows):
        first, last = int(rows.min()), int(rows.max()) + 1
        if last - first <= 2 * len(rows):
            return np.asarray(values[first:last])[rows - first]
    return np.asarray(values[rows])


def mapped_folds(folds: Int32, previous: Int64, num_folds: int, seed: int) -> Int32:
    """The fold of every item [I]: the one from the previous run's ``folds`` [J], a random one for a new item."""
    drawn = generator(seed, "folds", "new").integers(num_folds, size=len(previous)).astype(np.int32)
    return np.where(previous >= 0, folds[previous], drawn).astype(np.int32)

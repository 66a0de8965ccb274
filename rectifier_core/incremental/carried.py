"""Where the items of a run were in an earlier one, and rows carried over from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Bool, Int32, Int64, check_array
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.seeding import generator

BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """One modality of a run beside an earlier one.

    ``before`` [I] int64 is each item's row there, -1 where it was not; ``same`` [I] is True where it has the very same feature as then;
    ``fold`` [I] int32 is the fold that its maps are fitted without, which stays with an item.
    """

    before: Int64
    same: Bool
    fold: Int32

    def __post_init__(self) -> None:
        check_array("before", self.before, (None,), np.int64)
        check_array("same", self.same, self.before.shape, np.bool_)
        check_array("fold", self.fold, self.before.shape, np.int32)

    @property
    def known(self) -> Bool:
        """The items that the earlier run had: [I] bool."""
        known: Bool = self.before >= 0
        return known

    def after(self, num_before: int) -> Int64:
        """The row now of each row then, -1 where the item is gone: [num_before] int64."""
        after = np.full(num_before, -1, np.int64)
        after[self.before[self.known]] = np.flatnonzero(self.known)
        return after

    def marked(self, items: Bool, num_before: int) -> Bool:
        """Which rows then are those of the ``items`` [I] bool now: [num_before] bool."""
        marked = np.zeros(num_before, np.bool_)
        marked[self.before[items & self.known]] = True
        return marked

    def rows(self, values: np.ndarray[Any, Any], fill: Any) -> np.ndarray[Any, Any]:
        """``values`` [J, ...] of the earlier run in this run's order [I, ...], ``fill`` for items that it did not have."""
        return carried_rows(values, self.before, fill)


def carried_rows(values: np.ndarray[Any, Any], before: Int64, fill: Any) -> np.ndarray[Any, Any]:
    """``values`` [J, ...] at the places ``before`` [I], read by blocks; ``fill`` where a place is -1."""
    found = np.full((len(before), *values.shape[1:]), fill, values.dtype)
    for block in row_blocks(len(before), BLOCK_ROWS):
        at = np.flatnonzero(before[block] >= 0)
        found[block][at] = gathered(values, before[block][at])
    return found


def gathered(values: np.ndarray[Any, Any], rows: Int64) -> np.ndarray[Any, Any]:
    """``values[rows]``; where the rows lie close together, as those of a catalog that keeps its order do, by one run of the file."""
    if len(rows):
        first, last = int(rows.min()), int(rows.max()) + 1
        if last - first <= 2 * len(rows):
            return np.asarray(values[first:last])[rows - first]
    return np.asarray(values[rows])


def carried_folds(folds: Int32, before: Int64, num_folds: int, seed: int) -> Int32:
    """The fold of every item [I]: what it was in the earlier run's ``folds`` [J], and for a new item a draw."""
    drawn = generator(seed, "folds", "new").integers(num_folds, size=len(before)).astype(np.int32)
    return np.where(before >= 0, folds[before], drawn).astype(np.int32)

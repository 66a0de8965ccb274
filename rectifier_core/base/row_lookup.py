"""The row of an id among distinct ids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Int64


class RowLookup:
    """Finds rows of the distinct ``ids`` [N], which are all text or all numbers."""

    def __init__(self, ids: NDArray[Any]) -> None:
        self._ids, self._order = ids, np.argsort(ids, kind="stable")

    def rows_of(self, wanted: NDArray[Any]) -> Int64:
        """The row of each of ``wanted`` [M], -1 for an id that is not there or of the other kind: [M] int64."""
        if not len(self._ids) or wanted.dtype.kind != self._ids.dtype.kind:
            return np.full(len(wanted), -1, np.int64)
        place = np.searchsorted(self._ids, wanted, sorter=self._order)
        rows = self._order[np.minimum(place, len(self._ids) - 1)]
        return np.where(self._ids[rows] == wanted, rows, -1).astype(np.int64)

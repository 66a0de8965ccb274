"""The inner loop of rectification: a row and its donors' rows, mixed and brought to length in one pass; a leaf.

Donors' rows are read where they lie, once each, and summed in the order of the plan's entries, so that neither blocks nor threads change a
bit. In steps of whole matrices the same work copies every donor's row first and passes over the mixture ten times.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32, Int32, Int64
from rectifier_core.base.published_records import Status
from rectifier_core.base.threads import kernel, read_only

RECTIFIED, IMPUTED = Status.RECTIFIED.code, Status.IMPUTED.code
_ROWS, _OUT, _SIZE = read_only(numba.float32, 2), numba.float32[:, ::1], numba.intp
_POINTERS, _PLACES = read_only(numba.int64, 1), read_only(numba.int32, 1)
_VALUES, _CODES = read_only(numba.float32, 1), read_only(numba.int8, 1)


@kernel(
    numba.void(_ROWS, _POINTERS, _PLACES, _VALUES, _VALUES, _CODES, _OUT, _SIZE, _SIZE),
    fastmath={"reassoc", "contract"},
)
def _mix(
    donors: Any, indptr: Any, indices: Any, weights: Any, keep: Any, code: Any, rows: Any, first: Any, last: Any
) -> None:
    width = rows.shape[1]
    mixed = np.empty(width, np.float32)
    for row in range(first, last):
        if code[row] != RECTIFIED and code[row] != IMPUTED:
            continue
        mixed[:] = 0
        length = 0.0
        for entry in range(indptr[row], indptr[row + 1]):
            weight, donor = weights[entry], donors[indices[entry]]
            if weight == 0:
                continue
            for at in range(width):
                mixed[at] += weight * donor[at]
            if code[row] == IMPUTED:
                square = 0.0
                for at in range(width):
                    square += np.float64(donor[at]) * np.float64(donor[at])
                length += weight * math.sqrt(square)
        if code[row] == RECTIFIED:
            if not mixed.any():
                continue
            square = 0.0
            for at in range(width):
                square += np.float64(rows[row, at]) * np.float64(rows[row, at])
                mixed[at] = keep[row] * rows[row, at] + (np.float32(1) - keep[row]) * mixed[at]
            length = math.sqrt(square)
        square = 0.0
        for at in range(width):
            square += np.float64(mixed[at]) * np.float64(mixed[at])
        if square > 0:
            scale = np.float32(length / math.sqrt(square))
            for at in range(width):
                rows[row, at] = mixed[at] * scale
        elif code[row] == IMPUTED:
            rows[row] = 0


def mix_rows(
    donors: Float32,
    indptr: Int64,
    indices: Int32,
    weights: Float32,
    keep: Float32,
    code: NDArray[np.int8],
    rows: Float32,
    first: int,
    last: int,
) -> None:
    """Mend ``rows`` [N, D] from ``first`` to ``last`` in place.

    Row n takes ``donors[indices[e]]`` times ``weights[e]`` for e from ``indptr[n]`` to ``indptr[n + 1]``. Of one whose ``code`` is
    RECTIFIED the share ``keep[n]`` stays, and so does its length; it stays whole where its donors give nothing. One that is IMPUTED is the
    donors' alone, at the mean of their lengths. Any other is left as it is.
    """
    _mix(donors, indptr, indices, weights, keep, code, rows, first, last)

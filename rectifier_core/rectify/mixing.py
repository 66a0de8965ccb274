"""The inner loop of rectification: mix a row with its donors' rows and restore its length.

Donors are summed in the order of the plan's entries, so neither blocks nor threads change a bit. It is compiled because the same work in
whole matrices passes over the mixture ten times.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from rectifier_core.base.published_records import Status
from rectifier_core.base.threads import kernel, read_only

RECTIFIED, IMPUTED = Status.RECTIFIED.code, Status.IMPUTED.code
_ROWS, _OUT = read_only(numba.float32, 2), numba.float32[:, ::1]
_POINTERS, _PLACES = read_only(numba.int64, 1), read_only(numba.int32, 1)
_VALUES, _CODES = read_only(numba.float32, 1), read_only(numba.int8, 1)


@kernel(
    numba.void(_ROWS, _POINTERS, _PLACES, _VALUES, _VALUES, _CODES, _OUT),
    fastmath={"reassoc", "contract"},
)
def mix_rows(donors: Any, indptr: Any, indices: Any, weights: Any, keep: Any, code: Any, rows: Any) -> None:
    """Rectify ``rows`` [N, D] float32 in place.

    Row n gets ``donors[indices[e]] * weights[e]`` for e from ``indptr[n]`` to ``indptr[n + 1]``.

    - ``code`` RECTIFIED: the share ``keep[n]`` of the row stays, and so does its length. Without donors it stays as it is.
    - ``code`` IMPUTED: only the donors count. The length is their mean length.
    - Any other code: the row stays as it is.
    """
    width = rows.shape[1]
    mixed = np.empty(width, np.float32)
    for row in range(len(rows)):
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

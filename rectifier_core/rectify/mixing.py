"""The inner loop of rectification: mix a row with its expected feature and restore its length.

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

RECTIFIED, IMPUTED, PASSED = Status.RECTIFIED.code, Status.IMPUTED.code, Status.PASSED_THROUGH.code
LEAST_MOVED = 0.001
"""A row that would move by less (1 - cosine) is left as it is."""
_ROWS, _OUT = read_only(numba.float32, 2), numba.float32[:, ::1]
_POINTERS, _PLACES = read_only(numba.int64, 1), read_only(numba.int32, 1)
_VALUES, _CODES, _MOVED = read_only(numba.float32, 1), numba.int8[::1], numba.float32[::1]
_MAPS = read_only(numba.float32, 3)
SURELY_KEPT = 0.99
"""With this share of its own feature, a row cannot move by ``LEAST_MOVED``: no feature is more than three unit lengths from the expected."""


_part = numba.njit(nogil=True, inline="always", fastmath={"reassoc", "contract"})
"""Compiles a part of the kernel into it."""


@_part  # type: ignore[untyped-decorator]
def _add_donors(
    donors: Any, lengths: Any, indices: Any, weights: Any, first: Any, last: Any, adaptive: Any, mixed: Any
) -> Any:
    """Set ``mixed`` to the weighted sum of a row's donors, as unit rows where ``adaptive``. Return the weights' sum and mean length."""
    mixed[:] = 0
    total, length = np.float32(0), 0.0
    for entry in range(first, last):
        weight, at_donor = weights[entry], indices[entry]
        if weight == 0 or lengths[at_donor] == 0:
            continue
        donor, scale = donors[at_donor], weight
        if adaptive:
            scale = weight / lengths[at_donor]
        for at in range(len(mixed)):
            mixed[at] += scale * donor[at]
        total += weight
        length += weight * lengths[at_donor]
    return total, length


@_part  # type: ignore[untyped-decorator]
def _add_views(views: Any, maps: Any, mixed: Any) -> Any:
    """Add ``views @ maps`` to ``mixed``, and return whether there was anything to add."""
    something = False
    for view in range(len(views)):
        if views[view] != 0:
            something = True
            for at in range(len(mixed)):
                mixed[at] += views[view] * maps[view, at]
    return something


@_part  # type: ignore[untyped-decorator]
def _stretch(difference: Any, mean: Any) -> Any:
    """Return the t for which ``mean + t * difference`` is a unit row, 0 where there is no difference.

    Scaling the whole row instead would turn a short difference towards the mean.
    """
    square, across, middle = 0.0, 0.0, 0.0
    for at in range(len(mean)):
        square += np.float64(difference[at]) * np.float64(difference[at])
        across += np.float64(difference[at]) * np.float64(mean[at])
        middle += np.float64(mean[at]) * np.float64(mean[at])
    if square == 0:
        return 0.0
    return (math.sqrt(across * across + square * max(0.0, 1 - middle)) - across) / square


@kernel(
    numba.void(
        *(_ROWS, _VALUES, _POINTERS, _PLACES, _VALUES),
        *(_VALUES, numba.float32, _MAPS, _ROWS, _PLACES),
        *(_VALUES, numba.boolean, _CODES, _OUT, _MOVED),
    ),
    fastmath={"reassoc", "contract"},
)
def mix_rows(
    donors: Any,
    lengths: Any,
    indptr: Any,
    indices: Any,
    weights: Any,
    mean: Any,
    donor_weight: Any,
    maps: Any,
    views: Any,
    folds: Any,
    keep: Any,
    adaptive: Any,
    code: Any,
    rows: Any,
    moved: Any,
) -> None:
    """Rectify ``rows`` [N, D] float32 in place, and set ``moved`` [N] to 1 - cosine between a row before and after.

    Row n has the donors ``donors[indices[e]]`` of length ``lengths[indices[e]]`` with ``weights[e]``, e from ``indptr[n]`` to
    ``indptr[n + 1]``.

    - ``code`` RECTIFIED: ``mean + t * (keep * (own - mean) + (1 - keep) * expected)``, t such that the row has its length. Without
      ``adaptive`` it is the paper's ``keep * own + (1 - keep) * donors``. A row that moves by less than ``LEAST_MOVED``, or that nothing
      predicts, stays and gets the code PASSED_THROUGH.
    - ``code`` IMPUTED: ``mean + t * expected`` at the donors' mean length.
    - Any other code: the row stays as it is.

    ``expected`` is ``donor_weight`` times the donors' mean unit row less ``mean`` [D], plus ``views[n] @ maps[folds[n]]``.
    """
    width = rows.shape[1]
    mixed = np.empty(width, np.float32)
    for row in range(len(rows)):
        if code[row] != RECTIFIED and code[row] != IMPUTED:
            continue
        if adaptive and code[row] == RECTIFIED and keep[row] >= SURELY_KEPT:
            code[row] = PASSED
            continue
        total, length = _add_donors(donors, lengths, indices, weights, indptr[row], indptr[row + 1], adaptive, mixed)
        square = 0.0
        for at in range(width):
            square += np.float64(rows[row, at]) * np.float64(rows[row, at])
        own = np.float32(1)
        if adaptive and square > 0:
            own = np.float32(1 / math.sqrt(square))
        share = np.float32(0)
        if code[row] == RECTIFIED:
            share, length = keep[row], math.sqrt(square)
        something = total > 0
        if adaptive:
            for at in range(width):
                mixed[at] = donor_weight * (mixed[at] - total * mean[at])
            something = _add_views(views[row], maps[folds[row]], mixed) or something
        for at in range(width):
            mixed[at] = share * (own * rows[row, at] - mean[at]) + (np.float32(1) - share) * mixed[at]
        stretch = _stretch(mixed, mean)
        across = 0.0
        for at in range(width):
            mixed[at] = mean[at] + np.float32(stretch) * mixed[at]
            across += np.float64(mixed[at]) * np.float64(rows[row, at])
        far = 0.0
        if stretch > 0 and square > 0:
            far = max(0.0, 1 - across / math.sqrt(square))
        if code[row] == RECTIFIED and (far < LEAST_MOVED or stretch == 0 or not something):
            code[row] = PASSED
            continue
        moved[row] = far
        for at in range(width):
            rows[row, at] = np.float32(length) * mixed[at]

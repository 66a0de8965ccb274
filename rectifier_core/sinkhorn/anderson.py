"""Anderson mixing of type II with restart, for fixed points over all items; a leaf.

Source: Walker and Ni, SIAM J. Numer. Anal. 49 (2011). The differences are kept in float32, four bytes an item each: they shrink with the
residual, and their rounding with them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from rectifier_core.base.arrays import Float64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.threads import even_bounds, in_shards, kernel, num_shards, read_only

CHUNK = 1 << 12
"""Inner products are summed within chunks of this length, and those in order: the same bits whatever the threads."""

_VECTOR, _ROWS, _OUT = read_only(numba.float64, 1), numba.float32[:, ::1], numba.float64[::1]
_READ, _RANGE = read_only(numba.float32, 2), (numba.intp,) * 2


@kernel(
    numba.void(
        _VECTOR, _VECTOR, _VECTOR, _VECTOR, _ROWS, _ROWS, numba.intp, numba.intp, numba.float64[:, ::1], *_RANGE
    ),
    fastmath={"reassoc", "nsz"},
)
def _note(
    point: Any,
    residual: Any,
    old_point: Any,
    old_residual: Any,
    both: Any,
    changes: Any,
    slot: Any,
    kept: Any,
    out: Any,
    first: Any,
    last: Any,
) -> None:
    """Note in ``slot`` how the residual changed, and how point and residual did together.

    ``out`` [2, kept]: the products of that change, and of the residual, with all changes kept.
    """
    for at in range(first, last):
        change = residual[at] - old_residual[at]
        changes[slot, at] = change
        both[slot, at] = (point[at] - old_point[at]) + change
    for other in range(kept):
        with_change = with_residual = 0.0
        for at in range(first, last):
            with_change += np.float64(changes[slot, at]) * np.float64(changes[other, at])
            with_residual += residual[at] * np.float64(changes[other, at])
        out[0, other], out[1, other] = with_change, with_residual


@kernel(numba.void(_VECTOR, _VECTOR, _READ, _VECTOR, _OUT, *_RANGE))
def _mix(point: Any, residual: Any, both: Any, mixture: Any, out: Any, first: Any, last: Any) -> None:
    for at in range(first, last):
        out[at] = point[at] + residual[at]
    for slot in range(both.shape[0]):
        for at in range(first, last):
            out[at] -= mixture[slot] * both[slot, at]


class Anderson:
    """The combination of the last ``memory`` iterates whose residual is least, for points of ``size`` coordinates."""

    def __init__(self, memory: int, size: int) -> None:
        self._both, self._changes = np.zeros((memory, size), np.float32), np.zeros((memory, size), np.float32)
        self._gram = np.zeros((memory, memory))
        self._chunks = list(row_blocks(size, CHUNK))
        self._bounds = even_bounds(len(self._chunks), num_shards(size * 4 * memory))
        self.forget()

    def forget(self) -> None:
        """Begin anew: the next step is a plain one."""
        self._seen = 0

    def next(self, point: Float64, residual: Float64) -> Float64:
        """Where to go from ``point`` [I] float64, whose plain step would be ``residual``. Both are kept until the next call."""
        kept, slot = min(self._seen, len(self._both)), (self._seen - 1) % len(self._both)
        products = self._note(point, residual, slot, kept) if kept else np.empty((2, 0))
        self._old, self._seen = (point, residual), self._seen + 1
        if not kept:
            return point + residual
        self._gram[slot, :kept] = self._gram[:kept, slot] = products[0]
        gram = self._gram[:kept, :kept].copy()
        gram[np.diag_indices(kept)] += 1e-10 * max(float(np.trace(gram)), np.finfo(np.float64).tiny)
        mixture, out = np.linalg.solve(gram, products[1]), np.empty_like(point)

        def mix(first: int, last: int) -> None:
            for chunk in self._chunks[first:last]:
                _mix(point, residual, self._both[:kept], mixture, out, chunk.start, chunk.stop)

        in_shards(mix, self._bounds)
        return out

    def _note(self, point: Float64, residual: Float64, slot: int, kept: int) -> Float64:
        parts = np.zeros((len(self._chunks), 2, kept))
        given = point, residual, *self._old, self._both, self._changes, slot, kept

        def note(first: int, last: int) -> None:
            for at in range(first, last):
                _note(*given, parts[at], self._chunks[at].start, self._chunks[at].stop)

        in_shards(note, self._bounds)
        products: Float64 = parts.sum(axis=0)
        return products

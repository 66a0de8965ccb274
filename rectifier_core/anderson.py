"""Anderson mixing of type II with restart, for fixed points over all items; a leaf.

Source: Walker and Ni, SIAM J. Numer. Anal. 49 (2011). The differences are kept in float32, four bytes an item each: they shrink with the
residual, and their rounding with them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from rectifier_core.records import Float64
from rectifier_core.shards import even_bounds, in_shards, kernel, num_shards, read_only

CHUNK = 1 << 14
"""Inner products are summed in chunks of this length, and those in order: the same bits whatever the threads."""

_VECTOR, _ROWS, _OUT = read_only(numba.float64, 1), numba.float32[:, ::1], numba.float64[::1]
_RANGE = (numba.intp,) * 2


@kernel(numba.void(_VECTOR, _VECTOR, _OUT, _OUT, _ROWS, _ROWS, numba.intp, *_RANGE))
def _note(
    point: Any, residual: Any, last_point: Any, last_residual: Any, both: Any, changes: Any, slot: Any, first: Any, last: Any
) -> None:
    """Keep how the residual changed, and how point and residual together did; then make this the last one."""
    for at in range(first, last):
        change = residual[at] - last_residual[at]
        changes[slot, at] = change
        both[slot, at] = (point[at] - last_point[at]) + change
        last_point[at], last_residual[at] = point[at], residual[at]


@kernel(numba.void(numba.types.Array(numba.float32, 2, "C", readonly=True), _VECTOR, numba.float64[:, ::1], *_RANGE))
def _products(changes: Any, residual: Any, out: Any, first: Any, last: Any) -> None:
    """Inner products of the changes with each other, and in the last column with the residual, of items from ``first`` to ``last``."""
    for one in range(changes.shape[0]):
        for other in range(one + 1):
            a = b = c = d = 0.0
            for at in range(first, last - 3, 4):
                a += np.float64(changes[one, at]) * changes[other, at]
                b += np.float64(changes[one, at + 1]) * changes[other, at + 1]
                c += np.float64(changes[one, at + 2]) * changes[other, at + 2]
                d += np.float64(changes[one, at + 3]) * changes[other, at + 3]
            for at in range(last - (last - first) % 4, last):
                a += np.float64(changes[one, at]) * changes[other, at]
            out[one, other] = out[other, one] = (a + b) + (c + d)
        total = 0.0
        for at in range(first, last):
            total += changes[one, at] * residual[at]
        out[one, -1] = total


@kernel(numba.void(_VECTOR, _VECTOR, numba.types.Array(numba.float32, 2, "C", readonly=True), _VECTOR, _OUT, *_RANGE))
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
        self._point, self._residual = np.zeros(size), np.zeros(size)
        self._bounds = even_bounds(size, num_shards(size * 8 * memory))
        self.forget()

    def forget(self) -> None:
        """Begin anew: the next step is a plain one."""
        self._seen = 0

    def next(self, point: Float64, residual: Float64) -> Float64:
        """Where to go from ``point`` [I] float64, whose plain step would be ``residual``."""
        kept = min(self._seen, len(self._both))
        slot, self._seen = (self._seen - 1) % len(self._both), self._seen + 1
        noted = point, residual, self._point, self._residual, self._both, self._changes
        in_shards(lambda first, last: _note(*noted, slot, first, last), self._bounds)
        if not kept:
            return point + residual
        mixture = self._mixture(self._changes[:kept], residual)
        out = np.empty_like(point)
        in_shards(lambda first, last: _mix(point, residual, self._both[:kept], mixture, out, first, last), self._bounds)
        return out

    @staticmethod
    def _mixture(changes: Any, residual: Float64) -> Float64:
        kept, size = changes.shape
        chunks = [(first, min(first + CHUNK, size)) for first in range(0, size, CHUNK)]
        parts = np.zeros((len(chunks), kept, kept + 1))

        def add(first: int, last: int) -> None:
            for at in range(first, last):
                _products(changes, residual, parts[at], *chunks[at])

        in_shards(add, even_bounds(len(chunks), num_shards(size * kept * kept)))
        total = parts.sum(axis=0)
        gram = total[:, :-1]
        gram[np.diag_indices(kept)] += 1e-10 * max(float(np.trace(gram)), np.finfo(np.float64).tiny)
        mixture: Float64 = np.linalg.solve(gram, total[:, -1])
        return mixture

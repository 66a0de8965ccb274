"""Anderson mixing, which speeds up a fixed-point iteration.

Source: Walker and Ni, SIAM J. Numer. Anal. 49 (2011), type II.
"""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Float64


class Anderson:
    """Combines the last ``memory`` changes of an iterate so that the linearised residual is smallest."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self.restart()

    def restart(self) -> None:
        """Forget earlier iterates, so that the next step is a plain one."""
        self._last: tuple[Float64, Float64] | None = None
        self._count = 0

    def next_point(self, point: Float64, residual: Float64) -> Float64:
        """Return the next iterate after ``point`` [N], whose plain step is ``residual`` [N]."""
        if self._last is None:
            self._moves, self._changes = np.zeros((2, self._memory, len(point)))
        else:
            slot = self._count % self._memory
            self._changes[slot] = residual - self._last[1]
            self._moves[slot] = point - self._last[0] + self._changes[slot]
            self._count += 1
        self._last = point, residual
        kept = min(self._count, self._memory)
        if not kept:
            return point + residual
        changes, moves = self._changes[:kept], self._moves[:kept]
        gram = changes @ changes.T
        # A small ridge: late in the iteration the changes are almost linearly dependent.
        gram[np.diag_indices(kept)] += 1e-10 * max(float(np.trace(gram)), np.finfo(np.float64).tiny)
        mixture = np.linalg.solve(gram, changes @ residual)
        return point + residual - mixture @ moves

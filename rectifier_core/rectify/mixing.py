"""Mix rows with their expected features. The work of one row depends on no other row, so neither blocks nor threads change a bit."""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Float64
from rectifier_core.base.numerics import row_dots


def mix_rows(own: Float32, expected: Float32, mean: Float32, share: Float32) -> tuple[Float32, Bool]:
    """Return the unit rows ``mean + t * (share * (own - mean) + (1 - share) * expected)`` [N, D], and which of them [N] differ from ``mean``.

    ``expected`` [N, D] is the difference from ``mean`` [D], and ``share`` [N] lies in [0, 1]. t makes the row a unit row.
    """
    difference = share[:, None] * (own - mean) + (1 - share[:, None]) * expected
    stretch = _stretch(difference, mean)
    return mean + stretch[:, None].astype(np.float32) * difference, stretch > 0


def _stretch(difference: Float32, mean: Float32) -> Float64:
    """Return the t for which ``mean + t * difference`` is a unit row, 0 where there is no difference.

    Scaling the whole row instead would turn a short difference towards the mean.
    """
    square, across = row_dots(difference, difference), row_dots(difference, np.broadcast_to(mean, difference.shape))
    root = np.sqrt(across**2 + square * np.maximum(0, 1 - row_dots(mean[None], mean[None])))
    return np.where(square > 0, (root - across) / np.where(square > 0, square, 1), 0)

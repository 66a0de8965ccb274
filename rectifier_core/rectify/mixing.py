"""Mix rows with their expected features, and restore their lengths.

The work of one row depends on no other row of its block, so neither blocks nor threads change a bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Float32, Float64
from rectifier_core.base.numerics import row_dots
from rectifier_core.base.published_records import Status

LEAST_MOVED = 0.001
"""A row that would move by less (1 - cosine) is left as it is."""


def mix_rows(
    rows: Float32,
    code: NDArray[np.int8],
    moved: Float32,
    *,
    keep: Float32,
    expected: Float32,
    predicted: Bool,
    mean: Float32,
    donated_length: Float32,
    adaptive: bool,
) -> None:
    """Rectify ``rows`` [N, D] float32 in place, and set ``moved`` [N] to 1 - cosine between a row before and after.

    - ``code`` RECTIFIED: ``mean + t * (keep * (own - mean) + (1 - keep) * expected)``, own as a unit row and t such that the row has its
      length again. Without ``adaptive`` own has its length. A row that moves by less than ``LEAST_MOVED``, or that nothing predicts, stays
      and gets the code PASSED_THROUGH.
    - ``code`` IMPUTED: ``mean + t * expected`` at ``donated_length`` [N], the mean length of the donors.

    ``expected`` [N, D] is the difference from ``mean`` [D], and ``predicted`` [N] marks the rows that anything predicts.
    """
    to_rectify = code == Status.RECTIFIED.code
    lengths = np.sqrt(row_dots(rows, rows))
    scale = np.where(lengths > 0, 1 / np.where(lengths > 0, lengths, 1), 1).astype(np.float32) if adaptive else 1
    share = np.where(to_rectify, keep, np.float32(0))[:, None]
    mixed = share * (np.reshape(scale, (-1, 1)) * rows - mean) + (1 - share) * expected
    stretch = _stretch(mixed, mean)
    mixed = mean + stretch[:, None].astype(np.float32) * mixed
    changes = (stretch > 0) & (lengths > 0)
    far = np.where(changes, np.maximum(0, 1 - row_dots(mixed, rows) / np.where(changes, lengths, 1)), 0)
    stays = to_rectify & ((far < LEAST_MOVED) | (stretch == 0) | ~predicted)
    code[stays] = Status.PASSED_THROUGH.code
    wanted = np.where(to_rectify, lengths, donated_length).astype(np.float32)
    rows[~stays] = (wanted[:, None] * mixed)[~stays]
    moved[~stays] = far[~stays]


def _stretch(differences: Float32, mean: Float32) -> Float64:
    """Return the t for which ``mean + t * difference`` is a unit row, 0 where there is no difference.

    Scaling the whole row instead would turn a short difference towards the mean.
    """
    means = np.broadcast_to(mean, differences.shape)
    square, across = row_dots(differences, differences), row_dots(differences, means)
    root = np.sqrt(across**2 + square * np.maximum(0, 1 - row_dots(means, means)))
    return np.where(square > 0, (root - across) / np.where(square > 0, square, 1), 0)

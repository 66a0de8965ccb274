"""Small array functions that several stages share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from rectifier_core.base.arrays import Float32, Float64

Progress = Callable[[str, int, int], None]
"""Long loops call ``progress(what, done, total)``. The core prints nothing."""


def silent(what: str, done: int, total: int) -> None:
    """Report no progress."""


def row_blocks(num_rows: int, block_rows: int) -> Iterator[slice]:
    """Slices that cover ``range(num_rows)`` in order, each at most ``block_rows`` long."""
    for start in range(0, num_rows, block_rows):
        yield slice(start, min(start + block_rows, num_rows))


def row_lengths(matrix: Float32) -> Float32:
    """Return the length of every row: [N, D] float32, which may be a memory map -> [N] float32."""
    lengths: Float32 = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    return lengths


def unit_rows(matrix: Float32) -> Float32:
    """Rows scaled to length 1; a zero row stays zero. [N, D] float32 -> the same shape and dtype."""
    lengths = row_lengths(matrix)
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    scaled: Float32 = matrix * inverse[:, None]
    return scaled


def row_dots(one: Float32 | Float64, other: Float32 | Float64) -> Float64:
    """Return the inner product of every two rows, [N, D] twice -> [N] float64. There no square of a finite float32 overflows."""
    dots: Float64 = np.einsum("ij,ij->i", one.astype(np.float64, copy=False), other.astype(np.float64, copy=False))
    return dots


def separation(positive: Float32 | Float64, negative: Float32 | Float64) -> float:
    """AUC: the chance that a draw of ``positive`` exceeds one of ``negative``, where a tie counts one half. NaN if either is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))


def logit(probability: Float32 | Float64 | float) -> Float64:
    """Log odds, with probabilities held within 1e-6 of 0 and 1."""
    held = np.clip(np.asarray(probability, dtype=np.float64), 1e-6, 1 - 1e-6)
    odds: Float64 = np.log(held) - np.log1p(-held)
    return odds

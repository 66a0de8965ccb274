"""A 64-bit digest of every row of a matrix, by which two nights tell whether a row is the same; a leaf.

Source: multiply and xor-shift rounds as in splitmix64 (Steele, Lea, Flood, OOPSLA 2014), chained over a row's words; not cryptographic.
Two rows that differ have one digest with a chance of about 2^-64.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from rectifier_core.records import Float32
from rectifier_core.shards import even_bounds, in_shards, kernel, num_shards, read_only

UInt64 = NDArray[np.uint64]


@kernel(numba.void(read_only(numba.uint32, 2), numba.uint64[::1], numba.intp, numba.intp))
def _digest(words: Any, digests: Any, first: Any, last: Any) -> None:
    for row in range(first, last):
        state = np.uint64(0x9E3779B97F4A7C15)
        for word in words[row]:
            state = (state ^ np.uint64(word)) * np.uint64(0xBF58476D1CE4E5B9)
            state ^= state >> np.uint64(29)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        digests[row] = state ^ (state >> np.uint64(31))


def row_digests(rows: Float32) -> UInt64:
    """The digest of every row, by its bits: [N, D] float32 -> [N] uint64; a whole row of zeros has that of zeros."""
    words, digests = np.ascontiguousarray(rows).view(np.uint32), np.empty(len(rows), np.uint64)
    bounds = even_bounds(len(rows), num_shards(words.size))
    in_shards(lambda first, last: _digest(words, digests, first, last), bounds)
    return digests

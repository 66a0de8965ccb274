"""A 64-bit digest of every row of a matrix. An incremental run compares digests to find the changed rows.

Source: multiply and xor-shift rounds as in splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA
2014). Differs from the paper: the rounds are chained over a row's words. The digest is not cryptographic. Two different rows have the same
digest with a chance of about 2^-64.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from rectifier_core.base.arrays import Float32, UInt64
from rectifier_core.base.threads import even_bounds, in_shards, kernel, num_shards, read_only

START, END = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x94D049BB133111EB)
ROUND = np.uint64(0xBF58476D1CE4E5B9)
TOGETHER = 4
"""Rows digested side by side. Each step of a row waits for its previous step, so one row alone leaves the CPU idle."""


@kernel(numba.void(read_only(numba.uint32, 2), numba.uint64[::1], numba.intp, numba.intp))
def _digest(words: Any, digests: Any, first: Any, last: Any) -> None:
    state = np.empty(TOGETHER, np.uint64)
    for start in range(first, last, TOGETHER):
        count = min(TOGETHER, last - start)
        state[:] = START
        if count == TOGETHER:
            one, two, three, four = START, START, START, START
            for at in range(words.shape[1]):
                one = (one ^ np.uint64(words[start, at])) * ROUND
                two = (two ^ np.uint64(words[start + 1, at])) * ROUND
                three = (three ^ np.uint64(words[start + 2, at])) * ROUND
                four = (four ^ np.uint64(words[start + 3, at])) * ROUND
                one ^= one >> np.uint64(29)
                two ^= two >> np.uint64(29)
                three ^= three >> np.uint64(29)
                four ^= four >> np.uint64(29)
            state[0], state[1], state[2], state[3] = one, two, three, four
        else:
            for row in range(count):
                for word in words[start + row]:
                    state[row] = (state[row] ^ np.uint64(word)) * ROUND
                    state[row] ^= state[row] >> np.uint64(29)
        for row in range(count):
            mixed = (state[row] ^ (state[row] >> np.uint64(27))) * END
            digests[start + row] = mixed ^ (mixed >> np.uint64(31))


def row_digests(rows: Float32) -> UInt64:
    """The digest of every row, by its bits: [N, D] float32 -> [N] uint64."""
    words, digests = np.ascontiguousarray(rows).view(np.uint32), np.empty(len(rows), np.uint64)
    bounds = even_bounds(len(rows), num_shards(words.size))
    in_shards(lambda first, last: _digest(words, digests, first, last), bounds)
    return digests

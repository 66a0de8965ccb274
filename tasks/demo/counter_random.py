"""Random numbers as pure functions of (key, counter), for data that is made block by block in any order.

A draw is splitmix64's finaliser over a Weyl sequence, so element ``counter`` of a stream costs the same wherever it is asked for and never
depends on what was drawn before. Everything but the logarithm in ``gumbel`` is exact arithmetic, the same bits on every machine.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32, Float64, Int64
from rectifier_core.base.seeding import derive_seed

UInt64 = NDArray[np.uint64]

_WEYL = 0x9E3779B97F4A7C15
_LANES = np.uint64(0x0000FFFF0000FFFF)
_LANE_SUM_MEAN = 2 * 65535
_LANE_SUM_DEVIATION = (4 * (65536**2 - 1) / 12) ** 0.5
_GRID = 256.0


def stream(seed: int, *names: str | int) -> int:
    """The 64-bit key of the demo's stream called ``names``."""
    return derive_seed(seed, "demo", *names)


def weyl(key: int, counters: Int64 | UInt64) -> UInt64:
    """The evenly spread sequence under a stream: consecutive counters fill [0, 2^64) with no clumps. uint64, the shape of ``counters``."""
    return counters.astype(np.uint64) * np.uint64(_WEYL) + np.uint64(key)


def bits(key: int, counters: Int64 | UInt64) -> UInt64:
    """64 random bits a counter."""
    return scramble(weyl(key, counters))


def scramble(values: UInt64) -> UInt64:
    """Splitmix64's finaliser, in place: a bijection whose every output bit depends on every input bit."""
    shifted = values >> np.uint64(30)
    values ^= shifted
    values *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(values, np.uint64(27), out=shifted)
    values ^= shifted
    values *= np.uint64(0x94D049BB133111EB)
    np.right_shift(values, np.uint64(31), out=shifted)
    values ^= shifted
    return values


def unit_interval(values: UInt64) -> Float64:
    """Random bits as float64 in (0, 1), never either end."""
    return ((values >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def uniforms(key: int, counters: Int64 | UInt64) -> Float64:
    """Float64 in (0, 1), one a counter."""
    return unit_interval(bits(key, counters))


def normals(key: int, rows: Int64, width: int) -> Float32:
    """Near-normal draws, mean 0, variance 1. ``rows`` [N] int64 -> [N, width] float32; row ``r`` is the same in any block.

    A draw is the sum of four 16-bit uniforms (so it stays within 3.5 deviations), which needs no transcendental function.
    """
    counters = rows[:, None] * width + np.arange(width)
    lanes = bits(key, counters)
    high = (lanes >> np.uint64(16)) & _LANES
    lanes &= _LANES
    lanes += high
    np.right_shift(lanes, np.uint64(32), out=high)
    lanes += high
    total = lanes.astype(np.uint32).astype(np.int32) & 0x3FFFF
    return (total - _LANE_SUM_MEAN).astype(np.float32) * np.float32(1 / _LANE_SUM_DEVIATION)


def gumbel(key: int, counters: Int64) -> Float32:
    """Standard Gumbel draws: adding them to scores and taking the largest samples the scores' softmax."""
    return (-np.log(-np.log(uniforms(key, counters)))).astype(np.float32)


def on_grid(values: Float32) -> Float32:
    """Values rounded to multiples of 1/256.

    Sums of products of two such numbers are exact in float32 while they stay below 256, so a matrix product over them gives the same bits
    whatever the BLAS, the thread count or the block it is computed in. That is what lets one item's vector be made alone.
    """
    rounded: Float32 = np.rint(values * np.float32(_GRID)) * np.float32(1 / _GRID)
    return rounded


def permuted(key: int, size: int, indices: Int64) -> Int64:
    """Where a random permutation of ``range(size)`` sends ``indices``, without holding the permutation.

    A four-round Feistel network on the smallest square grid that holds ``size``; what lands outside walks on until it is inside.
    """
    side = isqrt(size - 1) + 1
    result = indices.copy()
    outside = np.arange(len(indices))
    while len(outside):
        left, right = np.divmod(result[outside], side)
        for turn in range(4):
            noise = (bits(key, right * 4 + turn) >> np.uint64(33)).astype(np.int64)
            left, right = right, (left + noise) % side
        result[outside] = left * side + right
        outside = outside[result[outside] >= size]
    return result


def shuffled(key: int, size: int) -> Int64:
    """A random order of ``range(size)``, held whole. [size] int64."""
    return permuted(key, size, np.arange(size))

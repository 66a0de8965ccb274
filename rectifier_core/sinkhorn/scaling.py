"""The work of balancing on one block, and how blocks are worked on; a leaf. What another machine would do is all here.

Every function takes a block and vectors over all items, float64 [I] or for sums float32, and gives a float64 vector over its lines. With
the block's arrays as files, that is all that has to travel: vectors out, lines back. ``in_order`` does it in this process; any ``Run`` may
stand in its place, so long as it calls the same functions on every block once and returns what they gave.

The matrix is exp(logits + potential[column] - top[row]), the row's largest entry being 1: Schmitzer, SIAM J. Sci. Comput. 41 (2019),
section 3. It is kept as float32 ``kernel``, made anew (``make_*``) whenever the potential has moved far; between that, sums are plain
products with the exponential of how far it moved (``kernel_sums``). A column may be small in all its rows, so its kernel is scaled up by a
power of two, which changes no digit: rows and columns see the same matrix. ``make_*`` and ``weigh_rows`` write the kernel in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from rectifier_core.base.arrays import Float32, Float64
from rectifier_core.base.threads import in_shards, kernel, read_only
from rectifier_core.sinkhorn.sparse_graph import Block

Work = Callable[..., Float64]
Run = Callable[[Work, Sequence[Block], tuple[Float32 | Float64, ...]], Float64]
"""``run(work, blocks, vectors)`` is ``np.concatenate([work(block, *vectors) for block in blocks])``, wherever that is done."""

REACH = 30.0
"""How far the potential may move from the last reference. Below e^-87 a float32 is lost, so what was lost stays below e^-27 of any sum."""

_LINES, _ENDS, _FLOATS, _VECTOR = (
    read_only(numba.int64, 1),
    read_only(numba.int32, 1),
    read_only(numba.float32, 1),
    read_only(numba.float64, 1),
)
_RANGE, _OUT, _KERNEL = (numba.intp,) * 2, numba.float64[::1], numba.float32[::1]
_LN2, _LEAST = math.log(2), -650.0


def in_order(work: Work, blocks: Sequence[Block], vectors: tuple[Float32 | Float64, ...]) -> Float64:
    """Every block in this process, as many at a time as there are threads."""
    out = np.empty(blocks[-1].last if blocks else 0)

    def some(first: int, last: int) -> None:
        for block in blocks[first:last]:
            out[block.first : block.last] = work(block, *vectors)
            block.side.let_go()

    in_shards(some, list(range(len(blocks) + 1)))
    return out


@kernel(*(numba.void(_LINES, _ENDS, _FLOATS, vector, _OUT, *_RANGE) for vector in (_FLOATS, _VECTOR)))
def _sums(indptr: Any, indices: Any, values: Any, vector: Any, out: Any, first: Any, last: Any) -> None:
    # Unsigned, or every gather tests for an index from the end. Unrolling and prefetching bring nothing: gathers are what it waits for.
    for line in range(first, last):
        entry, stop, total = np.uint64(indptr[line]), np.uint64(indptr[line + 1]), 0.0
        while entry < stop:
            total += values[entry] * vector[np.uint64(indices[entry])]
            entry += np.uint64(1)
        out[line - first] = total


@kernel(numba.void(_LINES, _ENDS, _FLOATS, _KERNEL, _VECTOR, _OUT, _OUT, *_RANGE))
def _make_rows(
    indptr: Any, indices: Any, logits: Any, values: Any, potential: Any, top: Any, spare: Any, first: Any, last: Any
) -> None:
    for line in range(first, last):
        begin, count = indptr[line], indptr[line + 1] - indptr[line]
        highest = -np.inf
        for at in range(count):
            spare[at] = logits[begin + at] + potential[np.uint64(indices[begin + at])]
            highest = max(highest, spare[at])
        for at in range(count):
            values[begin + at] = math.exp(spare[at] - highest)
        top[line - first] = highest if count else 0.0


@kernel(numba.void(_LINES, _ENDS, _FLOATS, _KERNEL, _VECTOR, _VECTOR, _OUT, _OUT, *_RANGE))
def _make_columns(
    indptr: Any,
    indices: Any,
    logits: Any,
    values: Any,
    potential: Any,
    top: Any,
    scale: Any,
    spare: Any,
    first: Any,
    last: Any,
) -> None:
    for line in range(first, last):
        begin, count, own = indptr[line], indptr[line + 1] - indptr[line], potential[line]
        highest = -np.inf
        for at in range(count):
            spare[at] = (logits[begin + at] + own) - top[np.uint64(indices[begin + at])]
            highest = max(highest, spare[at])
        power = math.floor(highest / _LN2) if count else 0.0
        # Where even a float64 would vanish no row can see the entry, and the exponent is shifted instead.
        vanishing = highest < _LEAST
        factor, shift = (1.0, power * _LN2) if vanishing else (2.0 ** (-power), 0.0)
        for at in range(count):
            values[begin + at] = math.exp(spare[at] - shift) * factor
        scale[line - first] = power * _LN2


@kernel(numba.void(_LINES, _ENDS, _KERNEL, _VECTOR, _VECTOR, _OUT, *_RANGE))
def _weigh(indptr: Any, indices: Any, values: Any, scaled: Any, inverse: Any, own: Any, first: Any, last: Any) -> None:
    for line in range(first, last):
        own[line - first] = np.nan
        for entry in range(indptr[line], indptr[line + 1]):
            values[entry] *= scaled[np.uint64(indices[entry])] * inverse[line]
            if indices[entry] == line:
                own[line - first] = values[entry]


@kernel(numba.void(_LINES, _ENDS, _VECTOR, _OUT, *_RANGE))
def _lowest(indptr: Any, indices: Any, vector: Any, out: Any, first: Any, last: Any) -> None:
    for line in range(first, last):
        least = np.inf
        for entry in range(indptr[line], indptr[line + 1]):
            least = min(least, vector[np.uint64(indices[entry])])
        out[line - first] = least


def _lines(block: Block) -> Float64:
    return np.empty(block.last - block.first)


def _longest(block: Block) -> Float64:
    return np.empty(int(np.diff(block.side.indptr[block.first : block.last + 1]).max()))


def make_rows(block: Block, potential: Float64) -> Float64:
    """Make the rows' kernel for the log column scaling ``potential``; each row's largest exponent, ``top`` (0 where it is empty)."""
    side, top = block.side, _lines(block)
    _make_rows(
        side.indptr, side.indices, side.logits, side.kernel, potential, top, _longest(block), block.first, block.last
    )
    return top


def make_columns(block: Block, potential: Float64, top: Float64) -> Float64:
    """Make the columns' kernel for the same potential; the logarithm of what each column's kernel is to be multiplied with."""
    side, scale = block.side, _lines(block)
    _make_columns(
        side.indptr,
        side.indices,
        side.logits,
        side.kernel,
        potential,
        top,
        scale,
        _longest(block),
        block.first,
        block.last,
    )
    return scale


def kernel_sums(block: Block, vector: Float32 | Float64) -> Float64:
    """Each line's kernel times ``vector``, of rows and of columns alike: products in the vector's type, their sum in float64."""
    side, sums = block.side, _lines(block)
    _sums(side.indptr, side.indices, side.kernel, vector, sums, block.first, block.last)
    return sums


def weigh_rows(block: Block, scaled: Float64, inverse: Float64) -> Float64:
    """Turn the rows' kernel into the plan's weights; what each row keeps of its own feature, NaN where that is not in it."""
    side, own = block.side, _lines(block)
    _weigh(side.indptr, side.indices, side.kernel, scaled, inverse, own, block.first, block.last)
    return own


def lowest_of_rows(block: Block, vector: Float64) -> Float64:
    """The least of ``vector`` over each row's columns, infinite where there are none."""
    side, least = block.side, _lines(block)
    _lowest(side.indptr, side.indices, vector, least, block.first, block.last)
    return least

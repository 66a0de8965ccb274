"""The support of a plan in both orders, row by row and column by column, in arrays that may be memory maps; a leaf.

A row's sum reads the rows in order, a column's sum the columns, each from its own copy: both are made within one line, in one order, so
that neither blocks nor threads nor workers can be seen in a bit, and every entry is read once a sum, in one stream. The copy by columns is
a shuffle in two passes, a radix sort by columns: entries go to buckets of columns, then each bucket is put in order, so that no more than
a block of rows and a bucket are held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64, let_go
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.records import Affinity
from rectifier_core.base.threads import balanced_bounds, in_shards, kernel, num_shards, read_only

Allocate = Callable[[str, tuple[int, ...], DTypeLike], NDArray[Any]]
"""``allocate(name, shape, dtype)`` gives a writable C-contiguous array. One with a method ``let_go()``, as a memory map that would keep its
pages, is told when a block of it is done with."""

ENTRY = 24
"""Bytes that an entry takes: index, logit and kernel, in both orders."""
IN_WORK = 40
"""Bytes an entry of a block in work takes at most, what is read and what is made of it."""
BUCKETS = 256
"""Buckets at least, where entries are many: what they write to stays in the cache."""
SHUFFLED, MOST_CHUNKS = 1 << 16, 64
"""Entries dealt to buckets at a time, at least, and into how many chunks all are cut at most, where memory allows."""
PER_ENTRY: dict[str, DTypeLike] = {"indices": np.int32, "logits": np.float32, "kernel": np.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One order: line i (a row, or a column) holds the entries ``indptr[i]`` to ``indptr[i + 1]``.

    ``indptr`` [I + 1] int64; per entry ``indices`` int32, the other end, ``logits`` float32, and ``kernel`` float32, the exponentials at
    the last reference (``scaling.py``).
    """

    indptr: Int64
    indices: Int32
    logits: Float32
    kernel: Float32

    def let_go(self) -> None:
        """Let the pages go that memory maps hold."""
        for array in (self.indices, self.logits, self.kernel):
            let_go(array)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Lines ``first`` to ``last`` of one side."""

    side: Side
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Both sides over ``num_items`` items, and the blocks that work is done in, each in order."""

    rows: Side
    columns: Side
    row_blocks: Sequence[Block]
    column_blocks: Sequence[Block]

    @property
    def num_items(self) -> int:
        """How many rows there are, and columns."""
        return len(self.rows.indptr) - 1

    @property
    def num_entries(self) -> int:
        """How many entries are stored."""
        return int(self.rows.indptr[-1])

    @property
    def asking(self) -> Bool:
        """Which rows hold anything: [I] bool."""
        held: Bool = np.diff(self.rows.indptr) > 0
        return held

    @property
    def reached(self) -> Bool:
        """Which columns hold anything: [I] bool."""
        held: Bool = np.diff(self.columns.indptr) > 0
        return held


def in_memory(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """The allocation that needs no place: plain arrays."""
    return np.empty(shape, dtype)


_LINES, _ENDS, _LOGITS = read_only(numba.int64, 1), read_only(numba.int32, 1), read_only(numba.float32, 1)
_OUT32, _OUT64, _OUTF = numba.int32[::1], numba.int64[::1], numba.float32[::1]


@kernel(numba.void(read_only(numba.int32, 2), read_only(numba.float32, 2), _OUT64, _OUT64, numba.intp))
def _count(neighbours: Any, scores: Any, held: Any, buckets: Any, shift: Any) -> None:
    """Entries of each row, and of each bucket. A score that is not finite has no weight: it is off the support."""
    for row in range(neighbours.shape[0]):
        count = 0
        for place in range(neighbours.shape[1]):
            score = scores[row, place]
            if neighbours[row, place] >= 0 and score - score == 0:
                count += 1
                buckets[neighbours[row, place] >> shift] += 1
        held[row] = count


@kernel(
    numba.void(
        read_only(numba.int32, 2),
        read_only(numba.float32, 2),
        numba.intp,
        _OUT32,
        _OUTF,
        _OUT64,
        _OUT32,
        _OUT32,
        _OUTF,
        numba.intp,
    )
)
def _deal(
    neighbours: Any,
    scores: Any,
    row: Any,
    indices: Any,
    logits: Any,
    at: Any,
    ends: Any,
    rows: Any,
    by_column: Any,
    shift: Any,
) -> None:
    """Write the entries of the rows from ``row`` on: in order to ``indices`` and ``logits``, and to the place ``at`` of their bucket."""
    entry = 0
    for line in range(neighbours.shape[0]):
        for place in range(neighbours.shape[1]):
            column, score = neighbours[line, place], scores[line, place]
            if column >= 0 and score - score == 0:
                indices[entry], logits[entry] = column, score
                entry += 1
                to = np.uint64(at[column >> shift])
                ends[to], rows[to], by_column[to] = column, row + line, score
                at[column >> shift] += 1


@kernel(numba.void(_OUT32, _OUT32, _OUTF, _OUT64, numba.intp, _OUT32, _OUTF))
def _sort_bucket(ends: Any, rows: Any, logits: Any, counts: Any, first: Any, spare: Any, spare_logits: Any) -> None:
    """Put a bucket, columns from ``first`` on, in order of columns, rows within them as they came; ``counts`` come as zeros."""
    for entry in range(len(ends)):
        counts[ends[entry] - first] += 1
    start = 0
    for column in range(len(counts)):
        count = counts[column]
        counts[column] = start
        start += count
    for entry in range(len(ends)):
        to = np.uint64(counts[ends[entry] - first])
        spare[to], spare_logits[to] = rows[entry], logits[entry]
        counts[ends[entry] - first] += 1
    rows[:], logits[:] = spare, spare_logits


def build_support(affinity: Affinity, *, memory: int | None = None, allocate: Allocate = in_memory) -> Support:
    """Both orders of an affinity [I, K], whose arrays may be memory maps.

    The arrays lie where ``allocate`` says, under the names ``rows-kernel``, ``columns-indices`` and so on. ``memory`` bounds, in bytes,
    what is in work at a time beside them; blocks are cut to it.
    """
    num_items, width = affinity.neighbours.shape
    size = num_items * width
    share = max(1, (size * ENTRY if memory is None else memory) // (IN_WORK * torch.get_num_threads()))
    chunks = list(row_blocks(num_items, max(1, min(share, max(SHUFFLED, size // MOST_CHUNKS)) // max(1, width))))
    shift = _bucket_shift(num_items, size, share)
    held, counts = _counted(affinity, chunks, shift)
    made = []
    for side in ("rows", "columns"):
        arrays = {name: allocate(f"{side}-{name}", (int(held.sum()),), kind) for name, kind in PER_ENTRY.items()}
        made.append(Side(indptr=np.zeros(num_items + 1, np.int64), **arrays))
    rows, columns = made
    np.cumsum(held, out=rows.indptr[1:])
    _fill(affinity, rows, columns, chunks, counts, shift)
    return Support(rows=rows, columns=columns, row_blocks=_blocks(rows, share), column_blocks=_blocks(columns, share))


def _bucket_shift(num_items: int, entries: int, share: int) -> int:
    """Buckets are runs of ``1 << shift`` columns: ``BUCKETS`` of them, more where memory asks for it."""
    buckets = max(1, min(BUCKETS, entries // SHUFFLED), -(-entries // share))
    return max(0, (max(1, num_items // buckets) - 1).bit_length())


def _counted(affinity: Affinity, chunks: list[slice], shift: int) -> tuple[Int64, Int64]:
    """How many entries each row holds [I], and each chunk of rows in each bucket."""
    num_items = len(affinity.neighbours)
    held, counts = np.zeros(num_items, np.int64), np.zeros((len(chunks), (num_items >> shift) + 1), np.int64)

    def count(first: int, last: int) -> None:
        for at in range(first, last):
            rows = chunks[at]
            _count(
                np.asarray(affinity.neighbours[rows]), np.asarray(affinity.scores[rows]), held[rows], counts[at], shift
            )

    in_shards(count, list(range(len(chunks) + 1)))
    return held, counts


def _fill(affinity: Affinity, rows: Side, columns: Side, chunks: list[slice], counts: Int64, shift: int) -> None:
    """Write the rows in order and the columns by buckets, then put these in order."""
    starts = np.concatenate([[0], np.cumsum(counts.sum(axis=0))]).astype(np.int64)
    places = starts[:-1] + np.cumsum(counts, axis=0) - counts
    indices, logits = np.asarray(rows.indices), np.asarray(rows.logits)
    # The kernel comes last of all, so its room holds each entry's column until the buckets are in order.
    ends, by_column = (
        np.asarray(columns.kernel).view(np.int32),
        (np.asarray(columns.indices), np.asarray(columns.logits)),
    )

    def deal(first: int, last: int) -> None:
        for at in range(first, last):
            part = chunks[at]
            mine = slice(int(rows.indptr[part.start]), int(rows.indptr[part.stop]))
            given = np.asarray(affinity.neighbours[part]), np.asarray(affinity.scores[part])
            _deal(*given, part.start, indices[mine], logits[mine], places[at], ends, *by_column, shift)
            rows.let_go()
            columns.let_go()

    in_shards(deal, list(range(len(chunks) + 1)))
    _sort(columns, ends, starts, shift)


def _sort(columns: Side, ends: Int32, starts: Int64, shift: int) -> None:
    indices, logits, num_items = np.asarray(columns.indices), np.asarray(columns.logits), len(columns.indptr) - 1

    def sort(first: int, last: int) -> None:
        for bucket in range(first, last):
            part, size = slice(int(starts[bucket]), int(starts[bucket + 1])), int(starts[bucket + 1] - starts[bucket])
            begin, stop = bucket << shift, min(bucket + 1 << shift, num_items)
            counts = np.zeros(max(0, stop - begin), np.int64)
            _sort_bucket(
                ends[part],
                indices[part],
                logits[part],
                counts,
                begin,
                np.empty(size, np.int32),
                np.empty(size, np.float32),
            )
            columns.indptr[begin + 1 : stop + 1] = starts[bucket] + counts
            columns.let_go()

    in_shards(sort, list(range(len(starts))))


def _blocks(side: Side, share: int) -> list[Block]:
    """Runs of lines with about as many entries each, at most ``share`` where no line has more."""
    entries = int(side.indptr[-1])
    parts = max(num_shards(entries), -(-entries // share))
    bounds = sorted(set(balanced_bounds(side.indptr, min(parts, max(1, len(side.indptr) - 1)))))
    return [Block(side=side, first=first, last=last) for first, last in pairwise(bounds)]

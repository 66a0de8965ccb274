"""The K largest inner products of many queries with many vectors: exact, the same bits however the work is cut.

Vectors are laid out in panels, coordinate by coordinate, as ``search_kernels`` wants them. Every score is summed in one order and ties go
to the lower item, so neither blocks nor threads can be seen in the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rectifier_core.affinity.search_kernels import FIXED_POINT, LANES, PANEL, STEP, Stored, scan
from rectifier_core.base.arrays import Float32, Int32, Int64, check_array
from rectifier_core.base.numerics import Progress, row_blocks, silent

Found = tuple[Int32, Float32]

BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Panels:
    """Vectors laid out for search, [C] columns of [P] coordinates, P a multiple of four.

    ``vectors`` [C * P] holds panel after panel, each with all first coordinates, then all second ones; float32, or int16 in units of
    1/32767 where memory asks for it (coordinates within [-1, 1]). ``items`` [C] int32 says which item a column holds, -1 for padding.
    ``offsets`` [L + 1] int64 are the columns, multiples of 16, at which each of L lists begins; no panel crosses a list's end.
    """

    vectors: Stored
    items: Int32
    offsets: Int64

    def __post_init__(self) -> None:
        check_array("items", self.items, (None,), np.int32)
        check_array("offsets", self.offsets, (None,), np.int64)
        check_array("vectors", self.vectors, (len(self.items) * self.width,), self.vectors.dtype)
        if self.vectors.dtype not in (np.float32, np.int16):
            raise ValueError(f"vectors: wanted dtype float32 or int16, got {self.vectors.dtype}")
        if not len(self.offsets) or int(self.offsets[-1]) != len(self.items) or np.any(self.offsets % LANES):
            raise ValueError(
                f"offsets: wanted multiples of {LANES} that end at {len(self.items)}, got {self.offsets[-1:]}"
            )

    @property
    def width(self) -> int:
        """Coordinates a column, padding included."""
        return len(self.vectors) // max(len(self.items), 1)


def lay_out(vectors: Float32, items: Int64, bounds: Int64, *, compact: bool = False) -> Panels:
    """Panels of ``vectors[items]``, list l being ``items[bounds[l]:bounds[l + 1]]``; int16 where ``compact``.

    ``vectors`` [N, D] float32, ``items`` int64 [n], ``bounds`` int64 [L + 1].
    """
    width = padded(vectors.shape[1])
    offsets = np.concatenate([[0], np.cumsum(-(-np.diff(bounds) // LANES) * LANES)]).astype(np.int64)
    columns = np.full(int(offsets[-1]), -1, np.int32)
    laid: Stored = np.zeros(len(columns) * width, np.int16) if compact else np.zeros(len(columns) * width, np.float32)
    for start, stop, first in zip(bounds[:-1], bounds[1:], offsets[:-1], strict=True):
        for part in row_blocks(int(stop - start), PANEL):
            held = items[start + part.start : start + part.stop]
            begin, room = int(first) + part.start, -(-len(held) // LANES) * LANES
            columns[begin : begin + len(held)] = held
            block = vectors[held].T
            panel = laid[begin * width : (begin + room) * width].reshape(width, room)
            panel[: len(block), : len(held)] = np.rint(block * np.float32(FIXED_POINT)) if compact else block
    return Panels(vectors=laid, items=columns, offsets=offsets)


def padded(width: int) -> int:
    """``width`` rounded up to whole steps of the inner loop."""
    return -(-width // STEP) * STEP


def padded_rows(rows: Float32, width: int) -> Float32:
    """Rows [B, D] with zero coordinates added up to ``width``, C-contiguous."""
    if rows.shape[1] == width:
        return np.ascontiguousarray(rows)
    wider = np.zeros((len(rows), width), np.float32)
    wider[:, : rows.shape[1]] = rows
    return wider


def largest_products(
    vectors: Float32,
    queries: Float32,
    count: int,
    *,
    threads: int = 1,
    block_rows: int = BLOCK_ROWS,
    progress: Progress = silent,
) -> Found:
    """The ``count`` rows of ``vectors`` [N, D] with the largest inner product with each of ``queries`` [B, D], by ``threads`` threads.

    Returns rows int32 [B, count] by descending product, ties by ascending row, and the products; -1 and -inf where N < count.
    """
    panels = lay_out(vectors, np.arange(len(vectors)), np.array([0, len(vectors)]))
    items, scores = np.empty((len(queries), count), np.int32), np.empty((len(queries), count), np.float32)

    def search(block: slice) -> None:
        items[block], scores[block] = search_all(panels, queries[block], count)

    for block in in_threads(search, list(row_blocks(len(queries), block_rows)), threads):
        progress("exact search", block.stop, len(queries))
    return items, scores


def in_threads(work: Callable[[slice], None], blocks: list[slice], threads: int) -> Iterator[slice]:
    """Do ``work`` on every block, ``threads`` at a time, and yield the blocks in order as they are done."""
    if threads == 1:
        for block in blocks:
            work(block)
            yield block
    else:
        with ThreadPoolExecutor(threads) as pool:
            for block, _ in zip(blocks, pool.map(work, blocks), strict=True):
                yield block


def search_all(panels: Panels, queries: Float32, count: int) -> Found:
    """The ``count`` best columns of all lists for each query [B, D]: items and products, as ``largest_products``."""
    found = no_candidates(len(queries), count)
    everyone, asked = np.arange(len(queries), dtype=np.int32), padded_rows(queries, panels.width)
    for start, stop in pairwise(panels.offsets.tolist()):
        scan(
            panels.vectors[start * panels.width : stop * panels.width],
            panels.items[start:stop],
            asked,
            everyone,
            *found,
        )
    return found


def no_candidates(rows: int, count: int) -> Found:
    """Empty places for the best ``count`` of ``rows`` queries."""
    return np.full((rows, count), -1, np.int32), np.full((rows, count), -np.inf, np.float32)

"""The compiled loops of ``top_k`` and ``inverted_lists``.

The inner one is a plain multiply-add over neighbouring numbers: four queries and four coordinates at a time, as much as registers hold, for
up to 256 vectors laid out coordinate by coordinate. It reaches the speed of a BLAS product whose result is never written to memory: a row
of scores lives in the first-level cache just long enough to be compared with the query's K-th best so far, and nearly all of it fails. BLAS
rounds differently at the edges of its blocks; here every score is summed in one order.

All compiled code is in this one file because numba, which keeps machine code beside the source, looks at that file alone to see whether
it is still good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32, Float64, Int32, Int64

Stored = NDArray[np.float32] | NDArray[np.int16]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])

PANEL = 256
LANES = 16
STEP = 4
QUERIES = 4
FIXED_POINT = 32767


def compiled(kernel: Kernel) -> Kernel:
    """Numba's compiler without the interpreter's lock; multiply and add may fuse, but sums keep their order."""
    try:
        made = numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy", cache=True)(kernel)
    except RuntimeError:
        # Neither the source's folder nor the user's own can be written: every process compiles for itself.
        made = numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")(kernel)
    return cast(Kernel, made)


@compiled
def products(panel: Float32, queries: Float32, rows: Int32, at: int, out: Float32) -> None:
    """``out[k, j]`` = the product of ``queries[rows[at + k]]`` with column j of ``panel`` [P, W]; beyond the last row, that of the last."""
    last = len(rows) - 1
    r0, r1, r2, r3 = rows[at], rows[min(at + 1, last)], rows[min(at + 2, last)], rows[min(at + 3, last)]
    # Said so, the compiler knows that nothing is left over after whole vectors.
    width = panel.shape[1] // LANES * LANES
    out[:, :width] = 0
    for d in range(0, len(panel), STEP):
        a0, a1, a2, a3 = queries[r0, d], queries[r0, d + 1], queries[r0, d + 2], queries[r0, d + 3]
        b0, b1, b2, b3 = queries[r1, d], queries[r1, d + 1], queries[r1, d + 2], queries[r1, d + 3]
        c0, c1, c2, c3 = queries[r2, d], queries[r2, d + 1], queries[r2, d + 2], queries[r2, d + 3]
        d0, d1, d2, d3 = queries[r3, d], queries[r3, d + 1], queries[r3, d + 2], queries[r3, d + 3]
        for j in range(width):
            x0, x1, x2, x3 = panel[d, j], panel[d + 1, j], panel[d + 2, j], panel[d + 3, j]
            out[0, j] = out[0, j] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
            out[1, j] = out[1, j] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
            out[2, j] = out[2, j] + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
            out[3, j] = out[3, j] + d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@compiled
def products_with(vectors: Float32, items: Int32, queries: Float32) -> Float32:
    """The products of each query [B, P] with ``vectors[items[b, w]]``, summed as in the search: [B, W], -inf where the item is -1."""
    out = np.empty(items.shape, np.float32)
    panel, buffer = np.zeros((queries.shape[1], PANEL), np.float32), np.empty((QUERIES, PANEL), np.float32)
    row = np.empty(1, np.int32)
    for row[0] in range(len(items)):
        for start in range(0, items.shape[1], PANEL):
            chosen = items[row[0], start : start + PANEL]
            room = (len(chosen) + LANES - 1) // LANES * LANES
            held = panel.reshape(-1)[: queries.shape[1] * room].reshape(queries.shape[1], room)
            held[:] = 0
            for j in range(len(chosen)):
                for d in range(vectors.shape[1] if chosen[j] >= 0 else 0):
                    held[d, j] = vectors[chosen[j], d]
            products(held, queries, row, 0, buffer)
            for j in range(len(chosen)):
                out[row[0], start + j] = buffer[0, j] if chosen[j] >= 0 else -np.float32(np.inf)
    return out


@compiled
def any_at_least(values: Float32, bound: float) -> bool:
    """Whether any of ``values`` reaches ``bound``, without a branch a value."""
    found = np.uint32(0)
    for j in range(len(values)):
        found |= np.uint32(values[j] >= bound)
    return bool(found)


@compiled
def keep_best(values: Float32, items: Int32, best_items: Int32, best_scores: Float32) -> None:
    """Put those of ``values`` that belong there among the best so far, which stay sorted by (descending score, ascending item)."""
    last = len(best_scores) - 1
    for start in range(0, len(values), 64):
        stop = min(start + 64, len(values))
        if not any_at_least(values[start:stop], best_scores[last]):
            continue
        for j in range(start, stop):
            value, item = values[j], items[j]
            if item < 0 or value < best_scores[last] or (value == best_scores[last] and item > best_items[last] >= 0):
                continue
            place = last
            while place > 0 and (
                value > best_scores[place - 1] or (value == best_scores[place - 1] and item < best_items[place - 1])
            ):
                best_scores[place], best_items[place] = best_scores[place - 1], best_items[place - 1]
                place -= 1
            best_scores[place], best_items[place] = value, item


@compiled
def order_rows(items: Int32, scores: Float32) -> None:
    """Sort each row [B, W] of both in place, by descending score, ties by ascending item; soon done where rows are nearly sorted."""
    for row in range(len(items)):
        for at in range(1, items.shape[1]):
            item, score, place = items[row, at], scores[row, at], at
            while place > 0 and (
                score > scores[row, place - 1] or (score == scores[row, place - 1] and item < items[row, place - 1])
            ):
                items[row, place], scores[row, place] = items[row, place - 1], scores[row, place - 1]
                place -= 1
            items[row, place], scores[row, place] = item, score


@compiled
def scan(vectors: Stored, items: Int32, queries: Float32, rows: Int32, best_items: Int32, best_scores: Float32) -> None:
    """Compare ``queries[rows]`` [., P] with all columns given, whole panels of them, and keep the best of each in its row."""
    width = queries.shape[1]
    buffer, opened = np.empty((QUERIES, PANEL), np.float32), np.empty(width * PANEL, np.float32)
    for start in range(0, len(items), PANEL):
        stop = min(start + PANEL, len(items))
        panel = opened[: (stop - start) * width].reshape(width, stop - start)
        open_panel(vectors[start * width : stop * width], panel.reshape(-1))
        for at in range(0, len(rows), QUERIES):
            products(panel, queries, rows, at, buffer)
            for k in range(min(QUERIES, len(rows) - at)):
                row = rows[at + k]
                keep_best(buffer[k, : stop - start], items[start:stop], best_items[row], best_scores[row])


@compiled
def open_panel(stored: Stored, panel: Float32) -> None:
    """Copy a panel as it is stored to float32."""
    unit = np.float32(1 / FIXED_POINT) if stored.itemsize == 2 else np.float32(1)
    for j in range(len(stored)):
        panel[j] = np.float32(stored[j]) * unit


@compiled
def add_rows(rows: Float32, lists: Int32, sums: Float64, held: Int64) -> None:
    """Add each row to the sum of its list, in order."""
    for i in range(len(rows)):
        held[lists[i]] += 1
        for d in range(rows.shape[1]):
            sums[lists[i], d] += rows[i, d]


@compiled
def search_lists(
    vectors: Stored,
    items: Int32,
    offsets: Int64,
    queries: Float32,
    starts: Int64,
    rows: Int32,
    best_items: Int32,
    best_scores: Float32,
) -> None:
    """Compare the queries ``rows[starts[l]:starts[l + 1]]`` with list l, for all l."""
    width = queries.shape[1]
    for at in range(len(offsets) - 1):
        begin, end = offsets[at], offsets[at + 1]
        if starts[at + 1] > starts[at]:
            asking = rows[starts[at] : starts[at + 1]]
            scan(vectors[begin * width : end * width], items[begin:end], queries, asking, best_items, best_scores)


@compiled
def search_rest(
    vectors: Stored,
    items: Int32,
    offsets: Int64,
    outline: Float32,
    queries: Float32,
    extended: Float32,
    bound: Float32,
    done: Int32,
    best_items: Int32,
    best_scores: Float32,
) -> None:
    """Compare each query with the lists whose outline attains its ``bound``, but for those it has ``done``: a panel of lists at a time."""
    width, outline_width, num_lists = queries.shape[1], extended.shape[1], len(offsets) - 1
    everyone = np.arange(len(queries)).astype(np.int32)
    buffer, rows = np.empty((QUERIES, PANEL), np.float32), np.empty((PANEL, len(queries)), np.int32)
    for start in range(0, num_lists, PANEL):
        stop = min(start + PANEL, len(outline) // outline_width)
        panel = outline[start * outline_width : stop * outline_width].reshape(outline_width, stop - start)
        asking = np.zeros(PANEL, np.int64)
        for at in range(0, len(queries), QUERIES):
            products(panel, extended, everyone, at, buffer)
            for row in range(at, min(at + QUERIES, len(queries))):
                select(
                    buffer[row - at, : min(PANEL, num_lists - start)], bound[row], row, start, done[row], rows, asking
                )
        for j in range(min(PANEL, num_lists - start)):
            if asking[j]:
                begin, end = offsets[start + j], offsets[start + j + 1]
                within = vectors[begin * width : end * width]
                scan(within, items[begin:end], queries, rows[j, : asking[j]], best_items, best_scores)


@compiled
def select(attained: Float32, bound: float, row: int, start: int, done: Int32, rows: Int32, asking: Int64) -> None:
    """Note ``row`` beside each list, from number ``start`` on, that attains the bound and is not done yet."""
    for begin in range(0, len(attained), 64):
        end = min(begin + 64, len(attained))
        if any_at_least(attained[begin:end], bound):
            for j in range(begin, end):
                if attained[j] >= bound and not (done == start + j).any():
                    rows[j, asking[j]] = row
                    asking[j] += 1

"""An index of unit rows in lists of alike ones, searched list by list: few lists a query, many queries a list.

Source: inverted files over k-means cells (Sivic and Zisserman, 2003; FAISS's IVF, Douze et al., 2024). What differs:

- The search goes list by list, for a block of queries at a time: each list is multiplied with all queries of the block that ask for it, at
  the speed of a matrix product. FAISS goes query by query, and reads each list anew for each.
- A query asks for the lists that can hold one of its best, not for a fixed number. The K-th best score of its nearest few lists is a bound;
  a list with mean m, whose rows lie ``radius`` from it in the root mean square, is asked where ``q @ m + reach * radius`` attains the
  bound. ``reach`` is tuned on a sample of queries to the recall wanted; the same recall takes about half the products.
- Every score is summed in one order (``top_k``), so neither the block size, nor the order of queries, nor threads change a bit.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from rectifier_core.affinity.search_kernels import Stored, add_rows, products_with, scan, search_lists, search_rest
from rectifier_core.affinity.top_k import (
    BLOCK_ROWS,
    Found,
    Panels,
    in_threads,
    lay_out,
    no_candidates,
    padded_rows,
    search_all,
)
from rectifier_core.base.arrays import Float32, Float64, Int32, Int64, check_array
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.base.seeding import generator

SAMPLE = 2000
ITERATIONS = 5
PER_LIST = 32
FIRST = 16
PIVOTS = 64
LEAST_RADIUS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertedLists:
    """Rows [N, D] by list, to be stored and memory-mapped as they are: ``vectors``, ``items``, ``offsets`` are those of ``top_k.Panels``.

    ``means`` [L, D] and ``radius`` [L] describe the lists; one list is exact search. ``recall`` is the share of the exact best that a
    sample of queries found with this ``reach``, 1 for one list.
    """

    means: Float32
    radius: Float32
    vectors: Stored
    items: Int32
    offsets: Int64
    reach: float
    recall: float

    def __post_init__(self) -> None:
        check_array("means", self.means, (len(self.offsets) - 1, None), np.float32)
        check_array("radius", self.radius, (len(self.means),), np.float32)

    @property
    def panels(self) -> Panels:
        """The rows as they are searched."""
        return Panels(vectors=self.vectors, items=self.items, offsets=self.offsets)

    @property
    def name(self) -> str:
        """What the index is, in a word or three."""
        return "flat" if len(self.means) == 1 else f"ivf{len(self.means)} reach {self.reach:.3f}"


def one_list(rows: Float32, items: Int64, *, compact: bool = False) -> InvertedLists:
    """Exact search of ``rows[items]``: ``rows`` [I, D] float32, ``items`` int64 [N]."""
    return _index(rows, items, np.zeros(len(items), np.int32), 1, compact)


def build_lists(
    rows: Float32,
    items: Int64,
    queries: Float32,
    asking: Int64,
    count: int,
    target: float,
    *,
    num_lists: int,
    seed: int,
    spare: int = 0,
    compact: bool = False,
    threads: int = 1,
) -> InvertedLists:
    """``num_lists`` lists of the unit rows ``rows[items]``, tuned so that ``queries[asking]``, which search for ``spare`` more, find
    ``target`` of their best ``count``.

    ``rows``, ``queries`` [I, D] float32, ``items`` int64 [N], ``asking`` int64 [R]. Spherical k-means on a sample; lists that stay empty
    are dropped.
    """
    index = _clustered(rows, items, num_lists, seed, compact, threads)
    sample = np.sort(generator(seed, "lists", "recall").choice(asking, min(SAMPLE, len(asking)), replace=False))
    return _tuned(
        index, np.ascontiguousarray(queries[sample]), min(count, len(items)), min(count + spare, len(items)), target
    )


def build_news(
    rows: Float32, items: Int64, asked: Float32, found: Found, target: float, *, num_lists: int, seed: int
) -> InvertedLists:
    """Lists of the unit rows ``rows[items]`` that are to ``improve`` what others are known to have found, tuned on some of them.

    ``asked`` [S, D] have ``found``: with the ``reach`` here, ``target`` of what they can be given is given.
    """
    index = _clustered(rows, items, num_lists, seed, False, 1)
    bound, best = np.ascontiguousarray(found[1][:, -1]), (found[0].copy(), found[1].copy())
    improve(one_list(rows, items), asked, best)
    entered = np.isin(best[0], items)
    needed = _needed(index, asked, np.where(entered, best[0], -1), bound)[entered]
    return replace(index, reach=_rounded(float(np.quantile(needed, target)) if len(needed) else 0.0), recall=target)


def improve(index: InvertedLists, asked: Float32, found: Found) -> None:
    """Put into ``found``, in place, what of the index beats the last of each row [B, W], which has to be sorted; ``asked`` [B, D]."""
    if len(index.means) == 1:
        everyone, vectors = np.arange(len(asked), dtype=np.int32), index.vectors
        scan(vectors, index.items, padded_rows(asked, index.panels.width), everyone, *found)
    elif len(asked):
        _search_rest(index, asked, np.ascontiguousarray(found[1][:, -1]), np.full((len(asked), 1), -1, np.int32), found)


def _clustered(rows: Float32, items: Int64, num_lists: int, seed: int, compact: bool, threads: int) -> InvertedLists:
    centroids = _cluster(rows, items, num_lists, generator(seed, "lists", "kmeans"), threads)
    return _index(rows, items, _nearest(centroids, rows, items, threads), num_lists, compact)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """What of an index lasts when some of its rows change: ``number`` [I] int32, the list of each item, -1 for those in none; the ``means``
    [L, D]; and the ``reach`` that was tuned, with its ``recall``."""

    number: Int32
    means: Float32
    reach: float
    recall: float

    @classmethod
    def of(cls, index: InvertedLists, num_items: int) -> Lists:
        """Those of an index of some of ``num_items`` items."""
        number, there = np.full(num_items, -1, np.int32), index.items >= 0
        lists = np.repeat(np.arange(len(index.means), dtype=np.int32), np.diff(index.offsets))
        number[index.items[there]] = lists[there]
        return cls(number=number, means=index.means, reach=index.reach, recall=index.recall)


def fill_lists(lists: Lists, rows: Float32, items: Int64, *, compact: bool = False, threads: int = 1) -> InvertedLists:
    """The index of ``rows[items]`` by lists that were made earlier: who is in none of them joins the nearest; means and radii are anew."""
    nearest = lists.number[items]
    new = np.flatnonzero(nearest < 0)
    nearest[new] = _nearest(lists.means, rows, items[new], threads)
    return replace(_index(rows, items, nearest, len(lists.means), compact), reach=lists.reach, recall=lists.recall)


def _cluster(rows: Float32, items: Int64, count: int, rng: np.random.Generator, threads: int) -> Float32:
    sample = np.sort(rng.choice(items, min(PER_LIST * count, len(items)), replace=False))
    centroids = np.ascontiguousarray(rows[np.sort(rng.choice(sample, count, replace=False))])
    for _ in range(ITERATIONS):
        sums, held = _sums(rows, sample, _nearest(centroids, rows, sample, threads), count)
        centroids = np.where(held[:, None] > 0, unit_rows(sums.astype(np.float32)), centroids)
    return centroids


def _nearest(centroids: Float32, rows: Float32, items: Int64, threads: int) -> Int32:
    panels, nearest = (
        lay_out(centroids, np.arange(len(centroids)), np.array([0, len(centroids)])),
        np.empty(len(items), np.int32),
    )

    def assign(block: slice) -> None:
        nearest[block] = search_all(panels, rows[items[block]], 1)[0][:, 0]

    for _ in in_threads(assign, list(row_blocks(len(items), BLOCK_ROWS)), threads):
        pass
    return nearest


def _index(rows: Float32, items: Int64, nearest: Int32, count: int, compact: bool) -> InvertedLists:
    sums, held = _sums(rows, items, nearest, count)
    there = held > 0
    bounds = np.concatenate([[0], np.cumsum(held[there])]).astype(np.int64)
    means = (sums[there] / held[there, None]).astype(np.float32)
    radius = np.sqrt(np.maximum(1 - np.einsum("ld,ld->l", means, means), LEAST_RADIUS**2)).astype(np.float32)
    panels = lay_out(rows, items[np.argsort(nearest, kind="stable")], bounds, compact=compact)
    return InvertedLists(
        means=means,
        radius=radius,
        vectors=panels.vectors,
        items=panels.items,
        offsets=panels.offsets,
        reach=float("inf"),
        recall=1.0,
    )


def _sums(rows: Float32, items: Int64, nearest: Int32, count: int) -> tuple[Float64, Int64]:
    sums, held = np.zeros((count, rows.shape[1])), np.zeros(count, np.int64)
    for block in row_blocks(len(items), BLOCK_ROWS):
        add_rows(rows[items[block]], nearest[block], sums, held)
    return sums, held


def _tuned(index: InvertedLists, asked: Float32, count: int, searched: int, target: float) -> InvertedLists:
    """The least reach at which the sample's recall of the best ``count``, less two standard errors, attains the target."""
    truth = search_all(index.panels, asked, count)[0]
    found, nearest = _first_lists(index, asked, searched)
    needed = _needed(index, asked, truth, found[1][:, -1])
    needed[(_list_of(index)[truth][:, :, None] == nearest[:, None, :]).any(axis=2)] = 0
    reach = _rounded(_level(needed, target))
    return replace(index, reach=reach, recall=float((needed <= reach).mean()))


def _needed(index: InvertedLists, asked: Float32, items: Int32, bound: Float32) -> Float32:
    """The reach with which a search from ``bound`` [S] asks the lists of ``items`` [S, W]."""
    at = _list_of(index)[items]
    # Not by BLAS: its rounding depends on threads, and the reach on the rounding.
    towards = products_with(index.means, at, padded_rows(asked, index.panels.width))
    return cast(Float32, (bound[:, None] - towards) / index.radius[at])


def _list_of(index: InvertedLists) -> Int32:
    """The list of each item up to the last that is in one; what the others say is nothing."""
    there = index.items >= 0
    lists = np.repeat(np.arange(len(index.means), dtype=np.int32), np.diff(index.offsets))
    list_of = np.zeros(int(index.items.max()) + 1, np.int32)
    list_of[index.items[there]] = lists[there]
    return list_of


def _rounded(reach: float) -> float:
    return float(np.ceil(1000 * max(reach, 0.0)) / 1000)


def _level(needed: Float32, target: float) -> float:
    levels = np.unique(needed)

    def enough(level: np.float32) -> bool:
        share = (needed <= level).mean(axis=1)
        return bool(share.mean() - 2 * share.std() / np.sqrt(len(share)) >= target)

    return float(levels[bisect_left(levels, True, key=enough)])


def candidates(index: InvertedLists, asked: Float32, count: int) -> float:
    """How many rows a query of ``asked`` [S, D] is compared with, on average."""
    found, nearest = _first_lists(index, asked, count)
    attained = np.einsum("sd,ld->sl", asked, index.means) + np.float32(index.reach) * index.radius
    probed = attained >= found[1][:, -1:]
    np.put_along_axis(probed, nearest, True, axis=1)
    return float((probed * np.diff(index.offsets)).sum(axis=1).mean())


def by_likeness(index: InvertedLists, queries: Float32, asking: Int64, *, threads: int = 1) -> Int64:
    """``asking`` in an order that puts alike ``queries[asking]`` side by side: a block of them shares lists, and none is read for a few."""
    if len(index.means) == 1:
        return asking
    pivots = np.ascontiguousarray(index.means[:: -(-len(index.means) // PIVOTS)])
    return asking[np.argsort(_nearest(pivots, queries, asking, threads), kind="stable")]


def search(index: InvertedLists, asked: Float32, count: int) -> Found:
    """The ``count`` best items for each of ``asked`` [B, D]: items int32 [B, count] by descending product, ties by ascending item.

    And the products; -1 and -inf where there are fewer. Outcomes do not depend on what else is in the block.
    """
    if len(index.means) == 1:
        return search_all(index.panels, asked, count)
    found, nearest = _first_lists(index, asked, count)
    _search_rest(index, asked, np.ascontiguousarray(found[1][:, -1]), nearest, found)
    return found


def _search_rest(index: InvertedLists, asked: Float32, bound: Float32, nearest: Int32, found: Found) -> None:
    outline, panels = _outline(index, index.reach), index.panels
    ones = np.hstack([asked, np.ones((len(asked), 1), np.float32)])
    extended, bests = padded_rows(ones, outline.width), cast(Float32, outline.vectors)
    queries = padded_rows(asked, panels.width)
    search_rest(panels.vectors, panels.items, panels.offsets, bests, queries, extended, bound, nearest, *found)


def _outline(index: InvertedLists, reach: float) -> Panels:
    """The means with one more coordinate, so that a product with ``(q, 1)`` is the best that a list can be expected to hold."""
    extended = np.hstack([index.means, np.float32(reach) * index.radius[:, None]])
    return lay_out(extended, np.arange(len(extended)), np.array([0, len(extended)]))


def _first_lists(index: InvertedLists, asked: Float32, count: int) -> tuple[Found, Int32]:
    """The best of each query's nearest lists, as many as hold ``FIRST`` times ``count`` rows on average; and which lists those are."""
    panels, num_lists = index.panels, len(index.means)
    first = min(max(1, round(FIRST * count * num_lists / len(index.items))), num_lists)
    means = lay_out(index.means, np.arange(num_lists), np.array([0, num_lists]))
    nearest, found = search_all(means, asked, first)[0], no_candidates(len(asked), count)
    order = np.argsort(nearest, axis=None, kind="stable")
    starts = np.searchsorted(nearest.ravel()[order], np.arange(num_lists + 1))
    rows = (order // first).astype(np.int32)
    search_lists(
        panels.vectors, panels.items, panels.offsets, padded_rows(asked, panels.width), starts, rows, found[0], found[1]
    )
    return found, nearest

"""Nearest rows by inner product: FAISS names the candidates, and one function scores them in one order.

Source: inverted files over k-means cells (Sivic and Zisserman, 2003), for many rows with product codes scanned in registers (André et al.,
"Quicker ADC", TPAMI 2019), both in FAISS (Douze et al., "The Faiss library", 2024). Why this index: ``docs/decisions/search-index.md``.

FAISS's own scores are approximate, and depend on how queries are batched to within rounding. So it is asked for more candidates than
wanted, always by one thread, and ``score_candidates`` sums every product in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import faiss
import numpy as np

from rectifier_core.base.arrays import Float32, Int32, Int64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.seeding import generator
from rectifier_core.base.threads import on_row_blocks

IndexKind = Literal["auto", "flat", "ivf"]
BLOCK_ROWS = 8192
EXTRA = 4
"""FAISS is asked for at least so many more candidates than wanted: its rounding may misplace the last ones."""
CODED_ROWS = 500_000
"""From so many rows on, lists hold codes of 4 bits a number: long scans take half the time of numbers in half precision, and a quarter of
the memory. Short ones take up to 2.5 times as long, because more candidates have to be scored again."""
FACTOR = 1.5
"""FAISS is asked for so many times the candidates wanted, at first: codes of 4 bits a number misplace more of them."""
FLAT_PRODUCTS = 4e8
"""Exact search is cheap up to so many products of a query with a row."""
LARGEST_SHARE = 0.5
"""Where a query has to scan more than this share of the lists, exact search is as fast."""
LEAST_ROWS = 100
"""Fewer rows cannot train the codes: they are searched exactly."""
SAMPLE = 2000
KMEANS_ROWS = 32
KMEANS_ITERATIONS = 5
CODE_ROWS = 4096
PIVOTS = 256
GATHERED = 1 << 22
"""Numbers that scoring copies at a time, so that they stay in the processor's cache."""
RESERVOIR = 13
"""FAISS's number for the scan that treats a query alike whatever is searched beside it."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS use one thread. It shares the count with torch, so the count is put back."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class Neighbours(NamedTuple):
    """The best rows of each query: ``items`` [B, K] int32, -1 for none, and ``scores`` [B, K] float32, -inf for none."""

    items: Int32
    scores: Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """The tuned part of an inverted file.

    ``centroids`` [L, D] float32 of its lists, lists scanned per query, candidates asked for per one wanted, and the measured recall.
    """

    centroids: Float32
    probes: int
    factor: float
    recall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestRows:
    """A FAISS index of some rows of ``vectors`` [I, D] (float32, may be a memory map); its ids are row numbers.

    ``factor`` is how many candidates FAISS is asked for per one wanted. ``recall`` is the measured share of the exact best that is found.
    """

    vectors: Float32
    index: Any
    factor: float = 1.0
    recall: float = 1.0

    def __post_init__(self) -> None:
        if _has_codes(self.index):
            self.index.implem = RESERVOIR

    @property
    def is_exact(self) -> bool:
        """Whether every row is compared with every query."""
        return not isinstance(self.index, faiss.IndexIVF)

    @property
    def name(self) -> str:
        """The kind of index, for reports."""
        return "flat" if self.is_exact else f"ivf{self.index.nlist} nprobe {self.index.nprobe}"

    @property
    def clusters(self) -> Clusters | None:
        """What a later index can be built from without training lists, None for exact search."""
        if self.is_exact:
            return None
        return Clusters(
            centroids=_centroids(self.index), probes=self.index.nprobe, factor=self.factor, recall=self.recall
        )

    def search(self, queries: Float32, count: int) -> Neighbours:
        """The ``count`` rows with the largest product with each query [B, D], best first, ties to the lower row."""
        items = self.candidates(queries, count)
        return best_of(items, score_candidates(self.vectors, queries, items), count)

    @one_thread()
    def candidates(self, queries: Float32, count: int) -> Int32:
        """At least ``count`` + ``EXTRA`` candidates for each query [B, D]: int32, -1 for none, in no particular order."""
        width = min(math.ceil(self.factor * count) + EXTRA, self.index.ntotal)
        return np.asarray(self.index.search(queries, width)[1], np.int32)

    def order(self, queries: Float32, rows: Int64, *, threads: int = 1) -> Int64:
        """``rows`` in an order that puts similar ``queries[rows]`` side by side, so that a block of them scans few lists."""
        if self.is_exact:
            return rows
        pivots = faiss.IndexFlatIP(self.vectors.shape[1])
        pivots.add(_centroids(self.index)[:: -(-self.index.nlist // PIVOTS)])
        return rows[np.argsort(_nearest(pivots, queries, rows, threads), kind="stable")]


def build_index(
    vectors: Float32,
    rows: Int64,
    queries: Float32,
    asking: Int64,
    count: int,
    *,
    seed: int,
    spare: int = 0,
    kind: IndexKind = "auto",
    target_recall: float = 0.99,
    threads: int = 1,
    clusters: Clusters | None = None,
) -> NearestRows:
    """The index of ``vectors[rows]`` for the ``count`` best of each of ``queries[asking]``, found by a search for ``spare`` more.

    ``vectors``, ``queries`` [I, D] float32, ``rows`` and ``asking`` int64, ascending. An inverted file scans as many lists as a sample of the
    queries needs to find ``target_recall`` of its exact best, less two standard errors. ``clusters`` of an earlier index are taken as they
    are, unless it stored its rows otherwise. ``threads`` change no bit.
    """
    cheap = len(rows) * len(asking) <= FLAT_PRODUCTS
    if kind == "flat" or len(rows) < LEAST_ROWS or (kind == "auto" and cheap):
        return exact_index(vectors, rows)
    quantizer = faiss.IndexFlatIP(vectors.shape[1])
    if clusters is None:
        _train(quantizer, vectors, rows, seed)
    else:
        quantizer.add(np.ascontiguousarray(clusters.centroids))
    lists = _nearest(quantizer, vectors, rows, threads)
    index = _inverted_file(quantizer, vectors, rows, lists, seed)
    if clusters is not None and (clusters.factor > 1) == _has_codes(index):
        index.nprobe = clusters.probes
        return NearestRows(vectors=vectors, index=index, factor=clusters.factor, recall=clusters.recall)
    sample = np.sort(generator(seed, "index", "recall").choice(asking, min(SAMPLE, len(asking)), replace=False))
    truth = search_rows(vectors, rows, queries[sample], count, threads=threads).items
    list_of = np.zeros(int(rows[-1]) + 1, np.int64)
    list_of[rows] = lists
    tuned = _tune(vectors, index, queries[sample], truth, list_of, target_recall, count + spare)
    return exact_index(vectors, rows) if kind == "auto" and index.nprobe > LARGEST_SHARE * index.nlist else tuned


def exact_index(vectors: Float32, rows: Int64) -> NearestRows:
    """The index of ``vectors[rows]`` that compares a query with all of them."""
    index = faiss.IndexIDMap(faiss.IndexFlatIP(vectors.shape[1]))
    for block in row_blocks(len(rows), BLOCK_ROWS):
        index.add_with_ids(np.ascontiguousarray(vectors[rows[block]]), rows[block])
    return NearestRows(vectors=vectors, index=index)


def search_rows(vectors: Float32, rows: Int64, queries: Float32, count: int, *, threads: int = 1) -> Neighbours:
    """The exact ``count`` best of ``vectors[rows]`` for each of ``queries`` [B, D], as ``NearestRows.search`` gives them."""
    index = exact_index(vectors, rows)
    items, scores = np.empty((len(queries), count), np.int32), np.empty((len(queries), count), np.float32)

    def search(block: slice) -> None:
        items[block], scores[block] = index.search(queries[block], count)

    on_row_blocks(search, len(queries), BLOCK_ROWS, threads)
    return Neighbours(items, scores)


def score_candidates(vectors: Float32, queries: Float32, items: Int32) -> Float32:
    """The product of each query [B, D] with ``vectors[items[b, w]]``: float32 [B, W], -inf where the item is -1.

    A pair has the same bits whatever stands beside it.
    """
    scores = np.empty(items.shape, np.float32)
    for block in row_blocks(len(items), max(1, GATHERED // max(1, items.shape[1] * vectors.shape[1]))):
        np.einsum("ij,ikj->ik", queries[block], np.take(vectors, items[block], axis=0), out=scores[block])
    scores[items < 0] = -np.inf
    return scores


def best_of(items: Int32, scores: Float32, count: int) -> Neighbours:
    """The ``count`` best of each row [B, W], best first, ties to the lower item; filled up with -1 and -inf."""
    # One sort of integers: the high half orders as the falling score does, the low half is the item. It takes a third of two argsorts.
    keys = _ordered((0.0 - scores).view(np.int32)).astype(np.int64) << 32 | items.view(np.uint32)
    keys.sort(axis=1)
    keys = keys[:, :count]
    items = (keys & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    scores = 0.0 - _ordered((keys >> 32).astype(np.int32)).view(np.float32)
    missing = ((0, 0), (0, count - items.shape[1]))
    return Neighbours(np.pad(items, missing, constant_values=-1), np.pad(scores, missing, constant_values=-np.inf))


def _ordered(bits: Int32) -> Int32:
    """The bits of float32 numbers as integers of the same order, and the other way round: those of negative numbers run backwards."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _centroids(index: Any) -> Float32:
    return np.asarray(faiss.downcast_index(index.quantizer).reconstruct_n(0, index.nlist))


@one_thread()
def _train(quantizer: Any, vectors: Float32, rows: Int64, seed: int) -> None:
    """Put the centroids of about ``rows``^.75 / 9 lists into ``quantizer``: spherical k-means on a sample."""
    lists, rng = max(1, round(math.pow(len(rows), 0.75) / 9)), generator(seed, "index", "kmeans")
    sample = np.sort(rng.choice(rows, min(KMEANS_ROWS * lists, len(rows)), replace=False))
    kmeans: Any = faiss.Clustering(vectors.shape[1], lists)
    kmeans.niter, kmeans.spherical, kmeans.seed = KMEANS_ITERATIONS, True, int(rng.integers(2**31))
    kmeans.min_points_per_centroid, kmeans.max_points_per_centroid = 1, KMEANS_ROWS
    kmeans.train(np.ascontiguousarray(vectors[sample]), quantizer)


def _nearest(quantizer: Any, vectors: Float32, rows: Int64, threads: int) -> Int64:
    """The centroid nearest to each of ``vectors[rows]``: int64 [N]."""
    nearest = np.empty(len(rows), np.int64)

    @one_thread()
    def assign(block: slice) -> None:
        nearest[block] = quantizer.search(np.ascontiguousarray(vectors[rows[block]]), 1)[1][:, 0]

    on_row_blocks(assign, len(rows), BLOCK_ROWS, threads)
    return nearest


@one_thread()
def _inverted_file(quantizer: Any, vectors: Float32, rows: Int64, lists: Int64, seed: int) -> Any:
    """The rows in their ``lists`` [N]: in half precision, or many rows as codes of 4 bits for each number of what the centroid leaves."""
    width, coded = vectors.shape[1], len(rows) >= CODED_ROWS
    shape = quantizer, width, quantizer.ntotal
    rng = generator(seed, "index", "codes")
    sample = np.sort(rng.choice(rows, min(CODE_ROWS, len(rows)), replace=False))
    plain: Any
    if coded:
        plain = faiss.IndexIVFPQ(*shape, width, 4, faiss.METRIC_INNER_PRODUCT)
        plain.pq.cp.min_points_per_centroid = 1
        plain.pq.cp.seed = int(rng.integers(2**31))
    else:
        half = faiss.ScalarQuantizer.QT_fp16
        plain = faiss.IndexIVFScalarQuantizer(*shape, half, faiss.METRIC_INNER_PRODUCT, False)
    plain.train(np.ascontiguousarray(vectors[sample]))
    for block in row_blocks(len(rows), BLOCK_ROWS):
        part, ids, numbers = np.ascontiguousarray(vectors[rows[block]]), rows[block], lists[block]
        plain.add_core(len(part), *(faiss.swig_ptr(array) for array in (part, ids, numbers)))
    index: Any = faiss.IndexIVFPQFastScan(plain) if coded else plain
    # The quantizer belongs to Python: it lives as long as the index.
    index.referenced_objects = [quantizer]
    return index


@one_thread()
def _tune(
    vectors: Float32, index: Any, queries: Float32, truth: Int32, list_of: Int64, target: float, searched: int
) -> NearestRows:
    """The index with the least probes, and the least candidates, with which ``queries`` [S, D] find the target share of ``truth`` [S, K]."""
    rank = np.argsort(index.quantizer.search(queries, index.nlist)[1], axis=1)
    there = truth >= 0
    needed = np.where(there, np.take_along_axis(rank, list_of[truth], axis=1) + 1, 0)
    probes = next(level for level in np.unique(needed) if _reaches(needed <= level, target))
    factor = FACTOR if _has_codes(index) else 1.0
    while True:
        index.nprobe = max(1, int(probes))
        tuned = NearestRows(vectors=vectors, index=index, factor=factor)
        items = tuned.candidates(queries, searched)
        found = (truth[:, :, None] == items[:, None, :]).any(axis=2) | ~there
        lost = float((needed <= index.nprobe).mean() - found.mean())
        complete = factor * searched >= index.ntotal
        if _reaches(found, target) or (complete and index.nprobe == index.nlist):
            return NearestRows(vectors=vectors, index=index, factor=factor, recall=float(found.mean()))
        # Too many of the best are scanned and then lost among the candidates: ask for more. Otherwise scan more lists.
        if lost > (1 - target) / 2 and not complete:
            factor *= 2
        else:
            probes = min(1 + 1.05 * probes, index.nlist)


def _has_codes(index: Any) -> bool:
    return isinstance(index, faiss.IndexIVFFastScan)


def _reaches(found: np.ndarray[Any, Any], target: float) -> bool:
    """Whether the share of ``found`` [S, K] bool, less two standard errors over the queries, reaches the target."""
    share = found.mean(axis=1)
    return bool(share.mean() - 2 * share.std() / math.sqrt(len(share)) >= target)

"""Stage: affinity, per item the K features that fit its anchor best.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730: top-K cosine between anchors and projected features over a
temperature, the diagonal always in. Search: ``top_k`` (exact) or ``inverted_lists``.

Differs from the paper:
- Only items with an anchor ask and only items with a feature are found, so the problem may be rectangular; the paper assumes every item
  has both.
- Where exact search would cost at least twice as much, the search is approximate, tuned until the measured recall reaches
  ``target_recall``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.device_search import DeviceSearch
from rectifier_core.affinity.inverted_lists import (
    ITERATIONS,
    PER_LIST,
    SAMPLE,
    InvertedLists,
    build_lists,
    by_likeness,
    candidates,
    one_list,
    search,
)
from rectifier_core.affinity.search_kernels import PANEL, order_rows, products_with
from rectifier_core.affinity.top_k import Found, in_threads, padded, padded_rows
from rectifier_core.base.arrays import Float32, Int32, Int64
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, row_blocks, silent
from rectifier_core.base.records import NO_NEIGHBOUR, Affinity, Projection
from rectifier_core.base.seeding import derive_seed, generator

# What a query costs beside its products with candidates and means, counted in products, and what a candidate costs in a list rather than
# in one long scan: benchmarks/results/top_k.md.
QUERY_COST = 3000
CANDIDATE_COST = 1.3
WORTH = 2
SPARE = 4
"""So many more are searched for than are neighbours: 16 bits or a device may misjudge the last ones, which are scored again, and a later
run can lose a neighbour or two without asking for all of them anew."""


@dataclass(frozen=True, slots=True)
class FoundRows:
    """An affinity while its rows are found: ``neighbours`` [I, K], ``scores`` [I, K] and the next best, ``spare`` [I, ``SPARE``]."""

    neighbours: Int32
    scores: Float32
    spare: Int32

    @classmethod
    def of(cls, num_items: int, config: AffinityConfig) -> FoundRows:
        """All of them empty."""
        shape = (num_items, config.num_neighbours)
        none = (np.full((num_items, width), NO_NEIGHBOUR, np.int32) for width in (shape[1], SPARE))
        return cls(next(none), np.full(shape, -np.inf, np.float32), next(none))

    def put(self, rows: Int64 | slice, found: tuple[Any, ...]) -> None:
        """Fill the given rows [B] with what ``neighbours_of`` gives for them, or with three numbers."""
        self.neighbours[rows], self.scores[rows], self.spare[rows] = found

    def affinity(self, modality: str, recall: float, index: str) -> Affinity:
        """All of it as the record."""
        return Affinity(
            modality=modality,
            neighbours=self.neighbours,
            scores=self.scores,
            spare=self.spare,
            recall=recall,
            index=index,
        )


def find_neighbours(
    projection: Projection,
    config: AffinityConfig,
    *,
    seed: int,
    threads: int = 1,
    memory: int | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Affinity:
    """The ``num_neighbours`` best features of every item with an anchor, its own (where it has one) always among them.

    Returns rows sorted by descending score, ties by ascending item; a small catalog leaves unused slots at -1. ``threads`` change no bit.
    ``memory`` bounds, in bytes, what the index and the blocks in work take beside the result: float32 vectors that would fill more than
    half of it are indexed in 16 bits, and blocks shrink to the rest.

    A ``device`` other than the CPU picks the candidates of exact search; they are scored on the CPU, so that an item's neighbours differ
    only where the last one and the ``SPARE`` next ones score alike to within rounding, and a score of the same pair by no bit.
    """
    made = FoundRows.of(len(projection.target), config)
    rows, name, recall = np.flatnonzero(projection.target.any(axis=1)), "none", 1.0
    index: InvertedLists | DeviceSearch | None = None
    if len(rows) and device != CPU and config.index != "ivf":
        index = index_on_device(projection, device)
    elif len(rows):
        index = index_features(projection, config, seed=seed, threads=threads, memory=memory)
    if index is not None:
        name, recall = index.name, index.recall
        held, ordered = 0, rows
        if isinstance(index, InvertedLists):
            held, ordered = index.vectors.nbytes, by_likeness(index, projection.target, rows, threads=threads)

        def work(block: slice) -> None:
            at = ordered[block]
            made.put(at, neighbours_of(projection, index, at, config))

        blocks = list(row_blocks(len(rows), rows_in_work(config, projection.target.shape[1], held, memory, threads)))
        for block in in_threads(work, blocks, threads):
            progress(f"affinity of {projection.modality} ({name})", block.stop, len(rows))
    return made.affinity(projection.modality, recall, name)


def index_features(
    projection: Projection, config: AffinityConfig, *, seed: int, threads: int = 1, memory: int | None = None
) -> InvertedLists | None:
    """The index of all features of a modality, exact or by lists as ``config`` says; None where it has none."""
    rows = np.flatnonzero(projection.target.any(axis=1))
    columns = np.flatnonzero(projection.projected.any(axis=1))
    if not len(columns):
        return None
    compact = needs_compact(len(columns), projection.projected.shape[1], memory)
    exact = config.index == "flat"
    if config.index == "auto":
        exact = one_list_is_cheaper(len(rows), len(columns))
    if not exact and len(rows):
        index = build_lists(
            projection.projected,
            columns,
            projection.target,
            rows,
            # Vectors of 16 bits may misjudge the last ones.
            config.num_neighbours + SPARE * compact,
            config.target_recall,
            num_lists=number_of_lists(len(columns)),
            seed=derive_seed(seed, "affinity"),
            spare=SPARE * (not compact),
            compact=compact,
            threads=threads,
        )
        if config.index == "ivf" or not _disappointing(index, projection.target, rows, config, seed):
            return index
    return one_list(projection.projected, columns, compact=compact)


def needs_compact(features: int, width: int, memory: int | None) -> bool:
    """Whether float32 vectors would fill more than half of ``memory`` bytes, and are indexed in 16 bits."""
    return memory is not None and 4 * features * width > memory // 2


def index_on_device(projection: Projection, device: str) -> DeviceSearch | None:
    """All features of a modality for exact search on ``device``; None where it has none."""
    columns = np.flatnonzero(projection.projected.any(axis=1))
    return DeviceSearch(projection.projected, columns, device) if len(columns) else None


def neighbours_of(
    projection: Projection, index: InvertedLists | DeviceSearch, rows: Int64, config: AffinityConfig
) -> tuple[Int32, Float32, Int32]:
    """The rows ``rows`` [B] of the affinity: neighbours int32 [B, K], scores float32 [B, K] and the next best int32 [B, ``SPARE``].

    They are the same whatever else is asked for beside them. With the index and the projection memory-mapped, this is all that a worker
    needs for its share of the rows.
    """
    asked, width = np.ascontiguousarray(projection.target[rows]), config.num_neighbours + SPARE
    if isinstance(index, DeviceSearch):
        found = scored(projection, index(asked, width), asked, width)
    elif index.vectors.dtype == np.int16:
        found = scored(projection, search(index, asked, width)[0], asked, width)
    else:
        found = search(index, asked, width)
    return with_own(projection, rows, found, asked, config)


def with_own(
    projection: Projection, rows: Int64, found: Found, asked: Float32, config: AffinityConfig
) -> tuple[Int32, Float32, Int32]:
    """``found`` [B, W], sorted, cut into neighbours, scores and the next best, each item's own feature forced among its neighbours."""
    (items, cosine), last = found, config.num_neighbours - 1
    has = projection.projected[rows].any(axis=1)
    absent = has & ~(items == rows[:, None]).any(axis=1)
    items[absent, -1] = rows[absent]
    cosine[absent, -1:] = products_with(
        projection.projected, items[absent, -1:], padded_rows(asked[absent], padded(asked.shape[1]))
    )
    # Its own goes before all that are no better than the last neighbour, whose order stays.
    own = items == rows[:, None]
    late = own[:, last + 1 :].any(axis=1)
    place = np.arange(items.shape[1], dtype=np.float32)
    order = np.argsort(np.where(own[late], np.float32(last - 0.5), place), axis=1, kind="stable")
    items[late], cosine[late] = (np.take_along_axis(x[late], order, axis=1) for x in (items, cosine))
    order_rows(
        *(neighbours := (np.ascontiguousarray(items[:, : last + 1]), np.ascontiguousarray(cosine[:, : last + 1])))
    )
    return neighbours[0], neighbours[1] / np.float32(config.temperature), items[:, last + 1 :]


def scored(projection: Projection, found: Int32, asked: Float32, width: int) -> Found:
    """Candidates ``found`` [B, C], -1 for none, by the cosine of their float32 features with ``asked`` [B, A]: the best ``width``."""
    items = np.full((len(found), max(width, found.shape[1])), NO_NEIGHBOUR, np.int32)
    items[:, : found.shape[1]] = found
    cosine = products_with(projection.projected, items, padded_rows(asked, padded(asked.shape[1])))
    order_rows(items, cosine)
    return items[:, :width], cosine[:, :width]


def number_of_lists(features: int) -> int:
    """How many lists are cheapest, build and search together, as measured from 50,000 to 1,000,000 features."""
    return max(1, round(math.pow(features, 0.75) / 9))


def one_list_is_cheaper(queries: int, features: int) -> bool:
    """Whether exact search beats lists that would find everything at once, but for a factor of ``WORTH``."""
    lists = number_of_lists(features)
    build = features * (lists + SAMPLE) + ITERATIONS * min(PER_LIST * lists, features) * lists
    return queries * features <= WORTH * (build + queries * (QUERY_COST + 2 * lists))


def _disappointing(index: InvertedLists, targets: Float32, rows: Int64, config: AffinityConfig, seed: int) -> bool:
    sample = np.sort(generator(seed, "affinity", "cost").choice(rows, min(SAMPLE, len(rows)), replace=False))
    compared = candidates(index, np.ascontiguousarray(targets[sample]), config.num_neighbours + SPARE)
    return QUERY_COST + 2 * len(index.means) + CANDIDATE_COST * compared > len(index.items)


def rows_in_work(config: AffinityConfig, width: int, held: int, memory: int | None, threads: int) -> int:
    """How many items, of anchors ``width`` long, each thread may ask for at a time where an index of ``held`` bytes shares ``memory``."""
    if memory is None:
        return config.block_rows
    # Per row: its candidates' vectors, once gathered and once multiplied, the lists it is noted beside, and its anchor.
    each = 4 * (2 * (config.num_neighbours + SPARE) * width + PANEL + 3 * width)
    return max(1, min(config.block_rows, max(memory - held, memory // 4) // threads // each))

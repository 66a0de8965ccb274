"""Stage: affinity, per item the K features that fit its anchor best.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730: top-K cosine between anchors and projected features over a
temperature, the diagonal always in. Search: ``index``.

Differs from the paper:
- A donor lies between its anchor and its projected feature (``places``).
- Only items with an anchor search, and only items with a feature are found. So the problem may be rectangular. The paper assumes that every
  item has both.
- A large catalog is searched approximately. A sample measures the recall, which reaches ``target_recall``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.device_search import DeviceRows
from rectifier_core.affinity.index import (
    Clusters,
    NearestRows,
    best_of,
    build_index,
    score_candidates,
)
from rectifier_core.affinity.places import Places
from rectifier_core.base.arrays import Float32, Int32, Int64
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, row_blocks, silent
from rectifier_core.base.records import NO_NEIGHBOUR, Affinity
from rectifier_core.base.seeding import derive_seed
from rectifier_core.base.threads import in_threads

SPARE = 4
"""Next best neighbours that are kept, so that a later run can lose some without a new search."""


@dataclass(frozen=True, slots=True)
class AffinityRows:
    """The rows of an affinity: ``neighbours`` [I, K] int32, ``scores`` [I, K] float32 and the next best, ``spare`` [I, ``SPARE``] int32."""

    neighbours: Int32
    scores: Float32
    spare: Int32

    @classmethod
    def empty(cls, num_items: int, config: AffinityConfig) -> AffinityRows:
        """Rows without a neighbour."""
        shape = (num_items, config.num_neighbours)
        return cls(
            np.full(shape, NO_NEIGHBOUR, np.int32),
            np.full(shape, -np.inf, np.float32),
            np.full((num_items, SPARE), NO_NEIGHBOUR, np.int32),
        )

    def put(self, rows: Int64 | slice, part: AffinityRows) -> None:
        """Copy ``part`` [B] to the given rows [B]."""
        self.neighbours[rows], self.scores[rows], self.spare[rows] = part.neighbours, part.scores, part.spare

    def record(self, places: Places, index: NearestRows | DeviceRows | None) -> Affinity:
        """The rows as the stage's record."""
        return Affinity(
            modality=places.modality,
            neighbours=self.neighbours,
            scores=self.scores,
            spare=self.spare,
            recall=1.0 if index is None else index.recall,
            index="none" if index is None else index.name,
            anchor_share=places.anchor_share,
        )


def find_affinity(
    places: Places,
    config: AffinityConfig,
    *,
    seed: int,
    threads: int = 1,
    device: str = CPU,
    progress: Progress = silent,
) -> Affinity:
    """The ``num_neighbours`` best features of every item with an anchor, its own (where it has one) always among them.

    Returns rows sorted by descending score, ties by ascending item; a small catalog leaves unused slots at -1. ``threads`` change no bit.

    A ``device`` other than the CPU picks the candidates of exact search, and the CPU scores them. So results differ only where the last
    candidates score alike to within rounding.
    """
    rows = np.flatnonzero(places.items.any(axis=1))
    index: NearestRows | DeviceRows | None
    if device != CPU and config.index != "ivf":
        index = DeviceRows.of(places.donors, device)
    else:
        index = index_features(places, config, rows, seed=seed, threads=threads)
    found = AffinityRows.empty(len(places.items), config)
    if index is not None and len(rows):
        ordered = index.order(places.items, rows, threads=threads)

        def work(block: slice) -> None:
            found.put(ordered[block], search_block(places, index, ordered[block], config))

        for block in in_threads(work, list(row_blocks(len(rows), config.block_rows)), threads):
            progress(f"affinity of {places.modality} ({index.name})", block.stop, len(rows))
    return found.record(places, index if len(rows) else None)


def index_features(
    places: Places,
    config: AffinityConfig,
    asking: Int64,
    *,
    seed: int,
    threads: int = 1,
    clusters: Clusters | None = None,
) -> NearestRows | None:
    """The index of all features of a modality for the anchors ``asking``; None where it has no feature."""
    rows = np.flatnonzero(places.donors.any(axis=1))
    if not len(rows):
        return None
    return build_index(
        places.donors,
        rows,
        places.items,
        asking,
        config.num_neighbours,
        seed=derive_seed(seed, "affinity"),
        spare=SPARE,
        kind=config.index,
        target_recall=config.target_recall,
        threads=threads,
        clusters=clusters,
    )


def search_block(places: Places, index: NearestRows | DeviceRows, rows: Int64, config: AffinityConfig) -> AffinityRows:
    """The rows ``rows`` [B] of the affinity.

    With the index and the places memory-mapped, this is all that a worker needs for its share of the rows.
    """
    queries = np.ascontiguousarray(places.items[rows])
    return rank_candidates(places, rows, queries, index.candidates(queries, config.num_neighbours + SPARE), config)


def rank_candidates(
    places: Places, rows: Int64, queries: Float32, candidates: Int32, config: AffinityConfig
) -> AffinityRows:
    """The best of ``candidates`` [B, C] for the items ``rows``, cut into neighbours and spare; each item's own feature is a neighbour."""
    items = with_own(places, rows, candidates)
    return rank_scored(places, rows, items, score_candidates(places.donors, queries, items), config)


def with_own(places: Places, rows: Int64, candidates: Int32) -> Int32:
    """The items ``rows`` [B] before their ``candidates`` [B, C], which then hold them no more: [B, 1 + C]. -1 for one without a feature."""
    own = np.where(places.donors[rows].any(axis=1), rows, NO_NEIGHBOUR).astype(np.int32)[:, None]
    return np.hstack([own, np.where(candidates == own, NO_NEIGHBOUR, candidates)])


def rank_scored(places: Places, rows: Int64, items: Int32, scores: Float32, config: AffinityConfig) -> AffinityRows:
    """``rank_candidates`` of what ``with_own`` returns and its ``scores`` [B, 1 + C], which are overwritten."""
    has_own, own_score = items[:, 0] != NO_NEIGHBOUR, np.asarray(places.own[rows])
    # A score above all others keeps the own feature among the neighbours; it gets its real one before they are sorted.
    scores[has_own, 0] = np.inf
    best = best_of(items, scores, config.num_neighbours + SPARE)
    best.scores[has_own, 0] = own_score[has_own]
    kept = config.num_neighbours
    neighbours = best_of(best.items[:, :kept], best.scores[:, :kept], kept)
    return AffinityRows(
        neighbours.items, neighbours.scores / np.float32(config.temperature), np.ascontiguousarray(best.items[:, kept:])
    )

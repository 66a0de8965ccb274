"""Neighbours after few features and anchors changed. Most rows keep their neighbours and only search the changed features.

Search again if the item's anchor moved, its own feature changed, or more of its neighbours changed than it has spare ones. Otherwise score
the known neighbours again and merge the changed features in. A changed feature counts only where it beats the worst known neighbour, because
unchanged features below that one may be missing. A feature whose place moved counts as changed. The update misses unchanged features that
only a slightly moved anchor prefers. No paper has this method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.affinity.affinity import (
    SPARE,
    AffinityRows,
    index_features,
    rank_candidates,
    rank_scored,
    search_block,
    with_own,
)
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.index import Clusters, NearestRows, build_index, exact_index, score_candidates
from rectifier_core.affinity.places import Places
from rectifier_core.base.arrays import Bool, Int32, Int64
from rectifier_core.base.numerics import Progress, row_blocks, silent
from rectifier_core.base.records import NO_NEIGHBOUR, Affinity
from rectifier_core.base.seeding import derive_seed, generator
from rectifier_core.base.threads import in_threads
from rectifier_core.incremental.row_mapping import RowMapping

SAMPLE = 300
"""Rows that measure the recall. Each is compared with every feature; 300 rows bound the error to .2 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousNeighbours:
    """The previous run's ``affinity``, its ``places`` [J, A], and the clusters of its index, if it had any."""

    affinity: Affinity
    places: Places
    clusters: Clusters | None = None


def update_affinity(
    previous: PreviousNeighbours,
    mapping: RowMapping,
    places: Places,
    config: AffinityConfig,
    *,
    min_anchor_cosine: float,
    seed: int,
    threads: int = 1,
    progress: Progress = silent,
) -> tuple[Affinity, Clusters | None]:
    """The affinity of ``places``, and the clusters for the next run, None where the search was exact.

    An anchor, or a donor's place, moved where its cosine with the previous one is below ``min_anchor_cosine``. ``recall`` is measured on a
    sample of the rows that kept their neighbours, and weighted with the index's recall for the others.
    """
    has_feature: Bool = np.any(places.donors, axis=1)
    stayed = np.einsum("ij,ij->i", mapping.rows(previous.places.donors, 0), places.donors) >= min_anchor_cosine
    unchanged: Bool = mapping.same & has_feature & stayed
    known, outdated = _known_neighbours(previous, mapping, unchanged, places, config, min_anchor_cosine)
    has_anchor: Bool = np.any(places.items, axis=1)
    searched, kept = np.flatnonzero(has_anchor & outdated), np.flatnonzero(has_anchor & ~outdated)
    found, changed = AffinityRows.empty(len(has_anchor), config), np.flatnonzero(has_feature & ~unchanged)
    changed_index = index_changed(places, changed, kept, config, seed=seed, threads=threads) if len(kept) else None
    clusters, index_all = previous.clusters, None
    if len(searched):
        index_all = index_features(places, config, searched, seed=seed, threads=threads, clusters=previous.clusters)

    def refresh(block: slice) -> None:
        rows = kept[block]
        found.put(rows, merge_changed(places, known[rows], rows, changed_index, config))

    for block in in_threads(refresh, list(row_blocks(len(kept), config.block_rows)), threads):
        progress(f"affinity of {places.modality}: known neighbours", block.stop, len(kept))
    if index_all is not None:
        ordered, index = index_all.order(places.items, searched, threads=threads), index_all
        clusters = index_all.clusters or clusters

        def search(block: slice) -> None:
            found.put(ordered[block], search_block(places, index, ordered[block], config))

        for block in in_threads(search, list(row_blocks(len(searched), config.block_rows)), threads):
            progress(f"affinity of {places.modality}: searched again", block.stop, len(searched))
    share = len(kept) / max(1, len(kept) + len(searched))
    recall = share * _recall(places, found.neighbours, kept, config, seed)
    recall += (1 - share) * (1.0 if index_all is None else index_all.recall)
    affinity = Affinity(
        modality=places.modality,
        neighbours=found.neighbours,
        scores=found.scores,
        spare=found.spare,
        recall=recall,
        index=f"{100 * share:.0f} % kept, {'none' if index_all is None else index_all.name}",
        anchor_share=places.anchor_share,
    )
    return affinity, clusters


def index_changed(
    places: Places, changed: Int64, kept: Int64, config: AffinityConfig, *, seed: int, threads: int = 1
) -> NearestRows | None:
    """The index of the ``changed`` features for the items ``kept``; None where no feature changed."""
    if not len(changed):
        return None
    return build_index(
        places.donors,
        changed,
        places.items,
        kept,
        config.num_neighbours,
        seed=derive_seed(seed, "affinity", "changed"),
        spare=SPARE,
        kind=config.index,
        target_recall=config.target_recall,
        threads=threads,
    )


def merge_changed(
    places: Places, known: Int32, rows: Int64, changed: NearestRows | None, config: AffinityConfig
) -> AffinityRows:
    """The best of the ``known`` [B, W] neighbours of the items ``rows`` and of the ``changed`` features."""
    queries = np.ascontiguousarray(places.items[rows])
    if changed is None:
        return rank_candidates(places, rows, queries, known, config)
    entering = changed.candidates(queries, config.num_neighbours + SPARE)
    items = with_own(places, rows, np.hstack([known, entering]))
    scores, first = score_candidates(places.donors, queries, items), 1 + known.shape[1]
    worst = np.where(items[:, 1:first] == NO_NEIGHBOUR, np.inf, scores[:, 1:first]).min(axis=1, keepdims=True)
    enters = scores[:, first:] > worst
    items[:, first:] = np.where(enters, items[:, first:], NO_NEIGHBOUR)
    scores[:, first:] = np.where(enters, scores[:, first:], -np.inf)
    return rank_scored(places, rows, items, scores, config)


def _known_neighbours(
    previous: PreviousNeighbours,
    mapping: RowMapping,
    unchanged: Bool,
    places: Places,
    config: AffinityConfig,
    min_anchor_cosine: float,
) -> tuple[Int32, Bool]:
    """The unchanged neighbours of each item [I, W], as rows of this run, and which items [I] need a new search."""
    neighbours = previous.affinity.neighbours
    if previous.affinity.spare is not None:
        neighbours = np.hstack([neighbours, previous.affinity.spare])
    row_now = np.append(mapping.now(len(neighbours)), NO_NEIGHBOUR).astype(np.int32)
    row_now[np.append(~mapping.marked(unchanged, len(row_now) - 1), False)] = NO_NEIGHBOUR
    known = row_now[mapping.rows(neighbours, NO_NEIGHBOUR)]
    few = (known != NO_NEIGHBOUR).sum(axis=1) < config.num_neighbours
    cosine = np.einsum("ij,ij->i", mapping.rows(previous.places.items, 0), places.items)
    own_changed = places.donors.any(axis=1) & ~unchanged
    return known, few | (cosine < min_anchor_cosine) | own_changed


def _recall(places: Places, neighbours: Int32, rows: Int64, config: AffinityConfig, seed: int) -> float:
    """The share of the exact neighbours that a sample of ``rows`` has."""
    if not len(rows):
        return 1.0
    sample = np.sort(generator(seed, "affinity", "kept").choice(rows, min(SAMPLE, len(rows)), replace=False))
    exact = exact_index(places.donors, np.flatnonzero(places.donors.any(axis=1)))
    wanted = search_block(places, exact, sample, config).neighbours
    there = wanted != NO_NEIGHBOUR
    known = (wanted[:, :, None] == neighbours[sample][:, None, :]).any(axis=2) & there
    return float(known.sum() / max(1, int(there.sum())))

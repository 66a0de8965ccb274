"""Neighbours after few features and anchors changed: most rows keep theirs, scored anew, and hear of the features that are new.

An item asks for all its neighbours anew where its anchor moved, its own feature changed, or one of its neighbours' did. Every other item
is asked against the changed features alone: one of them enters where it beats the item's K-th best. What is missed is a feature that did
not change and was not among the K best, but would be now that the anchor moved by less than the bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rectifier_core.affinity import AffinityConfig, index_features, needs_compact, neighbours_of, score_candidates
from rectifier_core.incremental.carried import Carried
from rectifier_core.inverted_lists import InvertedLists, Lists, by_likeness, fill_lists, one_list, search
from rectifier_core.numerics import Progress, row_blocks, silent
from rectifier_core.records import NO_NEIGHBOUR, Affinity, Bool, Float32, Int32, Int64, Projection
from rectifier_core.seeding import generator
from rectifier_core.top_k import in_threads

SAMPLE = 300
"""Rows whose exact best tell the recall: each is held against every feature, and three hundred know it to two tenths of a percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierNeighbours:
    """What an earlier run found: its ``affinity``, the ``target`` [J, A] that it was asked for, and the ``lists`` it searched, where there
    are any."""

    affinity: Affinity
    target: Float32
    lists: Lists | None = None


def update_neighbours(
    earlier: EarlierNeighbours,
    carried: Carried,
    projection: Projection,
    config: AffinityConfig,
    *,
    still: float,
    seed: int,
    threads: int = 1,
    memory: int | None = None,
    progress: Progress = silent,
) -> tuple[Affinity, Lists | None]:
    """The affinity of ``projection``, and the lists for the next run, None where the search was exact.

    An anchor has moved where its cosine with the earlier one is below ``still``.

    ``recall`` is what a sample of the rows that kept their neighbours has of the exact best, weighed with the index's for the others.
    """
    stays = carried.same & projection.projected.any(axis=1)
    neighbours, asking = _kept(earlier, carried, stays, projection, still), projection.target.any(axis=1)
    full, part = (np.flatnonzero(asking & x) for x in (neighbours[:, 0] == NO_NEIGHBOUR, neighbours[:, 0] != NO_NEIGHBOUR))
    scores = np.full(neighbours.shape, -np.inf, np.float32)
    fresh = np.flatnonzero(~stays & projection.projected.any(axis=1))
    news = replace(projection, projected=np.where(stays[:, None], np.float32(0), projection.projected)) if len(fresh) else projection
    whole = _index(earlier.lists, carried, stays, projection, config, seed, threads, memory) if len(full) else None
    changed = index_features(news, config, seed=seed, threads=threads, memory=memory) if len(fresh) else None

    def ask(index: InvertedLists) -> None:
        ordered = by_likeness(index, projection.target, full, threads=threads)

        def work(block: slice) -> None:
            neighbours[ordered[block]], scores[ordered[block]] = neighbours_of(projection, index, ordered[block], config)

        _through(work, len(full), config, threads, f"affinity of {projection.modality}: asked anew", progress)

    def refresh(block: slice) -> None:
        rows = part[block]
        asked, held = np.ascontiguousarray(projection.target[rows]), neighbours[rows]
        if changed is not None:
            held = np.concatenate([held, search(changed, asked, min(config.num_neighbours, len(fresh)))[0]], axis=1)
        neighbours[rows], scores[rows] = score_candidates(projection, held, rows, config)

    if whole is not None:
        ask(whole)
    _through(refresh, len(part), config, threads, f"affinity of {projection.modality}: scored anew", progress)
    recall, share = _recall(projection, neighbours, part, config, seed), len(part) / max(1, len(part) + len(full))
    if whole is not None:
        recall = share * recall + (1 - share) * whole.recall
    found = Affinity(
        modality=projection.modality,
        neighbours=neighbours,
        scores=scores,
        recall=recall,
        index=f"{100 * share:.0f} % kept, {'none' if whole is None else whole.name}",
    )
    return found, None if whole is None or len(whole.means) == 1 else Lists.of(whole, len(stays))


def _index(
    lists: Lists | None,
    carried: Carried,
    stays: Bool,
    projection: Projection,
    config: AffinityConfig,
    seed: int,
    threads: int,
    memory: int | None,
) -> InvertedLists | None:
    """The earlier run's lists with the rows of now, or lists anew where it left none."""
    if lists is None:
        return index_features(projection, config, seed=seed, threads=threads, memory=memory)
    columns = np.flatnonzero(projection.projected.any(axis=1))
    compact = needs_compact(len(columns), projection.projected.shape[1], memory)
    number = np.where(stays, carried.rows(lists.number, -1), np.int32(-1))
    return fill_lists(replace(lists, number=number), projection.projected, columns, compact=compact, threads=threads)


def _kept(earlier: EarlierNeighbours, carried: Carried, stays: Bool, projection: Projection, still: float) -> Int32:
    """The earlier neighbours [I, K] as rows of this run; all ``NO_NEIGHBOUR`` where an item has to ask anew."""
    before = carried.rows(earlier.affinity.neighbours, NO_NEIGHBOUR)
    after = np.append(carried.after(len(earlier.affinity.neighbours)), -1)
    after[np.append(~carried.marked(stays, len(after) - 1), False)] = -1
    now: Int32 = after[before].astype(np.int32)
    lost = ((before != NO_NEIGHBOUR) & (now == NO_NEIGHBOUR)).any(axis=1)
    moved = np.einsum("ij,ij->i", carried.rows(earlier.target, 0), projection.target) < still
    own_changed = projection.projected.any(axis=1) & ~stays
    now[lost | moved | own_changed] = NO_NEIGHBOUR
    return now


def _through(work: Callable[[slice], None], count: int, config: AffinityConfig, threads: int, what: str, progress: Progress) -> None:
    for block in in_threads(work, list(row_blocks(count, config.block_rows)), threads):
        progress(what, block.stop, count)


def _recall(projection: Projection, neighbours: Int32, rows: Int64, config: AffinityConfig, seed: int) -> float:
    if not len(rows):
        return 1.0
    sample = np.sort(generator(seed, "affinity", "kept").choice(rows, min(SAMPLE, len(rows)), replace=False))
    columns = np.flatnonzero(projection.projected.any(axis=1))
    exact = neighbours_of(projection, one_list(projection.projected, columns), sample, config)[0]
    there = exact != NO_NEIGHBOUR
    found = (exact[:, :, None] == neighbours[sample][:, None, :]).any(axis=2) & there
    return float(found.sum() / max(1, int(there.sum())))

"""Neighbours after few features and anchors changed: most rows keep theirs, scored anew, and hear of the features that are new.

An item asks for all its neighbours anew where its anchor moved, its own feature changed, or more of its neighbours' did than it has spare
ones. Every other item is asked against the changed features alone: one of them enters where it beats the last that the item knows. Below
that last one nothing is known, so a row that lost some is not filled up by what changed. What is missed is a feature that did not change
and was not known, but would be among the K best now that the anchor moved by less than the bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rectifier_core.affinity.affinity import (
    SPARE,
    FoundRows,
    index_features,
    needs_compact,
    neighbours_of,
    number_of_lists,
    scored,
    with_own,
)
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.inverted_lists import (
    InvertedLists,
    Lists,
    build_news,
    by_likeness,
    fill_lists,
    improve,
    one_list,
)
from rectifier_core.affinity.top_k import Found, in_threads
from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.numerics import Progress, row_blocks, silent
from rectifier_core.base.records import NO_NEIGHBOUR, Affinity, Projection
from rectifier_core.base.seeding import derive_seed, generator
from rectifier_core.incremental.carried import Carried

FEW = 2048
"""Up to so many changed features are held against every item: lists of them would save little."""
TUNED_ON = 2000
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
    stays, made = carried.same & projection.projected.any(axis=1), FoundRows.of(len(carried.same), config)
    (held, anew), asking = _held(earlier, carried, stays, projection, config, still), projection.target.any(axis=1)
    full, part = (np.flatnonzero(asking & x) for x in (anew, ~anew))
    whole = _index(earlier.lists, carried, stays, projection, config, seed, threads, memory) if len(full) else None
    changed = _news(projection, np.flatnonzero(~stays & projection.projected.any(axis=1)), held, part, config, seed)

    def ask(index: InvertedLists) -> None:
        ordered = by_likeness(index, projection.target, full, threads=threads)

        def work(block: slice) -> None:
            made.put(ordered[block], neighbours_of(projection, index, ordered[block], config))

        _through(work, len(full), config, threads, f"affinity of {projection.modality}: asked anew", progress)

    def refresh(block: slice) -> None:
        rows = part[block]
        asked = np.ascontiguousarray(projection.target[rows])
        found = _known(projection, held[rows], rows, asked, config)
        if changed is not None:
            improve(changed, asked, found)
        made.put(rows, with_own(projection, rows, _rolled(found, -_blanks(found)), asked, config))

    if whole is not None:
        ask(whole)
    _through(refresh, len(part), config, threads, f"affinity of {projection.modality}: scored anew", progress)
    recall, share = _recall(projection, made.neighbours, part, config, seed), len(part) / max(1, len(part) + len(full))
    if whole is not None:
        recall = share * recall + (1 - share) * whole.recall
    found = made.affinity(
        projection.modality, recall, f"{100 * share:.0f} % kept, {'none' if whole is None else whole.name}"
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


def _held(
    earlier: EarlierNeighbours,
    carried: Carried,
    stays: Bool,
    projection: Projection,
    config: AffinityConfig,
    still: float,
) -> tuple[Int32, Bool]:
    """What each item knew [I, W] that is still there, as rows of this run, and which items have to ask anew [I]."""
    known = earlier.affinity.neighbours
    if earlier.affinity.spare is not None:
        known = np.hstack([known, earlier.affinity.spare])
    after = np.append(carried.after(len(known)), -1).astype(np.int32)
    after[np.append(~carried.marked(stays, len(after) - 1), False)] = -1
    now = after[carried.rows(known, NO_NEIGHBOUR)]
    few = (now != NO_NEIGHBOUR).sum(axis=1) < config.num_neighbours
    moved = np.einsum("ij,ij->i", carried.rows(earlier.target, 0), projection.target) < still
    own_changed = projection.projected.any(axis=1) & ~stays
    return now, few | moved | own_changed


def _news(
    projection: Projection, fresh: Int64, held: Int32, part: Int64, config: AffinityConfig, seed: int
) -> InvertedLists | None:
    """The changed features to be held against what the rows ``part`` know; None where there are none."""
    if not len(fresh) or not len(part):
        return None
    if len(fresh) <= FEW:
        return one_list(projection.projected, fresh)
    rows = np.sort(generator(seed, "affinity", "news").choice(part, min(TUNED_ON, len(part)), replace=False))
    asked = np.ascontiguousarray(projection.target[rows])
    found, lists = _known(projection, held[rows], rows, asked, config), number_of_lists(len(fresh))
    return build_news(
        projection.projected,
        fresh,
        asked,
        found,
        config.target_recall,
        num_lists=lists,
        seed=derive_seed(seed, "affinity", "news"),
    )


def _known(projection: Projection, held: Int32, rows: Int64, asked: Float32, config: AffinityConfig) -> Found:
    """What the items ``rows`` know of others' features, scored anew and sorted; in front of it as many blanks, better than all, as fill the
    row. So the last of a row is the last that is known, and what enters pushes it out."""
    found = scored(
        projection, np.where(held == rows[:, None], NO_NEIGHBOUR, held), asked, config.num_neighbours + SPARE
    )
    found = _rolled(found, _blanks(found))
    found[1][found[0] == NO_NEIGHBOUR] = np.inf
    return found


def _blanks(found: Found) -> Int64:
    return np.asarray((found[0] == NO_NEIGHBOUR).sum(axis=1), np.int64)


def _rolled(found: Found, by: Int64) -> Found:
    """Each row moved right by its own number of places, what falls off coming in again at the other end; blanks at the end are worst."""
    width = found[0].shape[1]
    at = (np.arange(width) - by[:, None]) % width
    items, scores = np.take_along_axis(found[0], at, axis=1), np.take_along_axis(found[1], at, axis=1)
    scores[items == NO_NEIGHBOUR] = -np.inf
    return items, scores


def _through(
    work: Callable[[slice], None], count: int, config: AffinityConfig, threads: int, what: str, progress: Progress
) -> None:
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

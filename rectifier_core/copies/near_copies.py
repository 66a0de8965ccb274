"""Rows of a large matrix that are nearly the same. A forest over a random sketch finds candidate pairs, and the rows decide.

Source: random projection (Johnson and Lindenstrauss, 1984) for the sketch, random projection trees split at the median (Dasgupta and
Freund, STOC 2008) for the candidates. A median split keeps every tree balanced, so the work is n log n however the rows cluster. The buckets
of locality-sensitive hashing would grow with the clusters.
Differs from the paper: trees split along the coordinates of one sketch, not along a new direction at each node.

Rows are compared at unit length by their squared distance, 2 (1 - cosine), in units of the distance of two random rows. Where all rows
share a large common part, all cosines are near 1 and do not separate rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from rectifier_core.base.arrays import Bool, Float32, Float64, Int64
from rectifier_core.base.numerics import Progress, row_blocks, silent, unit_rows
from rectifier_core.base.seeding import generator
from rectifier_core.copies.config import CopiesConfig

SKETCH_SIZE = 32
# Of the pairs at the very bound, six in a million have a sketched squared distance beyond this multiple of it.
SLACK = 2.5
# Identical up to rounding to half precision. Used where a chain of small differences joins rows that are far apart.
TIGHT = 1e-4
SMALLEST_BOUND = 1e-10
NEAR_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """``rows`` int64 [P], ascending: present and not zero. ``points`` [P, SKETCH_SIZE] are their projections. ``spread`` is the mean squared
    distance of unit rows from their mean."""

    rows: Int64
    points: Float32
    spread: float

    def bound(self, search: CopiesConfig) -> float:
        """The squared distance up to which rows are copies."""
        return max(2 * (1 - search.threshold) * self.spread, SMALLEST_BOUND)

    def only(self, chosen: Bool) -> Sketch:
        """The chosen [P] rows, in the same units of distance."""
        return Sketch(rows=self.rows[chosen], points=np.ascontiguousarray(self.points[chosen]), spread=self.spread)


def label_copies(
    features: Float32, sketch: Sketch, search: CopiesConfig, *, seed: int, name: str, progress: Progress = silent
) -> Int64:
    """A label for each row of the sketch, int64 [P]: rows with one label are near copies.

    ``features`` [I, D] float32 may be a memory map; only the sketch's rows are read. Labels are the
    connected components of "is a near copy of". Where a component is wider than the bound, only rows that are identical up to rounding
    share a label. The outcome does not depend on the order of rows or on ``block_rows``.
    """
    forest = _Forest(features, sketch.rows, sketch.points, sketch.bound(search), search)
    for tree in range(search.num_trees):
        forest.grow(generator(seed, "copies", name, "tree", tree).permutation(SKETCH_SIZE))
        progress(f"looking for copies in {name}", tree + 1, search.num_trees)
    return _compact(sketch.points, forest.loose, forest.tight, sketch.bound(search))


def near_any(sketch: Sketch, asked: Bool, search: CopiesConfig) -> Bool:
    """The rows that may be copies of a row in ``asked`` [P], by sketch: [P] bool."""
    near = asked.copy()
    if asked.any():
        # The bound is small against the distances of points, so the tree skips nearly all of them.
        tree, farthest = cKDTree(sketch.points[asked]), float(np.sqrt(SLACK * sketch.bound(search)))
        for block in row_blocks(len(near), NEAR_ROWS):
            found, _ = tree.query(sketch.points[block], distance_upper_bound=farthest, workers=torch.get_num_threads())
            near[block] |= np.isfinite(found)
    return near


def sketch_rows(
    features: Float32, present: Bool, search: CopiesConfig, *, seed: int, name: str, progress: Progress = silent
) -> Sketch:
    """The sketch of the rows of ``features`` [I, D] that are ``present`` [I] and not zero. Each point depends on its own row alone.

    A matrix product may sum a row in another order at the edge of a block. Summed in 64 bits and rounded to 32, equal rows get equal points
    all the same.
    """
    width, block_rows, rng = features.shape[1], search.block_rows, generator(seed, "copies", name, "sketch")
    directions = rng.standard_normal((width, SKETCH_SIZE)) / np.sqrt(SKETCH_SIZE)
    sketch, rows = np.empty((int(present.sum()), SKETCH_SIZE), np.float32), np.empty(int(present.sum()), np.int64)
    total, done = np.zeros(width), 0
    for block in row_blocks(len(present), block_rows):
        there = np.flatnonzero(present[block])
        if not len(there):
            continue
        few = 4 * len(there) < block.stop - block.start
        unit = unit_rows(np.asarray(features[there + block.start] if few else features[block][there], dtype=np.float32))
        there, unit = (there, unit) if unit.any(axis=1).all() else (there[unit.any(axis=1)], unit[unit.any(axis=1)])
        rows[done : done + len(there)] = there + block.start
        sketch[done : done + len(there)] = unit.astype(np.float64) @ directions
        total += unit.sum(axis=0, dtype=np.float64)
        done += len(there)
        progress("sketching rows", block.stop, len(present))
    mean = total / max(1, done)
    return Sketch(rows=rows[:done], points=sketch[:done], spread=max(0.0, 1.0 - float(mean @ mean)))


class _Forest:
    """Trees over one sketch. ``loose`` and ``tight`` label the components found so far, at the bound and at ``TIGHT`` times it."""

    def __init__(self, features: Float32, rows: Int64, sketch: Float32, bound: float, search: CopiesConfig) -> None:
        self.features, self.rows, self.sketch, self.bound, self.search = features, rows, sketch, bound, search
        self.loose = np.arange(len(rows))
        self.tight = np.arange(len(rows))
        self._edges: dict[str, list[Int64]] = {"loose": [], "tight": []}

    def grow(self, order: Int64) -> None:
        """Grow one tree, splitting by the sketch's coordinates in ``order``, and join the components it links."""
        stack = [(np.arange(len(self.rows)), 0, self.bound)] if len(self.rows) else []
        while stack:
            members, depth, bound = stack.pop()
            if len(members) <= self.search.leaf_rows:
                self._compare(members)
                continue
            values = self.sketch[members, order[depth % SKETCH_SIZE]]
            low, high = float(values.min()), float(values.max())
            # A ball of half the bound's radius very rarely spans more than this on any coordinate.
            if high - low <= 5 * np.sqrt(bound / SKETCH_SIZE) and (self._is_ball(members, bound) or low == high):
                self._gather_round(members, self.loose if bound == self.bound else self.tight)
                bound = TIGHT * self.bound
                if low == high or self._is_ball(members, bound):
                    continue
            middle = np.median(values)
            left = values < middle
            left = left if left.any() else values <= middle
            stack += [(members[left], depth + 1, bound), (members[~left], depth + 1, bound)]
        self.loose = _united(self.loose, self._edges["loose"])
        self.tight = _united(self.tight, self._edges["tight"])
        self._edges = {"loose": [], "tight": []}

    def _is_ball(self, members: Int64, bound: float) -> bool:
        points = self.sketch[members]
        return float(_square_lengths(points - points.mean(axis=0)).max()) <= bound / 4

    def _compare(self, members: Int64) -> None:
        """Compare every pair of a leaf by sketch, then near pairs of different components by their rows."""
        points = self.sketch[members]
        distance = _square_distances(points - points.mean(axis=0))
        loose, tight = self.loose[members], self.tight[members]
        asked = (distance <= SLACK * self.bound) & (loose[:, None] != loose)
        asked |= (distance <= SLACK * TIGHT * self.bound) & (tight[:, None] != tight)
        there = np.flatnonzero(asked.any(axis=1))
        if not len(there):
            return
        members, asked = members[there], asked[np.ix_(there, there)]
        unit = self._unit(members)
        exact = _square_distances(unit - unit.mean(axis=0))
        for name, bound in (("loose", self.bound), ("tight", TIGHT * self.bound)):
            self._edges[name].append(_spanning(members, asked & (exact <= bound)))

    def _gather_round(self, members: Int64, known: Int64) -> None:
        """Compare rows that lie close together with the one in their middle, which needs one pass instead of all pairs."""
        if (known[members] == known[members[0]]).all():
            return
        points = self.sketch[members]
        middle = members[int(np.argmin(_square_lengths(points - points.mean(axis=0))))]
        centre = self._unit(np.array([middle]))
        for block in row_blocks(len(members), self.search.block_rows):
            distance = _square_lengths(self._unit(members[block]) - centre)
            for name, bound in (("loose", self.bound), ("tight", TIGHT * self.bound)):
                near = members[block][distance <= bound]
                self._edges[name].append(np.stack([near, np.full(len(near), middle)]))

    def _unit(self, members: Int64) -> Float64:
        return unit_rows(np.asarray(self.features[self.rows[members]], dtype=np.float32)).astype(np.float64)


def _square_lengths(points: Float32 | Float64) -> Float32 | Float64:
    lengths: Float32 | Float64 = np.einsum("ij,ij->i", points, points)
    return lengths


def _square_distances(points: Float32 | Float64) -> Float32 | Float64:
    """Squared distances of all pairs. ``points`` should be centred, or rounding hides small distances."""
    lengths = _square_lengths(points)
    distances: Float32 | Float64 = lengths[:, None] + lengths - 2 * (points @ points.T)
    return distances


def _spanning(members: Int64, linked: Bool) -> Int64:
    """Pairs int64 [2, edges] of ``members`` with the same connected components as ``linked`` [n, n]: at most 8 n edges."""
    left, right = np.nonzero(np.triu(linked, 1))
    if len(left) <= 8 * len(members):
        return np.stack([members[left], members[right]])
    _, label = connected_components(linked, directed=False)
    _, first = np.unique(label, return_index=True)
    return np.stack([members, members[first[label]]])


def _united(labels: Int64, edges: list[Int64]) -> Int64:
    """Labels after joining the components at both ends of every edge."""
    if not edges:
        return labels
    ends = labels[np.concatenate(edges, axis=1)]
    size = int(labels.max(initial=-1)) + 1
    graph = sparse.coo_array((np.ones(ends.shape[1], np.bool_), (ends[0], ends[1])), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return np.asarray(component[labels], dtype=np.int64)


def _compact(sketch: Float32, loose: Int64, tight: Int64, bound: float) -> Int64:
    """The loose label where its component lies within the bound of its middle, else the tight label by its bound, else a label of its own."""
    alone = len(loose) + np.arange(len(loose))
    label = np.where(_is_wide(sketch, tight, TIGHT * bound), alone, tight + 2 * len(loose))
    label = np.where(_is_wide(sketch, loose, bound), label, loose)
    return np.asarray(np.unique(label, return_inverse=True)[1], dtype=np.int64)


def _is_wide(sketch: Float32, labels: Int64, bound: float) -> Bool:
    """Whether a row's component reaches farther than the bound from its middle, by sketch: [P] bool."""
    size = int(labels.max(initial=-1)) + 1
    counts = np.bincount(labels, minlength=size)
    several = np.flatnonzero(counts[labels] > 1)
    of, farthest = labels[several], np.zeros(size)
    points = sketch[several].astype(np.float64)
    centre = (
        np.stack([np.bincount(of, weights=column, minlength=size) for column in points.T], axis=1)
        / np.maximum(counts, 1)[:, None]
    )
    np.maximum.at(farthest, of, _square_lengths(points - centre[of]))
    return np.asarray(farthest[labels] > bound)

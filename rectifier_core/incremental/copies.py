"""Groups of copies after few features changed: changed rows are compared with everything, the other groups stay."""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Anchors, Copies
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.copies.copies import judge_groups
from rectifier_core.copies.near_copies import Sketch, label_copies, near_any, sketch_rows
from rectifier_core.incremental.row_mapping import RowMapping, gathered


def update_copies(
    previous: Copies,
    previous_sketch: Sketch,
    mapping: RowMapping,
    features: Float32,
    present: Bool,
    anchors: Anchors,
    config: CopiesConfig,
    *,
    seed: int,
    progress: Progress = silent,
) -> tuple[Copies, Sketch]:
    """The groups of this run and the sketch of its rows.

    Searched again are changed rows, rows near one of them by sketch, and whole groups that lost a member or are near a changed row. Distances
    keep the unit of the previous run. Placeholders are judged by today's anchors.
    """
    sketch = _sketch(previous_sketch, mapping, features, present, config, seed, previous.modality)
    changed: Bool = ~mapping.same[sketch.rows]
    near = near_any(sketch, changed, config)
    group = mapping.rows(previous.group, -1)[sketch.rows]
    group[changed] = -1
    touched = np.zeros(len(previous.unlike) + 1, np.bool_)
    touched[group[near]] = True
    touched[previous.group[~mapping.marked(mapping.same, len(previous.group))]] = True
    touched[-1] = False
    again: Bool = near | touched[group]
    found = label_copies(features, sketch.only(again), config, seed=seed, name=previous.modality, progress=progress)
    labels = _labels(group)
    labels[again] = found + len(labels) + len(previous.unlike)
    return judge_groups(previous.modality, sketch.rows, labels, anchors, config, seed=seed), sketch


def _labels(group: Int32) -> Int64:
    """The group's number, or, for a row that is alone, a number of its own."""
    alone = group < 0
    labels = group.astype(np.int64) + len(group)
    labels[alone] = np.flatnonzero(alone)
    return labels


def _sketch(
    previous: Sketch, mapping: RowMapping, features: Float32, present: Bool, config: CopiesConfig, seed: int, name: str
) -> Sketch:
    """The sketch of this run's rows; only changed rows are read."""
    fresh = sketch_rows(features, present & ~mapping.same, config, seed=seed, name=name)
    place = np.full(int(mapping.previous.max(initial=-1)) + 2, -1, np.int64)
    inside = previous.rows < len(place) - 1
    place[previous.rows[inside]] = np.flatnonzero(inside)
    kept = np.flatnonzero(mapping.same & (place[mapping.previous] >= 0))
    rows = np.concatenate([kept, fresh.rows])
    points = np.concatenate([gathered(previous.points, place[mapping.previous[kept]]), fresh.points])
    order = np.argsort(rows, kind="stable")
    return Sketch(rows=rows[order], points=np.ascontiguousarray(points[order]), spread=previous.spread)

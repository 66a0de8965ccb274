"""Groups of copies after few features changed: what changed is held against everything, the rest is left as it was."""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Anchors, Copies
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.copies.copies import judge_groups
from rectifier_core.copies.near_copies import Sketch, label_copies, near_any, sketch_rows
from rectifier_core.incremental.carried import Carried, gathered


def update_copies(
    before: Copies,
    sketch_before: Sketch,
    carried: Carried,
    features: Float32,
    present: Bool,
    anchors: Anchors,
    config: CopiesConfig,
    *,
    seed: int,
    progress: Progress = silent,
) -> tuple[Copies, Sketch]:
    """The groups now and the sketch that they were found by.

    Looked at anew are the rows that changed, those near one of them by sketch, and whole groups that lost a member or are near one;
    distances stay in units of the earlier run. Placeholders are judged anew throughout, by the anchors of now.
    """
    sketch = _sketch(sketch_before, carried, features, present, config, seed, before.modality)
    changed: Bool = ~carried.same[sketch.rows]
    near = near_any(sketch, changed, config)
    group = carried.rows(before.group, -1)[sketch.rows]
    group[changed] = -1
    touched = np.zeros(len(before.unlike) + 1, np.bool_)
    touched[group[near]] = True
    touched[before.group[~carried.marked(carried.same, len(before.group))]] = True
    touched[-1] = False
    anew: Bool = near | touched[group]
    found = label_copies(features, sketch.only(anew), config, seed=seed, name=before.modality, progress=progress)
    labels = _labels(group)
    labels[anew] = found + len(labels) + len(before.unlike)
    return judge_groups(before.modality, sketch.rows, labels, anchors, config, seed=seed), sketch


def _labels(group: Int32) -> Int64:
    """The group's number, or, for a row that is alone, one of its own."""
    alone = group < 0
    labels = group.astype(np.int64) + len(group)
    labels[alone] = np.flatnonzero(alone)
    return labels


def _sketch(
    before: Sketch, carried: Carried, features: Float32, present: Bool, config: CopiesConfig, seed: int, name: str
) -> Sketch:
    fresh = sketch_rows(features, present & ~carried.same, config, seed=seed, name=name)
    place = np.full(int(carried.before.max(initial=-1)) + 2, -1, np.int64)
    inside = before.rows < len(place) - 1
    place[before.rows[inside]] = np.flatnonzero(inside)
    kept = np.flatnonzero(carried.same & (place[carried.before] >= 0))
    rows = np.concatenate([kept, fresh.rows])
    points = np.concatenate([gathered(before.points, place[carried.before[kept]]), fresh.points])
    order = np.argsort(rows, kind="stable")
    return Sketch(rows=rows[order], points=np.ascontiguousarray(points[order]), spread=before.spread)

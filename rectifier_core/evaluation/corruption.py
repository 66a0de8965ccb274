"""Known damage to features: seeded, always from the undamaged array, with the damaged rows as truth.

The random stream is named by kind and modality, so modalities are damaged independently under one seed.

"segments" swaps a contiguous slice of the columns where an item is one vector, as when an embedding is joined from parts and one part comes
from another item. ``swap_runs`` damages sequences in the layout of ``tasks.source.rows.sequences``. Their pooled features follow as the means.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.records import Catalog
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.config import DamageKind

SCALE_FACTORS = (0.1, 10.0)
"""A row of the wrong scale is multiplied by one of them, at even odds."""
PORTION = 0.5
"""The contiguous part of a row's columns, or of a sequence's segments, that segment damage replaces."""


def damage_catalog(
    catalog: Catalog, kind: DamageKind, shares: Mapping[str, float], *, seed: int, category: Int32 | None = None
) -> tuple[Catalog, dict[str, Bool]]:
    """``catalog`` with ``shares[m]`` of the present rows of modality m damaged, and the damaged rows {m: [I]}."""
    features, present = dict(catalog.features), dict(catalog.present)
    truth = {name: np.zeros(len(catalog.item_ids), np.bool_) for name in features}
    for name, share in shares.items():
        features[name], truth[name] = damage_features(
            features[name], present[name], kind, share, seed=seed, name=name, groups=category
        )
        if kind == "drop":
            present[name] = present[name] & ~truth[name]
    return Catalog(item_ids=catalog.item_ids, features=features, present=present), truth


def damage_features(
    features: Float32,
    present: Bool,
    kind: DamageKind,
    share: float,
    *,
    seed: int,
    name: str,
    groups: Int32 | None = None,
) -> tuple[Float32, Bool]:
    """A copy of ``features`` [I, D] with ``share`` of the present rows damaged, and the damaged rows [I].

    - "swap": rows are exchanged. "within": the same inside the groups of ``groups`` [I]. A row without a partner is not damaged.
    - "noise": Gaussian noise with the standard deviation of each column.
    - "scale": the direction is right, the length is wrong by one of ``SCALE_FACTORS``.
    - "drop": the row is zero.
    - "segments": ``PORTION`` of the columns is another row's.
    """
    rng = generator(seed, "corruption", kind, name)
    candidates = np.flatnonzero(present)
    rows = rng.choice(candidates, round(share * len(candidates)), replace=False)
    damaged, width = features.copy(), features.shape[1]
    if kind == "noise":
        noise = rng.standard_normal((len(rows), width))
        damaged[rows] += (features[present].std(axis=0, dtype=np.float64) * noise).astype(np.float32)
    elif kind == "scale":
        damaged[rows] *= rng.choice(np.asarray(SCALE_FACTORS, np.float32), len(rows))[:, None]
    elif kind == "drop":
        damaged[rows] = 0
    elif kind == "segments":
        length = _part(width)
        rows, donors = _swapped(rows if length else rows[:0], np.zeros(len(features), np.int32), rng)
        columns = rng.integers(0, width - length + 1, len(rows))[:, None] + np.arange(length)
        damaged[rows[:, None], columns] = features[donors[:, None], columns]
    else:
        assert kind == "swap" or groups is not None, "damage within categories needs the categories"
        everything = np.zeros(len(features), np.int32)
        rows, donors = _swapped(rows, everything if kind == "swap" or groups is None else groups, rng)
        damaged[rows] = features[donors]
    truth = np.zeros(len(features), np.bool_)
    truth[rows] = True
    return damaged, truth


def swap_runs(segments: Float32, offsets: Int64, share: float, *, seed: int, name: str) -> tuple[Float32, Bool]:
    """Sequences [S, D] with a run of segments of ``share`` of the items taken from another item, and the swapped segments [S].

    Item i has the rows ``offsets[i]`` up to ``offsets[i + 1]``. Only items with at least two segments are damaged. A donor that is shorter
    than the run is repeated.
    """
    rng = generator(seed, "corruption", "runs", name)
    counts = np.diff(offsets)
    candidates = np.flatnonzero(counts >= 2)
    chosen = rng.choice(candidates, round(share * len(candidates)), replace=False)
    swapped, truth = segments.copy(), np.zeros(len(segments), np.bool_)
    for item, donor in zip(*_swapped(chosen, np.zeros(len(counts), np.int32), rng), strict=True):
        length = _part(int(counts[item]))
        first = int(offsets[item]) + int(rng.integers(0, counts[item] - length + 1))
        swapped[first : first + length] = segments[offsets[donor] + np.arange(length) % counts[donor]]
        truth[first : first + length] = True
    return swapped, truth


def _swapped(rows: Int64, groups: Int32, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """The ``rows`` that have a partner in their group, and the row that each one receives: a random cycle of every group."""
    donors = rows.copy()
    for group in np.unique(groups[rows]):
        cycle = rng.permutation(np.flatnonzero(groups[rows] == group))
        donors[cycle] = rows[np.roll(cycle, 1)]
    moved = donors != rows
    return rows[moved], donors[moved]


def _part(whole: int) -> int:
    """``PORTION`` of ``whole``, at least 1 and less than the whole where possible."""
    return min(max(1, round(PORTION * whole)), whole - 1)

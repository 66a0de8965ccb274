"""Known damage to features: seeded, always from the undamaged array, with the damaged rows as truth.

``damage_catalog`` is the entry point; each function below it damages one modality in one way. The random stream is named by kind and
modality, so modalities are damaged independently under one seed.

"segments" swaps a contiguous slice of the columns where an item is one vector, as when an embedding is joined from parts and one part comes
from another item. ``swap_runs`` damages sequences in the layout of ``tasks.source.sequences``; their pooled features follow as the means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.records import Catalog
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.config import DamageKind

DAMAGE_KINDS: tuple[DamageKind, ...] = get_args(DamageKind)
NOISE_LEVEL = 1.0
"""Standard deviation of added noise, in units of each column's own over the present rows: as much noise as there is signal."""
SCALE_FACTORS = (0.1, 10.0)
"""What a row of the wrong scale is multiplied by, one or the other at even odds."""
PORTION = 0.5
"""The contiguous part of a row's columns, or of a sequence's segments, that segment damage replaces."""


def damage_catalog(
    catalog: Catalog, kind: DamageKind, shares: Mapping[str, float], *, seed: int, category: Int32 | None = None
) -> tuple[Catalog, dict[str, Bool]]:
    """``catalog`` with ``shares[m]`` of the present rows of modality m damaged, and which rows {m: [I]} were.

    "within" keeps swaps inside the groups of ``category`` [I]; the other kinds do not read it.
    """
    features, present = dict(catalog.features), dict(catalog.present)
    truth = {name: np.zeros(len(catalog.item_ids), np.bool_) for name in features}
    for name, share in shares.items():
        before, there = features[name], present[name]
        if kind == "within":
            assert category is not None, "damage within categories needs the categories"
            features[name], truth[name] = swap_within(before, there, category, share, seed=seed, name=name)
        elif kind == "drop":
            features[name], present[name], truth[name] = drop_features(before, there, share, seed=seed, name=name)
        else:
            features[name], truth[name] = _ONE_MODALITY[kind](before, there, share, seed=seed, name=name)
    return Catalog(item_ids=catalog.item_ids, features=features, present=present), truth


def derangement(count: int, rng: np.random.Generator) -> Int64:
    """A random cyclic permutation of ``range(count)``: no element keeps its place (``count`` of at least 2)."""
    if count < 2:
        raise ValueError(f"count: wanted at least 2 to move everything, got {count}")
    cycle, moved = rng.permutation(count), np.empty(count, np.int64)
    moved[cycle] = np.roll(cycle, 1)
    return moved


def swap_features(features: Float32, present: Bool, share: float, *, seed: int, name: str) -> tuple[Float32, Bool]:
    """``features`` [I, D] with ``share`` of the present rows swapped among themselves, and which rows [I] were.

    ``name`` (the modality) separates the random streams, so that two modalities are damaged independently under one seed.
    """
    rng = generator(seed, "corruption", "swap", name)
    swapped, chosen, truth = _chosen(features, present, share, rng, at_least=2)
    if len(chosen):
        swapped[chosen] = features[chosen[derangement(len(chosen), rng)]]
    return swapped, truth


def swap_within(
    features: Float32, present: Bool, groups: Int32, share: float, *, seed: int, name: str
) -> tuple[Float32, Bool]:
    """As ``swap_features``, but every swap stays within one group of ``groups`` [I]; a chosen row alone in its group stays as it is."""
    rng = generator(seed, "corruption", "within", name)
    candidates = np.flatnonzero(present)
    chosen = rng.choice(candidates, round(share * len(candidates)), replace=False)
    swapped, truth = features.copy(), np.zeros(len(features), np.bool_)
    for group in np.unique(groups[chosen]):
        rows = chosen[groups[chosen] == group]
        if len(rows) >= 2:
            swapped[rows] = features[rows[derangement(len(rows), rng)]]
            truth[rows] = True
    return swapped, truth


def shift_blocks(
    features: Float32, present: Bool, share: float, *, seed: int, name: str, longest: int = 200, most_shift: int = 3
) -> tuple[Float32, Bool]:
    """Blocks of present rows, about ``share`` in all, each rolled by one to ``most_shift`` places, as a feed with lost lines leaves them.

    Blocks are 20 to ``longest`` rows long in the order of the rows, and never overlap.
    """
    rng = generator(seed, "corruption", "blocks", name)
    rows = np.flatnonzero(present)
    shifted, truth = features.copy(), np.zeros(len(features), np.bool_)
    left = round(share * len(rows))
    for _ in range(100 * (1 + left)):
        if left < 2:
            break
        length = min(left, int(rng.integers(20, longest)), len(rows))
        start = int(rng.integers(0, len(rows) - length + 1))
        block = rows[start : start + length]
        if not truth[block].any():
            shifted[block] = features[np.roll(block, int(rng.integers(1, min(most_shift, length - 1) + 1)))]
            truth[block] = True
            left -= length
    return shifted, truth


def add_noise(
    features: Float32, present: Bool, share: float, *, seed: int, name: str, level: float = NOISE_LEVEL
) -> tuple[Float32, Bool]:
    """``share`` of the present rows with Gaussian noise added, ``level`` times each column's standard deviation over the present rows."""
    rng = generator(seed, "corruption", "noise", name)
    noisy, chosen, truth = _chosen(features, present, share, rng)
    if len(chosen):
        spread = level * features[present].std(axis=0, dtype=np.float64)
        noisy[chosen] += (spread * rng.standard_normal((len(chosen), features.shape[1]))).astype(np.float32)
    return noisy, truth


def wrong_scale(
    features: Float32, present: Bool, share: float, *, seed: int, name: str, factors: tuple[float, ...] = SCALE_FACTORS
) -> tuple[Float32, Bool]:
    """``share`` of the present rows multiplied by one of ``factors`` each: the direction is right, the length is not."""
    rng = generator(seed, "corruption", "scale", name)
    scaled, chosen, truth = _chosen(features, present, share, rng)
    scaled[chosen] *= rng.choice(np.asarray(factors, np.float32), len(chosen))[:, None]
    return scaled, truth


def drop_features(
    features: Float32, present: Bool, share: float, *, seed: int, name: str
) -> tuple[Float32, Bool, Bool]:
    """``share`` of the present rows gone: zeros, the new ``present`` [I] and which rows [I] went."""
    dropped, chosen, truth = _chosen(features, present, share, generator(seed, "corruption", "drop", name))
    dropped[chosen] = 0
    return dropped, present & ~truth, truth


def swap_slices(
    features: Float32, present: Bool, share: float, *, seed: int, name: str, portion: float = PORTION
) -> tuple[Float32, Bool]:
    """``share`` of the present rows, each with a contiguous ``portion`` of its columns, anywhere, taken from another of them."""
    rng = generator(seed, "corruption", "segments", name)
    swapped, chosen, truth = _chosen(features, present, share, rng, at_least=2)
    width = features.shape[1]
    length = _part(width, portion)
    if len(chosen) and length:
        start = rng.integers(0, width - length + 1, len(chosen))
        columns = start[:, None] + np.arange(length)
        donors = chosen[derangement(len(chosen), rng)]
        swapped[chosen[:, None], columns] = features[donors[:, None], columns]
        return swapped, truth
    return swapped, np.zeros_like(truth)


def swap_runs(
    segments: Float32, offsets: Int64, share: float, *, seed: int, name: str, portion: float = PORTION
) -> tuple[Float32, Bool]:
    """Sequences [S, D] with a contiguous ``portion`` of the segments of ``share`` of the items taken from another item's, and which were.

    Item i has the rows ``offsets[i]`` up to ``offsets[i + 1]``; only items with at least two segments are damaged. A donor that is shorter
    than the run is repeated. The truth is by segment: [S].
    """
    rng = generator(seed, "corruption", "runs", name)
    counts = np.diff(offsets)
    candidates = np.flatnonzero(counts >= 2)
    count = round(share * len(candidates))
    swapped, truth = segments.copy(), np.zeros(len(segments), np.bool_)
    if count < 2:
        return swapped, truth
    chosen = rng.choice(candidates, count, replace=False)
    for item, donor in zip(chosen, chosen[derangement(count, rng)], strict=True):
        length = _part(int(counts[item]), portion)
        first = int(offsets[item]) + int(rng.integers(0, counts[item] - length + 1))
        swapped[first : first + length] = segments[offsets[donor] + np.arange(length) % counts[donor]]
        truth[first : first + length] = True
    return swapped, truth


def _chosen(
    features: Float32, present: Bool, share: float, rng: np.random.Generator, *, at_least: int = 1
) -> tuple[Float32, Int64, Bool]:
    """A copy of the features, the rows to damage (none when fewer than ``at_least``), and the same as a mask."""
    candidates = np.flatnonzero(present)
    count = round(share * len(candidates))
    chosen = rng.choice(candidates, count if count >= at_least else 0, replace=False)
    truth = np.zeros(len(features), np.bool_)
    truth[chosen] = True
    return features.copy(), chosen, truth


def _part(whole: int, portion: float) -> int:
    """``portion`` of ``whole``, at least 1 and less than the whole where possible."""
    return min(max(1, round(portion * whole)), whole - 1)


_ONE_MODALITY = {"swap": swap_features, "noise": add_noise, "scale": wrong_scale, "segments": swap_slices}

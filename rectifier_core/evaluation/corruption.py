"""Known damage: features mixed up among items, from the pristine array, seeded, the damaged set returned as truth."""

from __future__ import annotations

import numpy as np

from rectifier_core.records import Bool, Float32, Int32, Int64
from rectifier_core.seeding import generator


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
    candidates = np.flatnonzero(present)
    count = round(share * len(candidates))
    swapped, truth = features.copy(), np.zeros(len(features), np.bool_)
    if count >= 2:
        chosen = rng.choice(candidates, count, replace=False)
        swapped[chosen] = features[chosen[derangement(count, rng)]]
        truth[chosen] = True
    return swapped, truth


def swap_within(features: Float32, present: Bool, groups: Int32, share: float, *, seed: int, name: str) -> tuple[Float32, Bool]:
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

"""Known damage: features swapped among items, from the pristine array, seeded, the damaged set returned as truth."""

from __future__ import annotations

import numpy as np

from rectifier_core.records import Bool, Float32, Int64
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

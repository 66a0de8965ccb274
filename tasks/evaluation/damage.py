"""Damage to the features of a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int32
from rectifier_core.base.records import Catalog
from rectifier_core.evaluation.config import DamageKind
from rectifier_core.evaluation.corruption import damage_catalog, swap_runs
from tasks.stages.sequences import sequence_modalities
from tasks.stages.trust import category_numbers
from tasks.store.store import Ref


def damage_source(
    source: Ref, catalog: Catalog, kind: DamageKind, share: float, modalities: Sequence[str], *, seed: int
) -> tuple[Catalog, dict[str, Bool]]:
    """The ``catalog`` of ``source`` with a share of ``modalities`` damaged, and which rows {m: [I]} were.

    In a sequence modality, segment damage swaps runs of segments, and the feature is the mean of the new segments.
    """
    sequences = [m for m in modalities if kind == "segments" and m in sequence_modalities(source)]
    shares = {m: share for m in modalities if m not in sequences}
    damaged, truth = damage_catalog(
        catalog, kind, shares, seed=seed, category=_groups(source) if kind == "within" else None
    )
    pooled = dict(damaged.features)
    for m in sequences:
        pooled[m], truth[m] = _swap_segments(source, m, catalog.features[m], share, seed)
    return replace(damaged, features=pooled), truth


def _swap_segments(source: Ref, modality: str, features: Float32, share: float, seed: int) -> tuple[Float32, Bool]:
    offsets = np.asarray(source.array(f"offsets-{modality}"))
    segments, swapped = swap_runs(
        np.asarray(source.array(f"segments-{modality}")), offsets, share, seed=seed, name=modality
    )
    pooled, truth = features.copy(), np.zeros(len(features), np.bool_)
    truth[np.searchsorted(offsets, np.flatnonzero(swapped), side="right") - 1] = True
    for item in np.flatnonzero(truth):
        pooled[item] = segments[offsets[item] : offsets[item + 1]].mean(axis=0, dtype=np.float64)
    return pooled, truth


def _groups(source: Ref) -> Int32 | None:
    """The items' categories as numbers [I], each item without one in its own group; None where the catalog has no categories."""
    category = category_numbers(source)
    if category is None:
        return None
    return np.where(category < 0, -1 - np.arange(len(category), dtype=np.int32), category).astype(np.int32)

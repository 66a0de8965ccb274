"""The features that a recommender may read instead of the raw ones: the rectified ones, and the controls that they must beat.

- ``rectified``: the pipeline as configured.
- ``shuffled_anchors``: the same matching with anchors of other items, at the rectification's mean strength. Its gain is smoothing alone.
- ``smoothed``: every feature mixed at that strength with the mean of its nearest features of the same modality.
- ``smoothed_by_anchors``: the same with the items that are nearest by anchor. Behaviour smooths and nothing is matched.
- ``anchors_appended``: the raw feature with the item's anchor behind it, at equal length. Nothing is corrected.
- ``rectified_anchors_appended``: the rectified feature with the anchor behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rectifier_core.affinity.affinity import find_affinity
from rectifier_core.affinity.places import place_items
from rectifier_core.base.arrays import Bool, Features, Float32, Int32
from rectifier_core.base.numerics import row_lengths, unit_rows
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Anchors, Catalog, Interactions, Plan
from rectifier_core.base.seeding import generator
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones.item_graph import as_matrix, nearest_items
from rectifier_core.pipeline import Outcome, rectify_catalog
from rectifier_core.projection.projection import fit_projection
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.rectify import Mixing, decide_status, kept_share, rectify_rows
from rectifier_core.sinkhorn.sinkhorn import balance

VARIANTS = (
    *("raw", "rectified", "shuffled_anchors", "smoothed", "smoothed_by_anchors"),
    *("anchors_appended", "rectified_anchors_appended"),
)
HUB_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Features to train on, and ``facts`` about them by name, such as ``strength_image`` or ``mismatch_rate_text``."""

    features: Features
    present: Mapping[str, Bool]
    facts: Mapping[str, float]


def make_features(
    name: str,
    catalog: Catalog,
    training: Interactions,
    anchors: Anchors,
    config: PipelineConfig,
    *,
    seed: int,
    category: Int32 | None = None,
) -> Variant:
    """The features of one variant; ``anchors`` must come from training pairs alone."""
    if name == "raw":
        return Variant(features=catalog.features, present=catalog.present, facts={})
    if name == "anchors_appended":
        return Variant(
            features=_appended(catalog.features, catalog.present, anchors), present=catalog.present, facts={}
        )
    outcome = rectify_catalog(catalog, training, config, seed=seed, anchors=anchors, category=category)
    facts = _facts(outcome, config.rectify)
    if name in ("rectified", "rectified_anchors_appended"):
        made = outcome.rectified.features
        there = {m: status != Status.MISSING.code for m, status in outcome.rectified.status.items()}
        return Variant(
            features=made if name == "rectified" else _appended(made, there, anchors), present=there, facts=facts
        )
    strength = {m: facts[f"strength_{m}"] for m in catalog.features}
    if name == "shuffled_anchors":
        controlled = _by_shuffled_anchors(catalog, anchors, outcome, config, strength, seed)
    else:
        controlled = {m: _smoothed(name, m, catalog, anchors, config, strength[m]) for m in catalog.features}
    return Variant(
        features=controlled, present=catalog.present, facts={f"strength_{m}": x for m, x in strength.items()}
    )


def _facts(outcome: Outcome, config: RectifyConfig) -> dict[str, float]:
    """Per modality: the mean share of a feature that its donors replace, the estimated rate, and how uneven the donors' use is."""
    facts: dict[str, float] = {}
    for m, plan in outcome.plans.items():
        trust = outcome.judged.trusts[m]
        rectified = outcome.rectified.status[m] == Status.RECTIFIED.code
        kept = kept_share(trust, rectified, config)
        facts[f"strength_{m}"] = float(1 - np.nan_to_num(kept, nan=1.0).mean()) if rectified.any() else 0.0
        facts[f"rectified_share_{m}"] = float(rectified.mean())
        facts[f"mismatch_rate_{m}"] = float("nan") if trust.mismatch_rate is None else float(trust.mismatch_rate)
        facts |= {f"{name}_{m}": value for name, value in hub_statistics(plan).items()}
    return facts


def hub_statistics(plan: Plan) -> dict[str, float]:
    """How unevenly donors are used: the largest share relative to the mean, and the mass of the most used 1 %."""
    used = np.sort(plan.column_sums[np.unique(plan.indices)].astype(np.float64))[::-1]
    if not len(used) or used.sum() == 0:
        return {"hub_largest": float("nan"), "hub_mass": float("nan")}
    top = max(1, round(HUB_SHARE * len(used)))
    return {"hub_largest": float(used[0] / used.mean()), "hub_mass": float(used[:top].sum() / used.sum())}


def _appended(features: Features, present: Mapping[str, Bool], anchors: Anchors) -> dict[str, Float32]:
    return {m: append_anchors(x, present[m], anchors) for m, x in features.items()}


def append_anchors(features: Float32, present: Bool, anchors: Anchors) -> Float32:
    """The features [I, D] with the anchors [I, A] behind them, scaled to the features' mean length; zeros where not ``present``."""
    length = float(np.linalg.norm(features[present], axis=1).mean()) if present.any() else 1.0
    appended = np.concatenate([features, anchors.items * np.float32(length)], axis=1)
    appended[~present] = 0
    return np.ascontiguousarray(appended)


def shuffle_anchors(anchors: Anchors, seed: int) -> Anchors:
    """The anchors of trained items, permuted among them."""
    order = np.flatnonzero(anchors.trained)
    items = anchors.items.copy()
    items[order] = items[generator(seed, "control").permutation(order)]
    return replace(anchors, items=items)


def _by_shuffled_anchors(
    catalog: Catalog,
    anchors: Anchors,
    outcome: Outcome,
    config: PipelineConfig,
    strength: Mapping[str, float],
    seed: int,
) -> dict[str, Float32]:
    """Features matched on shuffled anchors. The modality counts as identifiable, or nothing would be mixed."""
    control, made = shuffle_anchors(anchors, seed), {}
    for m, features in catalog.features.items():
        present, placeholder = catalog.present[m], outcome.judged.copies[m].placeholder
        trust = replace(outcome.judged.trusts[m], identifiable=True)
        projection = fit_projection(m, features, present & ~placeholder, control, config.projection, seed=seed)
        places = place_items(projection, outcome.affinities[m].anchor_share)
        plan = balance(find_affinity(places, config.affinity, seed=seed), config.sinkhorn)
        constant = RectifyConfig(mix="constant", keep_original=1 - strength[m])
        status = decide_status(present, plan, trust, constant, placeholder)
        rows = slice(0, len(features))
        mixing = Mixing(plan=plan, trust=trust, lengths=row_lengths(features), config=constant)
        made[m] = rectify_rows(features, present, rows, status, mixing).features
    return made


def _smoothed(
    name: str, modality: str, catalog: Catalog, anchors: Anchors, config: PipelineConfig, strength: float
) -> Float32:
    """Features mixed with the mean of their neighbours and scaled back to their length, so only the direction is smoothed."""
    features, present = catalog.features[modality], catalog.present[modality]
    places = anchors.items
    if name == "smoothed":
        places = np.where(present[:, None], features - features[present].mean(axis=0), 0) if present.any() else features
    neighbours, _ = nearest_items(np.ascontiguousarray(places), present, config.affinity.num_neighbours + 1)
    neighbours[neighbours == np.arange(len(features))[:, None]] = -1
    graph = as_matrix(neighbours, np.ones(neighbours.shape, np.float32))
    donors = unit_rows(np.asarray(graph @ unit_rows(features), dtype=np.float32))
    mixed = unit_rows(((1 - strength) * unit_rows(features) + strength * donors).astype(np.float32))
    changed = np.any(donors != 0, axis=1) & present
    smoothed = np.where(changed[:, None], mixed * np.linalg.norm(features, axis=1, keepdims=True), features)
    return np.ascontiguousarray(smoothed, dtype=np.float32)

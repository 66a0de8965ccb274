"""The stages chained in memory: for notebooks, for evaluation, and as the flow's oracle in tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rectifier_core.affinity import AffinityConfig, find_neighbours
from rectifier_core.anchors import AnchorsConfig, train_anchors
from rectifier_core.numerics import Progress, silent
from rectifier_core.projection import ProjectionConfig, fit_projection
from rectifier_core.records import Affinity, Anchors, Catalog, Float32, Interactions, Plan, Projection, Rectified, Trust
from rectifier_core.rectify import RectifyConfig, decide_status, rectify_rows
from rectifier_core.sinkhorn import SinkhornConfig, balance
from rectifier_core.trust import TrustConfig, judge_trust


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """One frozen config per stage, defaults throughout."""

    anchors: AnchorsConfig = field(default_factory=AnchorsConfig)
    projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    affinity: AffinityConfig = field(default_factory=AffinityConfig)
    sinkhorn: SinkhornConfig = field(default_factory=SinkhornConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)
    rectify: RectifyConfig = field(default_factory=RectifyConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """Everything found about one modality."""

    projection: Projection
    affinity: Affinity
    plan: Plan
    trust: Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The rectified features and every record on the way to them."""

    anchors: Anchors
    matched: dict[str, Matched]
    rectified: Rectified


def match_modality(
    modality: str, catalog: Catalog, anchors: Anchors, config: PipelineConfig, *, seed: int, progress: Progress = silent
) -> Matched:
    """Project, search, balance and judge one modality."""
    projection = fit_projection(
        modality, catalog.features[modality], catalog.present[modality], anchors, config.projection, seed=seed, progress=progress
    )
    affinity = find_neighbours(projection, config.affinity, seed=seed, progress=progress)
    plan = balance(affinity, config.sinkhorn, progress=progress)
    return Matched(projection=projection, affinity=affinity, plan=plan, trust=judge_trust(projection, config.trust, seed=seed))


def rectify_catalog(
    catalog: Catalog,
    interactions: Interactions,
    config: PipelineConfig | None = None,
    *,
    seed: int = 0,
    anchors: Anchors | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Run every stage in memory; ``anchors`` given replaces training (a control, or anchors from elsewhere)."""
    config = config or PipelineConfig()
    anchors = anchors or train_anchors(interactions, config.anchors, seed=seed, progress=progress)
    matched = {m: match_modality(m, catalog, anchors, config, seed=seed, progress=progress) for m in catalog.features}
    status = {m: decide_status(catalog.present[m], x.plan, x.trust, config.rectify) for m, x in matched.items()}
    everything = slice(0, len(catalog.item_ids))
    features: dict[str, Float32] = {
        m: np.ascontiguousarray(rectify_rows(catalog.features[m], everything, status[m], x.plan, config.rectify))
        for m, x in matched.items()
    }
    rectified = Rectified(features=features, status=status, trust={m: x.trust.probability for m, x in matched.items()})
    return Outcome(anchors=anchors, matched=matched, rectified=rectified)

"""All stages chained in memory: for notebooks, for evaluation, and as the oracle of the flow's tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.affinity.affinity import find_affinity
from rectifier_core.affinity.places import choose_anchor_share, place_items
from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.base.arrays import Bool, Int32
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.published_records import Rectified
from rectifier_core.base.records import Affinity, Anchors, Catalog, Copies, Interactions, Plan, Projection, Trust
from rectifier_core.config import PipelineConfig
from rectifier_core.copies.copies import find_copies
from rectifier_core.projection.cross_modal import cross_modal_pairs, place_by_features
from rectifier_core.projection.projection import fit_projection
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.expected import Views
from rectifier_core.rectify.rectify import RectifiedRows, prepare_mixing, rectify_rows
from rectifier_core.sinkhorn.sinkhorn import balance
from rectifier_core.trust.trust import estimate_trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The records of a catalog before anything is changed, by modality; ``cross_modal`` by (projected, target).

    ``places`` are the modalities' principal coordinates, of those that are compared with another.
    """

    copies: dict[str, Copies]
    projections: dict[str, Projection]
    places: dict[str, Anchors]
    cross_modal: dict[tuple[str, str], Projection]
    trusts: dict[str, Trust]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The rectified features and the record of every stage."""

    anchors: Anchors
    judged: Judged
    affinities: dict[str, Affinity]
    plans: dict[str, Plan]
    rectified: Rectified


def judge_catalog(
    catalog: Catalog,
    anchors: Anchors,
    config: PipelineConfig,
    *,
    seed: int,
    category: Int32 | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Judged:
    """Find copies, project every modality, compare the modalities with one another, and estimate the trust in each feature."""
    features = catalog.features
    copies = {
        m: find_copies(m, x, catalog.present[m], anchors, config.copies, seed=seed, progress=progress)
        for m, x in features.items()
    }
    informative: dict[str, Bool] = {m: catalog.present[m] & ~copies[m].placeholder for m in features}
    projections = {
        m: fit_projection(m, x, informative[m], anchors, config.projection, seed=seed, device=device, progress=progress)
        for m, x in features.items()
    }
    pairs = cross_modal_pairs({m: x.shape[1] for m, x in features.items()}, config.cross_modal)
    places = {
        m: place_by_features(m, features[m], informative[m], config.cross_modal, seed=seed)
        for m in sorted({m for pair in pairs for m in pair})
    }
    cross_modal = {
        (m, other): fit_projection(
            m,
            features[m],
            informative[m],
            places[other],
            config.projection,
            seed=seed,
            device=device,
            progress=progress,
        )
        for m, other in pairs
    }
    trusts = estimate_trust(projections, cross_modal, anchors, config.trust, seed=seed, category=category)
    return Judged(copies=copies, projections=projections, places=places, cross_modal=cross_modal, trusts=trusts)


def rectify_catalog(
    catalog: Catalog,
    interactions: Interactions,
    config: PipelineConfig | None = None,
    *,
    seed: int = 0,
    anchors: Anchors | None = None,
    category: Int32 | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Outcome:
    """Run every stage in memory. If ``anchors`` are passed, none are trained.

    ``category`` [I] numbers the items' categories, negative where there is none. It widens the rate's interval by swaps within a category.
    """
    config = config or PipelineConfig()
    anchors = anchors or train_anchors(interactions, config.anchors, seed=seed, device=device, progress=progress)
    judged = judge_catalog(catalog, anchors, config, seed=seed, category=category, device=device, progress=progress)
    affinities = {
        m: find_affinity(
            place_items(
                x, choose_anchor_share(catalog.features[m], x, judged.trusts[m].probability, config.affinity, seed=seed)
            ),
            config.affinity,
            seed=seed,
            device=device,
            progress=progress,
        )
        for m, x in judged.projections.items()
    }
    plans = {m: balance(x, config.sinkhorn, progress=progress) for m, x in affinities.items()}
    rows = {m: _rectified(m, catalog, judged, plans[m], config.rectify, seed) for m in catalog.features}
    rectified = Rectified(
        features={m: np.ascontiguousarray(x.features) for m, x in rows.items()},
        status={m: x.status for m, x in rows.items()},
        trust={m: x.probability for m, x in judged.trusts.items()},
        moved={m: x.moved for m, x in rows.items()},
    )
    return Outcome(anchors=anchors, judged=judged, affinities=affinities, plans=plans, rectified=rectified)


def _rectified(
    modality: str, catalog: Catalog, judged: Judged, plan: Plan, config: RectifyConfig, seed: int
) -> RectifiedRows:
    """Rectify one modality."""
    features, present = catalog.features[modality], catalog.present[modality]
    projection = judged.projections[modality]
    others = [(places.items, judged.trusts[m]) for m, places in judged.places.items() if m != modality]
    status, mixing = prepare_mixing(
        features,
        present,
        judged.copies[modality].placeholder,
        projection.fold,
        Views.beside(projection.target, others),
        plan,
        judged.trusts[modality],
        config,
        seed=seed,
    )
    return rectify_rows(features, present, slice(0, len(features)), status, mixing)

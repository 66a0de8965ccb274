"""Held-out pair closeness before and after rectification: adaptive mixing, the paper's constant, the paper's solver; and controls.

python -m benchmarks.quality.mixing --data DIR [--seeds 3] > benchmarks/results/mixing.md

A share of both modalities is swapped. "shuffled anchors" acts although nothing can be told (the gate is held open for it), by the constant
mix: the control for gains that are smoothing. With the gate as it is, shuffled anchors change nothing. "trusted move" is 1 - cosine to the
input over the items with a trust of at least 0.9, mean and largest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from benchmarks.shared.catalogs import Sample
from benchmarks.shared.movielens import load_tested, options_parser, trained
from rectifier_core.affinity.affinity import find_affinity
from rectifier_core.affinity.places import choose_anchor_share, place_items
from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Anchors, Catalog, Projection
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.corruption import damage_catalog
from rectifier_core.evaluation.metrics import pair_closeness
from rectifier_core.evaluation.variants import shuffle_anchors
from rectifier_core.pipeline import Judged, judge_catalog
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.projection import fit_projection
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.expected import Views
from rectifier_core.rectify.rectify import prepare_mixing, rectify_rows
from rectifier_core.sinkhorn.sinkhorn import balance

SHARES = (0.0, 0.2, 0.4)
CONSTANT = RectifyConfig(mix="constant", keep_original=0.6)
COLUMNS = ("raw", "adaptive", "constant 0.6", "paper's solver, constant 0.6", "shuffled anchors, constant 0.6")


def mended(
    catalog: Catalog,
    judged: Judged,
    modality: str,
    config: RectifyConfig,
    *,
    projection: Projection | None = None,
    seed: int,
) -> Float32:
    """One modality rectified; ``projection`` replaces the judged one for matching, and then acts whatever trust says."""
    found = projection or judged.projections[modality]
    trust = judged.trusts[modality] if projection is None else replace(judged.trusts[modality], identifiable=True)
    features, present, stages = catalog.features[modality], catalog.present[modality], PipelineConfig()
    share = choose_anchor_share(features, found, trust.probability, stages.affinity, seed=seed)
    plan = balance(find_affinity(place_items(found, share), stages.affinity, seed=seed), stages.sinkhorn)
    others = [(places.items, judged.trusts[m]) for m, places in judged.places.items() if m != modality]
    views, nobody = Views.beside(found.target, others), np.zeros(len(features), np.bool_)
    status, mixing = prepare_mixing(features, present, nobody, found.fold, views, plan, trust, config, seed=seed)
    return rectify_rows(features, present, slice(0, len(features)), status, mixing).features


def variants(
    catalog: Catalog, anchors: Anchors, share: float, seed: int
) -> Mapping[str, tuple[list[Float32], Float32]]:
    """Per modality its features by column, and the trust of the adaptive one."""
    judged, control = judge_catalog(catalog, anchors, PipelineConfig(), seed=seed), shuffle_anchors(anchors, seed)
    # The paper is told the rate: its keep ratio drops it and .05 more.
    paper = ProjectionConfig(solver="minibatch", keep_ratio=1 - (share + 0.05))
    found = {}
    for m, raw in catalog.features.items():
        given = catalog.present[m]
        by_paper = fit_projection(m, raw, given, anchors, paper, seed=seed)
        dealt = fit_projection(m, raw, given, control, ProjectionConfig(), seed=seed)
        made = [
            raw,
            mended(catalog, judged, m, RectifyConfig(), seed=seed),
            mended(catalog, judged, m, CONSTANT, seed=seed),
        ]
        made += [mended(catalog, judged, m, CONSTANT, projection=x, seed=seed) for x in (by_paper, dealt)]
        found[m] = (made, judged.trusts[m].probability)
    return found


def moved(before: Float32, after: Float32, trust: Float32) -> str:
    """How far trusted items moved, in words."""
    trusted = trust >= 0.9
    if not trusted.any():
        return "nobody trusted"
    cosine = np.einsum("ij,ij->i", unit_rows(before[trusted]), unit_rows(after[trusted]))
    return f"{max(0.0, 1 - cosine.mean()):.4f}, {1 - cosine.min():.4f} of {trusted.sum()}"


def main() -> None:
    """Print the table as Markdown."""
    options = options_parser(__doc__).parse_args()
    sample: Sample
    sample, held_out = load_tested(options.data)
    print(f"Command: `python -m benchmarks.quality.mixing --data DIR --seeds {options.seeds}`\n")
    print(
        "| swapped | modality | seed | pristine | "
        + " | ".join(COLUMNS)
        + " | trusted move |\n|"
        + "---|" * (len(COLUMNS) + 5)
    )
    for share in SHARES:
        for seed in range(options.seeds):
            anchors = trained(sample.training, "sparse", seed, options.cache)
            catalog = damage_catalog(sample.catalog, "swap", dict.fromkeys(sample.catalog.features, share), seed=seed)[
                0
            ]
            for m, (made, trust) in variants(catalog, anchors, share, seed).items():
                values = [
                    pair_closeness(x, sample.training, held_out, seed=seed) for x in (sample.catalog.features[m], *made)
                ]
                cells = " | ".join(f"{x:.4f}" for x in values)
                print(f"| {share} | {m} | {seed} | {cells} | {moved(made[0], made[1], trust)} |", flush=True)


if __name__ == "__main__":
    main()

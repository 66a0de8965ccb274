"""Detection AUC of swapped features from the published trust, by split, modality and solver, over seeds; with the shuffled-anchor control.

python -m benchmarks.detection --data DIR [--seeds 3] [--share 0.2] > benchmarks/results/detection.md
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from benchmarks.movielens import load, options_parser
from rectifier_core.anchors import AnchorsConfig, train_anchors
from rectifier_core.evaluation.corruption import swap_features
from rectifier_core.numerics import separation
from rectifier_core.pipeline import PipelineConfig, match_modality
from rectifier_core.projection import ProjectionConfig
from rectifier_core.records import Anchors, Catalog
from rectifier_core.seeding import generator

VARIANTS = {
    "minibatch, keep 1.0": ProjectionConfig(solver="minibatch", keep_ratio=1.0),
    "minibatch, keep 0.75": ProjectionConfig(solver="minibatch", keep_ratio=0.75),
    "crossfit_ridge, keep 1.0": ProjectionConfig(keep_ratio=1.0),
    "crossfit_ridge, keep 0.75": ProjectionConfig(keep_ratio=0.75),
}


def shuffled(anchors: Anchors, seed: int) -> Anchors:
    """The control: anchors dealt to other items, so that nothing about behaviour is left."""
    order = np.flatnonzero(anchors.trained)
    items = anchors.items.copy()
    items[order] = items[generator(seed, "control").permutation(order)]
    return replace(anchors, items=items)


def auc(catalog: Catalog, anchors: Anchors, modality: str, share: float, projection: ProjectionConfig, seed: int) -> float:
    """AUC of trust between untouched and swapped items that were judged; .5 where nothing could be told."""
    features, truth = swap_features(catalog.features[modality], catalog.present[modality], share, seed=seed, name=modality)
    damaged = replace(catalog, features={modality: features}, present={modality: catalog.present[modality]})
    trust = match_modality(modality, damaged, anchors, PipelineConfig(projection=projection), seed=seed).trust.probability
    judged = ~np.isnan(trust)
    return separation(trust[judged & ~truth], trust[judged & truth]) if judged.any() else 0.5


def main() -> None:
    """Print the table as Markdown."""
    parser = options_parser(__doc__)
    parser.add_argument("--share", type=float, default=0.2)
    options = parser.parse_args()
    print(f"Command: `python -m benchmarks.detection --data DIR --seeds {options.seeds} --share {options.share}`\n")
    print("| split | modality | " + " | ".join(VARIANTS) + " | default, shuffled anchors |\n|" + "---|" * (len(VARIANTS) + 3))
    for split in ("sparse", "full"):
        sample = load(options.data, split)
        anchors = [train_anchors(sample.training, AnchorsConfig(), seed=seed) for seed in range(options.seeds)]
        for modality in sample.catalog.features:
            cells = []
            for projection in VARIANTS.values():
                found = [auc(sample.catalog, anchors[seed], modality, options.share, projection, seed) for seed in range(options.seeds)]
                cells.append(f"{np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}")
            control = [
                auc(sample.catalog, shuffled(anchors[seed], seed), modality, options.share, ProjectionConfig(), seed)
                for seed in range(options.seeds)
            ]
            cells.append(f"{np.mean(control):.3f} ± {np.std(control, ddof=1):.3f}")
            print(f"| {split} | {modality} | " + " | ".join(cells) + " |", flush=True)
            print(f"{split} {modality} done", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Detection AUC of swapped features, by split, modality and solver, over seeds; with other modalities as evidence, and the control.

python -m benchmarks.quality.detection --data DIR [--seeds 3] [--share 0.2] > benchmarks/results/detection.md

The solvers are compared by alignment alone. "behaviour" is the published evidence without other modalities, "cross_modal" adds them when only
the judged modality is damaged, "both damaged" when the other modality is as bad as the judged one.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from benchmarks.shared.movielens import load, options_parser, trained
from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import separation
from rectifier_core.base.records import Anchors, Catalog
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.corruption import damage_catalog
from rectifier_core.evaluation.variants import shuffle_anchors
from rectifier_core.pipeline import judge_catalog
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.projection import fit_projection

SOLVERS = {
    "minibatch, keep 1.0": ProjectionConfig(solver="minibatch", keep_ratio=1.0),
    "minibatch, keep 0.75": ProjectionConfig(solver="minibatch", keep_ratio=0.75),
    "crossfit_ridge, keep 1.0": ProjectionConfig(keep_ratio=1.0),
    "crossfit_ridge, keep 0.75": ProjectionConfig(keep_ratio=0.75),
    "crossfit_ridge, keep auto": ProjectionConfig(keep_ratio="auto"),
}
JUDGED = ("behaviour", "cross_modal", "both damaged", "shuffled anchors")


def told_apart(score: Float32, truth: Bool) -> float:
    """AUC of the score between untouched and swapped items that were judged; .5 where nothing was."""
    judged = ~np.isnan(score)
    return separation(score[judged & ~truth], score[judged & truth]) if judged.any() else 0.5


def measure(catalog: Catalog, anchors: Anchors, modality: str, share: float, seed: int) -> list[float]:
    """One value a column, for one seed."""
    damaged, truth = damage_catalog(catalog, "swap", {modality: share}, seed=seed)
    feature, present, wrong = damaged.features[modality], damaged.present[modality], truth[modality]
    values = [
        told_apart(fit_projection(modality, feature, present, anchors, solver, seed=seed).alignment, wrong)
        for solver in SOLVERS.values()
    ]
    alone = replace(damaged, features={modality: feature}, present={modality: present})
    everything = damage_catalog(catalog, "swap", dict.fromkeys(catalog.features, share), seed=seed)[0]
    control = shuffle_anchors(anchors, seed)
    for seen, by in ((alone, anchors), (damaged, anchors), (everything, anchors), (damaged, control)):
        values.append(
            told_apart(judge_catalog(seen, by, PipelineConfig(), seed=seed).trusts[modality].probability, wrong)
        )
    return values


def main() -> None:
    """Print the table as Markdown."""
    parser = options_parser(__doc__)
    parser.add_argument("--share", type=float, default=0.2)
    options = parser.parse_args()
    columns = (*SOLVERS, *JUDGED)
    print(
        f"Command: `python -m benchmarks.quality.detection --data DIR --seeds {options.seeds} --share {options.share}`\n"
    )
    print("| split | modality | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 2))
    for split in ("sparse", "full"):
        sample = load(options.data, split)
        anchors = [trained(sample.training, split, seed, options.cache) for seed in range(options.seeds)]
        for modality in sample.catalog.features:
            rows = np.array(
                [measure(sample.catalog, anchors[seed], modality, options.share, seed) for seed in range(options.seeds)]
            )
            cells = [
                f"{mean:.3f} ± {spread:.3f}"
                for mean, spread in zip(rows.mean(axis=0), rows.std(axis=0, ddof=1), strict=True)
            ]
            print(f"| {split} | {modality} | " + " | ".join(cells) + " |", flush=True)
            print(f"{split} {modality} done", file=sys.stderr)


if __name__ == "__main__":
    main()

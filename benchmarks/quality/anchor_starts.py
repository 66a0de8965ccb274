"""Do the two accelerations cost quality? Random, spectral and warm start of the anchors: epochs, seconds, and what the anchors are good
for.

Closeness is the held-out pair closeness of the anchors themselves on test pairs that no run saw. The recall that stops training is no
fair measure
of the warm start: some of the pairs held out tonight were trained on the night before.

The warm start continues from the ego rows of a run on 95 % of the pairs and 98 % of the items, as a night before would leave them.

    python -m benchmarks.quality.anchor_starts --data DIR [--seeds 3] > benchmarks/results/anchor_starts.md
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.quality.detection import told_apart
from benchmarks.shared.catalogs import Sample
from benchmarks.shared.movielens import load_tested, options_parser
from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.arrays import Float32
from rectifier_core.base.records import Anchors, Interactions
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.corruption import damage_catalog
from rectifier_core.evaluation.metrics import pair_closeness
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.projection import fit_projection


def night_before(pairs: Interactions, seed: int) -> Float32:
    """Ego rows trained on 95 % of the pairs, NaN for 2 % of the items as if they were new."""
    rng = generator(seed, "benchmark", "night before")
    new = rng.random(pairs.num_items) < 0.02
    known = np.flatnonzero((rng.random(len(pairs.users)) < 0.95) & ~new[pairs.items])
    before = Interactions(
        users=pairs.users[known],
        items=pairs.items[known],
        times=None,
        num_users=pairs.num_users,
        num_items=pairs.num_items,
    )
    found = train_anchors(before, AnchorsConfig(method="lightgcn"), seed=seed + 1000)
    return np.where(found.trained[:, None], found.ego, np.float32(np.nan))


def aligned(sample: Sample, anchors: Anchors, modality: str, seed: int) -> float:
    """Detection AUC of the alignment alone with 20 % of one modality swapped."""
    catalog, wrong = damage_catalog(sample.catalog, "swap", {modality: 0.2}, seed=seed)
    features, present = catalog.features[modality], catalog.present[modality]
    return told_apart(
        fit_projection(modality, features, present, anchors, ProjectionConfig(), seed=seed).alignment, wrong[modality]
    )


def main() -> None:
    """Print the table as Markdown."""
    options = options_parser(__doc__).parse_args()
    sample, held_out = load_tested(options.data)
    print(f"Command: `python -m benchmarks.quality.anchor_starts --data DIR --seeds {options.seeds}`\n")
    print(
        "| start | epochs to the best | seconds | best recall@20 while training | closeness on test pairs | AUC image | AUC text |"
    )
    print("|---|---|---|---|---|---|---|")
    for start in ("random", "spectral", "warm"):
        rows = []
        for seed in range(options.seeds):
            previous = night_before(sample.training, seed) if start == "warm" else None
            config = AnchorsConfig(method="lightgcn", start="random" if start == "random" else "spectral")
            clock = time.perf_counter()
            anchors = train_anchors(sample.training, config, seed=seed, previous=previous)
            seconds = time.perf_counter() - clock
            aucs = [aligned(sample, anchors, m, seed) for m in ("image", "text")]
            closeness = pair_closeness(anchors.items, sample.training, held_out, seed=seed)
            rows.append([float(anchors.recalls.argmax()), seconds, anchors.recalls.max(), closeness, *aucs])
        mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
        digits = (0, 1, 4, 4, 3, 3)
        print(
            f"| {start} | "
            + " | ".join(f"{m:.{d}f} ± {s:.{d}f}" for m, s, d in zip(mean, spread, digits, strict=True))
            + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()

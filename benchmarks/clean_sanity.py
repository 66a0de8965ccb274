"""Clean data: held-out pair closeness before and after rectification, and after it with shuffled anchors (the control).

python -m benchmarks.clean_sanity --data DIR [--seeds 3] > benchmarks/results/clean_sanity.md
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.detection import shuffled
from benchmarks.movielens import Sample, load_tested, options_parser
from rectifier_core.anchors import AnchorsConfig, train_anchors
from rectifier_core.evaluation.metrics import pair_closeness
from rectifier_core.pipeline import PipelineConfig, match_modality
from rectifier_core.records import Anchors
from rectifier_core.rectify import decide_status, rectify_rows


def rectified(sample: Sample, modality: str, anchors: Anchors, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    """The modality rectified at the defaults, the "cannot tell" gate held open so that the control is not saved by it."""
    found, config = match_modality(modality, sample.catalog, anchors, PipelineConfig(), seed=seed), PipelineConfig().rectify
    acting = replace(found.trust, identifiable=True)
    status = decide_status(sample.catalog.present[modality], found.plan, acting, config)
    return rectify_rows(sample.catalog.features[modality], slice(0, len(status)), status, found.plan, config)


def main() -> None:
    """Print the table as Markdown."""
    options = options_parser(__doc__).parse_args()
    sample, held_out = load_tested(options.data)
    print(f"Command: `python -m benchmarks.clean_sanity --data DIR --seeds {options.seeds}`\n")
    print("| modality | seed | raw | rectified | rectified with shuffled anchors |\n|---|---|---|---|---|")
    for seed in range(options.seeds):
        anchors = train_anchors(sample.training, AnchorsConfig(), seed=seed)
        for modality, raw in sample.catalog.features.items():
            variants = [raw, rectified(sample, modality, anchors, seed), rectified(sample, modality, shuffled(anchors, seed), seed)]
            values = [pair_closeness(x, sample.training, held_out, seed=seed) for x in variants]
            print(f"| {modality} | {seed} | " + " | ".join(f"{x:.4f}" for x in values) + " |", flush=True)


if __name__ == "__main__":
    main()

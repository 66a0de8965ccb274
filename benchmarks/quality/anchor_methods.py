"""Trust by trained and by spectral anchors: AUC, the rate and its interval, and what either costs; six real logs, 20 % of every modality swapped.

python -m benchmarks.quality.anchor_methods --data DIR [--seeds 3] > benchmarks/results/anchor_methods.md
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.shared.catalogs import CATALOGS, load_catalog
from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.numerics import separation
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.corruption import damage_catalog
from rectifier_core.pipeline import judge_catalog

SHARE = 0.2
METHODS = ("lightgcn", "spectral")


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(f"Command: `python -m benchmarks.quality.anchor_methods --data DIR --seeds {options.seeds}`\n")
    print(
        "| log, pairs, modality | AUC lightgcn | spectral | difference | rate lightgcn | spectral | CPU s | spectral |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in CATALOGS:
        true, log = load_catalog(options.data, name)
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        seconds: dict[str, float] = dict.fromkeys(METHODS, 0.0)
        for seed in range(options.seeds):
            damaged, wrong = damage_catalog(true, "swap", dict.fromkeys(true.features, SHARE), seed=seed)
            for method in METHODS:
                begun = time.process_time()
                anchors = train_anchors(log, AnchorsConfig(method=method), seed=seed)  # type: ignore[arg-type]
                seconds[method] += (time.process_time() - begun) / options.seeds
                trusts = judge_catalog(damaged, anchors, PipelineConfig(), seed=seed).trusts
                for m, trust in trusts.items():
                    known = ~np.isnan(trust.probability)
                    auc = separation(trust.probability[known & ~wrong[m]], trust.probability[known & wrong[m]])
                    found.setdefault((m, method), []).append((auc, trust.mismatch_rate or np.nan))
        for m in true.features:
            (auc, rate), (other, other_rate) = (np.array(found[m, method]).T for method in METHODS)
            cells = [f"{x.mean():.4f} ± {x.std():.4f}" for x in (auc, other)]
            cells += [f"{(other - auc).mean():+.4f}", f"{rate.mean():.3f}", f"{other_rate.mean():.3f}"]
            cells += [f"{seconds[method]:.1f}" for method in METHODS]
            print(f"| {name}, {len(log.users):,}, {m} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

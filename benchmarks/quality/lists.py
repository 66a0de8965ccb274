"""The audit's lists against what was planted: how many they name, and which share of them shows its own feature.

python -m benchmarks.quality.lists --data DIR [--seeds 3] [--shares 0 0.2] [--catalogs goodbooks ...] > benchmarks/results/lists.md

A share of every modality's features is swapped at random, each modality on its own. "Listed" ends where the expected share of false alarms
reaches the rate, "conservative" where its upper bound does, "worst" after 50 items. Cells: items listed, mean over seeds; share of innocents in
all seeds' lists together.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks.shared.catalogs import CATALOGS, load_catalog
from benchmarks.shared.movielens import trained
from rectifier_core.audit.suspects import suspects_at_fdr, worst
from rectifier_core.base.arrays import Int64
from rectifier_core.base.records import Trust
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.corruption import damage_catalog
from rectifier_core.pipeline import judge_catalog

LISTS = ("listed at 0.1", "conservative at 0.1", "listed at 0.3", "worst 50")


def lists_of(trust: Trust) -> list[Int64]:
    """Return the rows of every list, in the order of ``LISTS``."""
    usual, upper = trust.probability, trust.probability_upper
    found = (suspects_at_fdr(usual, 0.1), suspects_at_fdr(upper, 0.1), suspects_at_fdr(usual, 0.3), worst(usual, 50))
    return [x.rows for x in found]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--catalogs", nargs="*", default=list(CATALOGS))
    parser.add_argument("--shares", type=float, nargs="*", default=[0.0, 0.1, 0.2, 0.4])
    parser.add_argument("--cache", type=Path, help="a folder to keep trained anchors in")
    options = parser.parse_args()
    shares = " ".join(map(str, options.shares))
    print(f"Command: `python -m benchmarks.quality.lists --data DIR --seeds {options.seeds} --shares {shares}`\n")
    print(
        f"| catalog, modality, swapped | {' | innocent | '.join(LISTS)} | innocent |\n|{'---|' * (2 * len(LISTS) + 1)}"
    )
    for name in options.catalogs:
        true, log = load_catalog(options.data, name)
        for share in options.shares:
            counts = {m: np.zeros((len(LISTS), 2)) for m in true.features}
            for seed in range(options.seeds):
                damaged, wrong = damage_catalog(true, "swap", dict.fromkeys(true.features, share), seed=seed)
                anchors = trained(log, name, seed, options.cache)
                for m, trust in judge_catalog(damaged, anchors, PipelineConfig(), seed=seed).trusts.items():
                    counts[m] += [(len(rows), (~wrong[m][rows]).sum()) for rows in lists_of(trust)]
                print(f"{name} {share} {seed}", file=sys.stderr, flush=True)
            for m, found in counts.items():
                cells = [f"{n / options.seeds:.0f} | {f'{own / n:.2f}' if n else '-'}" for n, own in found]
                print(f"| {name} {m} {share} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""How close the published features are to the true ones: six real logs, every modality, planted swaps; and the rate beside what was planted.

python -m benchmarks.quality.restoration --data DIR [--seeds 3] [--catalogs goodbooks ...] > benchmarks/results/restoration.md

A share of every modality's features is swapped at random, each modality on its own. A cell is the mean cosine between published and true
feature, both as unit rows centred on the true features' mean; "raw" is the same for the damaged input. A repair is one only where all rows
together come closer. "shuffled" is the control: the same pipeline on anchors that were dealt to other items.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.shared.catalogs import CATALOGS, load_catalog
from benchmarks.shared.movielens import trained
from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Catalog
from rectifier_core.evaluation.corruption import damage_catalog
from rectifier_core.evaluation.variants import shuffle_anchors
from rectifier_core.pipeline import Outcome, rectify_catalog

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
CONTROL = 0.2
"""The share at which the control is run."""
COLUMNS = ("raw", "damaged", "clean", "all", "moved > .1", "moved > .01", "rate", "low", "high", "inside")


def closeness(features: Float32, true: Float32, present: Bool) -> Float32:
    """Return the cosine of every row with the true one, both unit rows less the mean true unit row: [I]."""
    wanted = unit_rows(true)
    mean = wanted[present].mean(axis=0)
    return np.einsum("ij,ij->i", unit_rows(unit_rows(features) - mean), unit_rows(wanted - mean))


def values(true: Catalog, damaged: Catalog, wrong: Mapping[str, Bool], outcome: Outcome, modality: str) -> list[float]:
    """Return one modality's numbers, in the order of ``COLUMNS``."""
    there, bad = true.present[modality], wrong[modality]
    after = closeness(outcome.rectified.features[modality], true.features[modality], there)
    before = closeness(damaged.features[modality], true.features[modality], there)
    moved, trust = outcome.rectified.moved[modality][there], outcome.judged.trusts[modality]
    judged = ~np.isnan(trust.probability)
    planted = float(bad[judged].mean()) if judged.any() else float("nan")
    known = trust.mismatch_rate is not None and trust.low is not None and trust.high is not None
    rate = [trust.mismatch_rate, trust.low, trust.high] if known else [np.nan] * 3
    inside = float(trust.low <= planted <= trust.high) if known else np.nan  # type: ignore[operator]
    clean = there & ~bad
    means = [before[there].mean(), after[bad].mean() if bad.any() else np.nan, after[clean].mean(), after[there].mean()]
    return [float(x) for x in (*means, (moved > 0.1).mean(), (moved > 0.01).mean(), *rate, inside)]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--catalogs", nargs="*", default=list(CATALOGS))
    parser.add_argument("--cache", type=Path, help="a folder to keep trained anchors in")
    options = parser.parse_args()
    print(f"Command: `python -m benchmarks.quality.restoration --data DIR --seeds {options.seeds}`\n")
    print(f"| catalog, modality, swapped | {' | '.join(COLUMNS)} | shuffled |\n|{'---|' * (len(COLUMNS) + 2)}")
    for name in options.catalogs:
        true, log = load_catalog(options.data, name)
        for share in SHARES:
            rows: dict[str, list[list[float]]] = {m: [] for m in true.features}
            control: dict[str, list[float]] = {m: [] for m in true.features}
            for seed in range(options.seeds):
                anchors = trained(log, name, seed, options.cache)
                damaged, wrong = damage_catalog(true, "swap", dict.fromkeys(true.features, share), seed=seed)
                outcome = rectify_catalog(damaged, log, seed=seed, anchors=anchors)
                for m in rows:
                    rows[m].append(values(true, damaged, wrong, outcome, m))
                if share == CONTROL:
                    dealt = replace(shuffle_anchors(anchors, seed), user_ego=None)
                    other = rectify_catalog(damaged, log, seed=seed, anchors=dealt)
                    for m in control:
                        control[m].append(values(true, damaged, wrong, other, m)[COLUMNS.index("all")])
                print(f"{name} {share} {seed}", file=sys.stderr, flush=True)
            for m, found in rows.items():
                table = np.array(found)
                cells = [f"{np.nanmean(x):.3f} ± {np.nanstd(x):.3f}" if not np.isnan(x).all() else "-" for x in table.T]
                cells.append(f"{np.mean(control[m]):.3f}" if control[m] else "")
                print(f"| {name} {m} {share} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

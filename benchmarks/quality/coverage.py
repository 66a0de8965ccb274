"""Does the rate's interval hold the truth? Trials with planted rates from 0 to .4: swapped at random, within a genre, in shifted
blocks, and whole rows (all modalities of an item together).

python -m benchmarks.quality.coverage --data DIR [--trials 200] [--first 0] > benchmarks/results/coverage.md
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import replace

import numpy as np

from benchmarks.shared.catalogs import Sample
from benchmarks.shared.movielens import genre_numbers, load, options_parser, trained
from rectifier_core.base.arrays import Bool, Float32, Int32
from rectifier_core.base.records import Anchors, Trust
from rectifier_core.base.seeding import generator
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.corruption import damage_features
from rectifier_core.pipeline import judge_catalog

KINDS = ("random", "genre", "block", "row")
SPLITS = ("full", "sparse")


def damage(sample: Sample, modality: str, kind: str, share: float, genres: Int32, seed: int) -> tuple[Float32, Bool]:
    """The modality's features with about ``share`` mixed up in the way ``kind``, and which rows were."""
    features, present = sample.catalog.features[modality], sample.catalog.present[modality]
    if kind == "block":
        return shift_blocks(features, present, share, seed=seed, name=modality)
    if kind == "genre":
        return damage_features(features, present, "within", share, seed=seed, name=modality, groups=genres)
    # Under one name both modalities draw the same rows.
    return damage_features(features, present, "swap", share, seed=seed, name=modality if kind == "random" else kind)


def shift_blocks(features: Float32, present: Bool, share: float, *, seed: int, name: str) -> tuple[Float32, Bool]:
    """Blocks of present rows, about ``share`` in all, each rolled by one to three places, as a feed with lost lines leaves them.

    Blocks are 20 to 200 rows long in the order of the rows, and never overlap.
    """
    rng = generator(seed, "corruption", "blocks", name)
    rows = np.flatnonzero(present)
    shifted, truth = features.copy(), np.zeros(len(features), np.bool_)
    left = round(share * len(rows))
    for _ in range(100 * (1 + left)):
        if left < 2:
            break
        length = min(left, int(rng.integers(20, 200)), len(rows))
        start = int(rng.integers(0, len(rows) - length + 1))
        block = rows[start : start + length]
        if not truth[block].any():
            shifted[block] = features[np.roll(block, int(rng.integers(1, min(3, length - 1) + 1)))]
            truth[block] = True
            left -= length
    return shifted, truth


def trial(sample: Sample, anchors: Anchors, genres: Int32, kind: str, seed: int) -> list[tuple[str, float, Trust]]:
    """Both modalities damaged at rates of their own: (modality, true rate among judged items, what was found)."""
    rates = generator(seed, "coverage").uniform(0, 0.4, 2)
    if kind == "row":
        rates[:] = rates[0]
    damaged = {
        m: damage(sample, m, kind, float(share), genres, seed)
        for m, share in zip(sample.catalog.features, rates, strict=True)
    }
    catalog = replace(sample.catalog, features={m: x[0] for m, x in damaged.items()})
    trusts = judge_catalog(catalog, anchors, PipelineConfig(), seed=seed, category=genres).trusts
    return [(m, float(damaged[m][1][anchors.trained].mean()), trust) for m, trust in trusts.items()]


def main() -> None:
    """Print the table as Markdown."""
    parser = options_parser(__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    samples = {split: load(options.data, split) for split in SPLITS}
    genres = {split: genre_numbers(options.data, samples[split]) for split in SPLITS}
    anchors = {(s, i): trained(samples[s].training, s, i, options.cache) for s in SPLITS for i in range(options.seeds)}
    found = defaultdict(list)
    # A trial damages both modalities, so half as many give ``--trials`` intervals.
    for number in range(options.first, options.first + options.trials // 2):
        split, kind = SPLITS[number % 2], KINDS[number // 2 % len(KINDS)]
        for modality, truth, trust in trial(
            samples[split], anchors[split, number % options.seeds], genres[split], kind, number
        ):
            if trust.mismatch_rate is None or trust.low is None or trust.high is None:
                found[kind, split, modality].append((False, False, np.nan, np.nan, np.nan))
                continue
            inside = trust.low <= truth <= trust.high
            unlike = (trust.low_unlike or 0) <= truth <= (trust.high_unlike or 1)
            found[kind, split, modality].append(
                (inside, unlike, trust.mismatch_rate - truth, trust.high - trust.low, truth)
            )
        print(number, file=sys.stderr, flush=True)
    print(
        f"Command: `python -m benchmarks.quality.coverage --data DIR --trials {options.trials} --seeds {options.seeds}`\n"
    )
    print(
        "| mixed up | split | modality | identifiable | interval holds the truth | without alike | mean error | mean width |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for key in [*sorted(found), None]:
        rows = np.array(found[key] if key else [x for some in found.values() for x in some], dtype=np.float64)
        told = rows[~np.isnan(rows[:, 2])]
        cells = [
            f"{len(told)} of {len(rows)}",
            *(f"{told[:, i].mean():.3f}" for i in (0, 1)),
            f"{told[:, 2].mean():+.3f}",
        ]
        print(f"| {' | '.join(key or ('all', '', ''))} | {' | '.join(cells)} | {told[:, 3].mean():.3f} |")


if __name__ == "__main__":
    main()

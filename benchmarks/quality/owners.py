"""How often the true owner of a swapped feature is among the first suggestions, and whether the suggestions' probabilities are calibrated.

python -m benchmarks.quality.owners --data DIR [--seeds 3] [--share 0.2] > benchmarks/results/owners.md
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from benchmarks.shared.catalogs import Sample
from benchmarks.shared.movielens import load, options_parser, trained
from rectifier_core.audit.config import OwnersConfig
from rectifier_core.audit.owners import clear_owners, lost_prior, pair_evidence, suggest
from rectifier_core.base.arrays import Bool, Float64, Int64
from rectifier_core.base.records import Anchors
from rectifier_core.evaluation.corruption import damage_features
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.projection import fit_projection
from rectifier_core.trust.config import TrustConfig
from rectifier_core.trust.trust import estimate_trust

AMONG = (1, 10, 50)
EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)


def ranks(scores: Float64, rows: Int64, owner: Int64) -> Int64:
    """The place of each true owner among all items but the feature's own, from 1; equal scores count against it."""
    scores = scores.copy()
    scores[np.arange(len(rows)), rows] = -np.inf
    true = scores[np.arange(len(rows)), owner]
    found: Int64 = (scores >= true[:, None]).sum(axis=1)
    return found


def local_scaling(cosine: Float64, usable: Bool, neighbours: int = 10) -> Float64:
    """CSLS: twice the cosine less the mean of the feature's, and of the owner's, ten best."""
    held = np.where(usable, cosine, -1.0)
    by_feature = np.sort(held, axis=1)[:, -neighbours:].mean(axis=1)
    by_owner = np.sort(held[usable], axis=0)[-neighbours:].mean(axis=0)
    scaled: Float64 = 2 * held - by_feature[:, None] - by_owner
    return scaled


@dataclass(slots=True)
class Tally:
    """What is counted over seeds: shares by (modality, ranking), suggestions as (probability, right), and clear owners as right or not."""

    shares: dict[tuple[str, str], list[list[float]]] = field(default_factory=dict)
    hits: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)
    clear: dict[str, list[bool]] = field(default_factory=dict)


def measure(tally: Tally, sample: Sample, anchors: Anchors, modality: str, share: float, seed: int) -> None:
    """One modality damaged and its owners asked for, once."""
    config, present = OwnersConfig(), sample.catalog.present[modality]
    names = np.arange(len(present), dtype=np.float32)[:, None]
    owner = damage_features(names, present, "swap", share, seed=seed, name=modality)[0][:, 0].astype(np.int64)
    damaged, truth = damage_features(
        sample.catalog.features[modality], present, "swap", share, seed=seed, name=modality
    )
    projection = fit_projection(modality, damaged, present, anchors, ProjectionConfig(), seed=seed)
    p = estimate_trust({modality: projection}, {}, anchors, TrustConfig(), seed=seed)[modality].probability
    rows = np.flatnonzero(truth & anchors.trained & anchors.trained[owner])
    evidence = pair_evidence(projection, p, config)
    prior = np.log(lost_prior(p, evidence.has_feature, config))
    cosine = (projection.projected @ projection.target.T).astype(np.float64)
    fits, csls = (evidence.features @ evidence.items.T).astype(np.float64), local_scaling(cosine, anchors.trained)
    rankings = {
        "raw cosine": cosine,
        "CSLS": csls,
        "log-likelihood ratio": fits,
        "raw cosine, suspects favoured": cosine / 0.1 + prior,
        "CSLS, suspects favoured": csls / 0.1 + prior,
        "log-likelihood ratio, suspects favoured (used)": fits + prior,
    }
    for name, scores in rankings.items():
        place = ranks(np.where(anchors.trained, scores, -np.inf)[rows], rows, owner[rows])
        tally.shares.setdefault((modality, name), []).append([float((place <= x).mean()) for x in AMONG])
    owners = suggest("owners", evidence, projection, p, rows, config, seed=seed)
    right = owners.others == owner[rows][:, None]
    tally.hits.setdefault(modality, []).extend(
        zip(owners.probability.ravel().tolist(), right.ravel().tolist(), strict=True)
    )
    suspects = np.flatnonzero(p < 0.5)
    asked = suggest("owners", evidence, projection, p, suspects, config, seed=seed)
    back = suggest("features", evidence, projection, p, np.unique(asked.others[:, 0]), config, seed=seed)
    clear = clear_owners(asked, back)
    tally.clear.setdefault(modality, []).extend((clear == owner[suspects])[clear >= 0].tolist())


def show(tally: Tally, seeds: int) -> None:
    """Print the tables as Markdown."""
    print(
        "| modality | ranked by | "
        + " | ".join(f"true owner in the first {x}" for x in AMONG)
        + " |\n|---|---|"
        + "---|" * len(AMONG)
    )
    for (modality, name), found in tally.shares.items():
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) if len(found) > 1 else np.zeros(len(AMONG))
        print(
            f"| {modality} | {name} | "
            + " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True))
            + " |"
        )
    print(
        "\nIs an owner given probability p the true one in p of the cases? All first ten owners of every swapped feature, all seeds.\n"
    )
    print("| modality | p from | to | suggestions | mean p | share true |\n|---|---|---|---|---|---|")
    for modality, drawn in tally.hits.items():
        p, right = np.array([x for x, _ in drawn]), np.array([x for _, x in drawn])
        for low, high in pairwise(EDGES):
            inside = (p >= low) & (p < high)
            if inside.any():
                print(
                    f"| {modality} | {low} | {high} | {inside.sum():,} | {p[inside].mean():.3f} | {right[inside].mean():.3f} |"
                )
    print(
        "\nOne-to-one owners called clear (each chooses the other with more than one half), of all items with trust below one half:\n"
    )
    for modality, clear_ones in tally.clear.items():
        print(f"- {modality}: {sum(clear_ones)} right of {len(clear_ones)} in {seeds} seeds")


def main() -> None:
    """Measure and print."""
    parser = options_parser(__doc__)
    parser.add_argument("--share", type=float, default=0.2)
    options = parser.parse_args()
    print("# Suggested owners of swapped features\n")
    print(
        f"Command: `python -m benchmarks.quality.owners --data DIR --seeds {options.seeds} --share {options.share}`\n"
    )
    sample, tally = load(options.data, "full"), Tally()
    for seed in range(options.seeds):
        anchors = trained(sample.training, "full", seed, options.cache)
        for modality in sample.catalog.features:
            measure(tally, sample, anchors, modality, options.share, seed)
        print(f"seed {seed} done", file=sys.stderr)
    show(tally, options.seeds)


if __name__ == "__main__":
    main()

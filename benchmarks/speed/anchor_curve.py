"""How good anchors are against what they cost: starts, steps, cached propagation, and models that are not trained at all.

Quality is NDCG@20 on test pairs that neither training nor early stopping saw; each row is taken at the epoch whose validation NDCG@20 is
highest, and a run ends ``--patience`` epochs later. Cost is the process's CPU time in training alone, start included. The first row is the
reference: LightGCN from noise by steps of 2,048 pairs, at the learning rate that does best for it here (the paper's .001 takes five times
as many epochs). The last columns are the cost, in CPU seconds and as a share of the reference's, until validation NDCG@20 first attains
.95 of the reference's best, and all of it. "As configured by default" steps as ``AnchorsConfig()`` does on a log of that size.

    python -m benchmarks.speed.anchor_curve --data DIR [--seeds 3] [--logs sparse full clustered] > benchmarks/results/anchor_curve.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.shared.movielens import load, load_split
from benchmarks.shared.synthetic_log import clustered_log, machine
from rectifier_core.anchors.anchors import FASTEST, USUAL_STEP, pairs_a_step
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.anchors.held_out_recall import HeldOutRecall
from rectifier_core.anchors.interaction_sampling import NegativeSampler
from rectifier_core.anchors.lightgcn import LightGCNTraining
from rectifier_core.anchors.propagation import InteractionGraph, layer_mean_rows
from rectifier_core.anchors.spectral import spectral_embedding, spectral_start
from rectifier_core.base.arrays import Float32
from rectifier_core.base.pairs import subset
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.metrics import per_user_ranking
from rectifier_core.evaluation.ranking import rank_items
from rectifier_core.evaluation.splits import Split, split_users

CONFIG = AnchorsConfig(method="lightgcn")
WIDTH, LAYERS, TESTED = CONFIG.embedding_size, CONFIG.num_layers, 3000
Curve = Iterator[tuple[float, Float32]]
"""CPU seconds so far and final rows [U + I, A], epoch by epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to train: where it starts, pairs a step (0: an eighth of the log, None: by default), the rate, layers while training.

    ``epochs`` 0 leaves it at its start.
    """

    start: str = "spectral"
    step: int | None = USUAL_STEP
    rate: float = CONFIG.learning_rate
    layers: int = LAYERS
    epochs: int = 1000


WAYS: dict[str, Way | None] = {
    "random start, steps of 2,048": Way(start="random"),
    "random start, 8 steps an epoch": Way(start="random", step=0),
    "spectral start, nothing trained": Way(epochs=0),
    "spectral start, steps of 2,048": Way(),
    "spectral start, as configured by default": Way(step=None),
    "spectral start, 8 steps an epoch": Way(step=0),
    "the same, rate not raised": Way(step=0, rate=-1.0),
    "cached: trained without layers, propagated once an epoch": Way(layers=0),
    "spectral embedding, nothing trained": None,
}


def trained(way: Way, graph: InteractionGraph, pairs: Interactions, seed: int) -> Curve:
    """BPR over ``graph`` as ``way`` says; the first point is the start itself."""
    clock, spent = time.process_time(), 0.0
    rng = generator(seed, "curve", "start")
    noise = way.start == "random"
    ego = (
        rng.normal(0.0, 0.1, (graph.num_nodes, WIDTH)).astype(np.float32)
        if noise
        else spectral_start(graph, WIDTH, rng)
    )
    entries = graph.num_entries
    size = (
        pairs_a_step(CONFIG, len(pairs.users), entries) if way.step is None else way.step or -(-len(pairs.users) // 8)
    )
    rate = CONFIG.learning_rate if way.rate < 0 else way.rate * float(np.clip(np.sqrt(size / USUAL_STEP), 1, FASTEST))
    model = LightGCNTraining(graph, ego, way.layers, learning_rate=rate, weight_decay=CONFIG.weight_decay)
    sampler = NegativeSampler(pairs)
    for epoch in range(way.epochs + 1):
        spent += time.process_time() - clock
        yield spent, layer_mean_rows(graph, model.ego, LAYERS)
        clock = time.process_time()
        rng = generator(seed, "curve", "epoch", epoch)
        order = rng.permutation(len(pairs.users))
        for first in range(0, len(order), size):
            users = pairs.users[order[first : first + size]]
            model.step(users, pairs.items[order[first : first + size]], sampler(users, rng))


def embedded(graph: InteractionGraph, split: Split, seed: int) -> Curve:
    """The spectral embedding, its weights chosen by the validation pairs' recall."""
    judge = HeldOutRecall(split.training, split.validation, generator(seed, "curve", "judge"))
    clock = time.process_time()
    ego, _ = spectral_embedding(graph, WIDTH, LAYERS, judge, generator(seed, "curve", "start"))
    yield time.process_time() - clock, layer_mean_rows(graph, ego, LAYERS)


class Ndcg:
    """NDCG@20 of a sample of users on one part of a split, all other parts that training knows masked."""

    def __init__(self, split: Split, part: Interactions, known: Interactions, seed: int) -> None:
        users = np.unique(part.users)
        self._users = np.sort(
            generator(seed, "curve", "tested").choice(users, min(TESTED, len(users)), replace=False)
        ).astype(np.int32)
        self._part, self._known = part, known

    def __call__(self, rows: Float32) -> float:
        """Mean over the users."""
        num_users = self._part.num_users
        users, items = torch.from_numpy(rows[:num_users]), torch.from_numpy(rows[num_users:])
        ranked = rank_items(users, items, self._users, self._known)
        return float(np.nanmean(per_user_ranking(ranked, self._users, self._part, depths=(20,)).ndcg[20]))


def followed(curve: Curve, split: Split, patience: int, seed: int) -> np.ndarray:
    """Per epoch until ``patience`` passed without a better validation: CPU seconds, validation NDCG@20, test NDCG@20."""
    judges = [Ndcg(split, part, split.training, seed) for part in (split.validation, split.test)]
    points: list[list[float]] = []
    for seconds, rows in curve:
        points.append([seconds, *(judge(rows) for judge in judges)])
        best = int(np.argmax([point[1] for point in points]))
        if len(points) - 1 - best >= patience:
            break
    return np.asarray(points)


def table(name: str, splits: list[Split], patience: int) -> None:
    """Print one log's table, means over the splits."""
    graphs = [InteractionGraph.of(split.training) for split in splits]
    size = splits[0].training
    print(
        f"\n## {name}: {size.num_users:,} users, {size.num_items:,} items, {len(size.users):,} training pairs, {len(splits)} seed(s)\n"
    )
    columns = ["way", "epochs", "CPU s to its best", "of the reference's", "NDCG@20", "of the reference's"]
    columns += ["CPU s to .95 of the reference", "share", "CPU s to the reference", "share"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)
    reference: list[np.ndarray] = []
    for said, way in WAYS.items():
        rows = []
        for seed, (split, graph) in enumerate(zip(splits, graphs, strict=True)):
            curve = embedded(graph, split, seed) if way is None else trained(way, graph, split.training, seed)
            points = followed(curve, split, patience, seed)
            best = points[int(points[:, 1].argmax())]
            if len(reference) < len(splits):
                reference.append(best)
            base = reference[seed]
            firsts = [_first(points, share * base[1]) for share in (0.95, 1.0)]
            costs = [x for first in firsts for x in (first, first / base[0])]
            rows.append([int(points[:, 1].argmax()), best[0], best[0] / base[0], best[2], best[2] / base[2], *costs])
        mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
        line = f"{mean[0]:.0f} | {mean[1]:.2f} | {mean[2]:.3f} | {mean[3]:.4f} ± {spread[3]:.4f} | {mean[4]:.3f} ± {spread[4]:.3f}"
        reached = " | ".join(
            "never | " if np.isnan(mean[at]) else f"{mean[at]:.2f} | {mean[at + 1]:.3f}" for at in (5, 7)
        )
        print(f"| {said} | {line} | {reached} |", flush=True)


def _first(points: np.ndarray, wanted: float) -> float:
    """CPU seconds until validation attains ``wanted``, NaN where it never does."""
    there = points[points[:, 1] >= wanted, 0]
    return float(there[0]) if len(there) else float("nan")


def distinct(log: Interactions) -> Interactions:
    """The log without repeated pairs."""
    first = np.unique(log.users.astype(np.int64) * log.num_items + log.items, return_index=True)[1]
    return subset(log, np.isin(np.arange(len(log.users)), first))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--patience", type=int, default=8)
    parser.add_argument("--logs", nargs="+", default=["sparse", "full", "clustered"])
    options = parser.parse_args()
    logs: dict[str, Callable[[int], Split]] = {
        "sparse": lambda seed: load_split(options.data),
        "full": lambda seed: split_users(load(options.data, "full").training, seed=seed),
        "clustered": lambda seed: split_users(distinct(clustered_log(20_000, 10_000, 300_000, seed=seed)), seed=seed),
    }
    said = f"--seeds {options.seeds} --patience {options.patience} --logs {' '.join(options.logs)}"
    print(
        f"# Anchors: quality against cost\n\n{machine()}\n\nCommand: `python -m benchmarks.speed.anchor_curve --data DIR {said}`"
    )
    for name in options.logs:
        table(name, [logs[name](seed) for seed in range(options.seeds)], options.patience)


if __name__ == "__main__":
    main()

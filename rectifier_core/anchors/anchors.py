"""Stage: anchors, where behaviour places each item, by LightGCN on the training interactions or by a spectral embedding of them.

Source: He et al., "LightGCN", SIGIR 2020 (equations 3-8 propagation, 15 the BPR loss with L2 on the ego rows); "Towards Trustworthy
Multimodal Recommendation", arXiv 2602.00730, section on anchors: item embeddings, L2-normalised. Larger steps: Malladi et al., "On the SDEs
and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022.

Differs from the paper:
- ``start = "spectral"`` begins at the leading singular vectors of the normalised adjacency instead of at noise, and ``previous`` at the
  ego rows of an earlier run: the same objective from nearer its end. ``start = "random"`` is the paper's.
- The layers of the final representation run over all interactions, the held-out slice included; only the gradient never saw it.
- Early stopping watches Recall@20 of a held-out slice of the training interactions; the paper's criterion is not given.
- Steps of more than ``USUAL_STEP`` pairs are taken at a higher learning rate.
- Items without interactions get no anchor (a zero row, ``trained`` False) instead of the noise they started from.
- ``method = "spectral"`` is another model: no BPR, see ``spectral``. By default it is taken for logs of more than ``TRAINED_PAIRS`` pairs.
"""

from __future__ import annotations

import numpy as np
import torch

from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.anchors.held_out_recall import HeldOutRecall
from rectifier_core.anchors.interaction_sampling import NegativeSampler, hold_out
from rectifier_core.anchors.lightgcn import LightGCNTraining
from rectifier_core.anchors.propagation import ITEMS, USERS, InteractionGraph, layer_mean_rows
from rectifier_core.anchors.reliability import split_half_reliability
from rectifier_core.anchors.spectral import spectral_embedding, spectral_start
from rectifier_core.base.arrays import Float32
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, silent, unit_rows
from rectifier_core.base.records import Anchors, Interactions
from rectifier_core.base.seeding import generator
from rectifier_core.base.weighted_sums import sparse_product

USUAL_STEP = 2048
"""Pairs of a step that ``learning_rate`` is meant for; of larger steps, which are fewer, each goes sqrt(size / USUAL_STEP) times as far."""
FASTEST = 4.0
"""At most how many times: at 8 times, held-out recall peaks early and lower (``benchmarks/speed/anchor_curve.py``)."""


def train_anchors(
    interactions: Interactions,
    config: AnchorsConfig,
    *,
    seed: int,
    previous: Float32 | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Anchors:
    """The anchors of all items, one unit row [A] each.

    ``previous`` [I, A] holds the ego rows of an earlier run, NaN for items it did not have. It replaces ``config.start``. Training runs on
    ``device``. The start and the reliability are computed on the CPU, so that they do not depend on the device. Raises ValueError if the
    shape of ``previous`` does not fit.
    """
    method = config.method_for(len(interactions.users))
    if config.method == "auto" and previous is not None:
        method = "lightgcn"  # Only what is trained starts from something.
    ego, losses, recalls = _learn(interactions, config, method, seed, previous, device, progress)
    num_users, num_items = interactions.num_users, interactions.num_items
    trained = np.bincount(interactions.items, minlength=num_items) > 0
    final = layer_mean_rows(InteractionGraph.of(interactions).to(device), ego, config.num_layers)
    items, item_ego = unit_rows(final[num_users:]), ego[num_users:].copy()
    items[~trained] = item_ego[~trained] = 0
    return Anchors(
        items=items,
        ego=item_ego,
        user_ego=ego[:num_users].copy(),
        trained=trained & items.any(axis=1),
        reliability=split_half_reliability(
            interactions, config.embedding_size, config.num_layers, generator(seed, "anchors", "halves")
        ),
        losses=np.asarray(losses, dtype=np.float64),
        recalls=np.asarray(recalls, dtype=np.float64),
        method=method,
    )


def _learn(
    interactions: Interactions,
    config: AnchorsConfig,
    method: str,
    seed: int,
    previous: Float32 | None,
    device: str,
    progress: Progress,
) -> tuple[Float32, list[float], list[float]]:
    """The rows before propagation [U + I, A], losses and recalls. What only training needs is freed on return."""
    training, held_out = hold_out(interactions, config.held_out, generator(seed, "anchors", "hold-out"))
    graph = InteractionGraph.of(training)
    judge = HeldOutRecall(training, held_out, generator(seed, "anchors", "judge"))
    if method == "spectral":
        rng = generator(seed, "anchors", "start")
        ego, recall = spectral_embedding(graph, config.embedding_size, config.num_layers, judge, rng)
        return ego, [], [recall]
    start = _starting_point(graph, config, seed, previous)
    return _fit(start, graph.to(device), training, judge, config, seed, progress)


def _starting_point(graph: InteractionGraph, config: AnchorsConfig, seed: int, previous: Float32 | None) -> Float32:
    rng, width = generator(seed, "anchors", "start"), config.embedding_size
    if previous is not None:
        num_items = graph.num_nodes - graph.num_users
        if previous.shape != (num_items, width):
            raise ValueError(f"previous: wanted shape {(num_items, width)}, got {previous.shape}")
        items = torch.from_numpy(np.nan_to_num(previous, nan=0.0))
        # Users, and items the earlier run did not have, start where their neighbours are.
        users = sparse_product(graph.towards[USERS], items)
        unknown = torch.from_numpy(np.isnan(previous).any(axis=1))
        items[unknown] = sparse_product(graph.towards[ITEMS], users)[unknown]
        start: Float32 = torch.cat([users, items]).numpy()
        return start
    if config.start == "random":
        return rng.normal(0.0, 0.1, (graph.num_nodes, width)).astype(np.float32)
    return spectral_start(graph, width, rng)


def _fit(
    best_ego: Float32,
    graph: InteractionGraph,
    training: Interactions,
    judge: HeldOutRecall,
    config: AnchorsConfig,
    seed: int,
    progress: Progress,
) -> tuple[Float32, list[float], list[float]]:
    """Train from ``best_ego``, which is overwritten by the rows of every epoch that ranks better."""
    size = pairs_a_step(config, len(training.users), graph.num_entries)
    rate = config.learning_rate * float(np.clip(np.sqrt(size / USUAL_STEP), 1, FASTEST))
    model = LightGCNTraining(graph, best_ego, config.num_layers, learning_rate=rate, weight_decay=config.weight_decay)
    sampler = NegativeSampler(training)
    best = to_pass = judge(model.final())
    losses: list[float] = []
    recalls, epochs_without_gain = [best], 0
    for epoch in range(config.epochs):
        rng = generator(seed, "anchors", "epoch", epoch)
        order = rng.permutation(np.arange(len(training.users), dtype=np.int32))
        total: float | torch.Tensor = 0.0
        for first in range(0, len(order), size):
            picked = order[first : first + size]
            users = training.users[picked]
            total += model.step(users, training.items[picked], sampler(users, rng)) * len(picked)
        losses.append(float(total) / max(1, len(order)))
        recalls.append(judge(model.final()))
        progress(f"anchors: loss {losses[-1]:.4f}, held-out recall@20 {recalls[-1]:.4f}", epoch + 1, config.epochs)
        if recalls[-1] > best:
            best = recalls[-1]
            np.copyto(best_ego, model.ego)
        epochs_without_gain += 1
        if best > to_pass * (1 + config.least_gain):
            to_pass, epochs_without_gain = best, 0
        if epochs_without_gain >= config.patience:
            break
    return best_ego, losses, recalls


def pairs_a_step(config: AnchorsConfig, num_pairs: int, num_entries: int) -> int:
    """The size of a step on a log of ``num_pairs`` whose graph has ``num_entries`` both ways: see ``AnchorsConfig``."""
    if config.batch_size is not None:
        return config.batch_size
    step_work = 2 * max(1, config.num_layers) * num_entries * config.embedding_size
    steps = int(np.clip(config.epoch_work / max(1, step_work), min(8, config.steps_per_epoch), config.steps_per_epoch))
    return max(USUAL_STEP, -(-num_pairs // steps))

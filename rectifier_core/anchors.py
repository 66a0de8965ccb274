"""Stage: anchors, where behaviour places each item, by LightGCN on the training interactions.

Source: He et al., "LightGCN", SIGIR 2020 (equations 3-8 propagation, 15 the BPR loss with L2 on the ego rows); "Towards Trustworthy
Multimodal Recommendation", arXiv 2602.00730, section on anchors: item embeddings, L2-normalised.

Differs from the paper:
- ``start = "spectral"`` begins at the leading singular vectors of the normalised adjacency instead of at noise, and ``previous`` at the
  ego rows of an earlier run: the same objective from nearer its end. ``start = "random"`` is the paper's.
- The layers of the final representation run over all interactions, the held-out slice included; only the gradient never saw it.
- Early stopping watches Recall@20 of a held-out slice of the training interactions; the paper's criterion is not given.
- Items without interactions get no anchor (a zero row, ``trained`` False) instead of the noise they started from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch

from rectifier_core.numerics import Progress, silent, unit_rows
from rectifier_core.propagation import LayerMean, layer_mean, leading_singular_vectors, normalised_bipartite, symmetric_adjacency
from rectifier_core.records import Anchors, Bool, Float32, Int32, Interactions
from rectifier_core.seeding import generator
from rectifier_core.split_half import split_half_reliability

SPECTRAL_SPREAD = 0.3
"""Standard deviation of the spectral start's entries: smaller, and the first epochs of BPR undo the spectrum instead of refining it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorsConfig:
    """Hyperparameters of the anchors.

    ``batch_size`` None takes at least 2,048 pairs a step and at most ``steps_per_epoch`` steps an epoch; on a graph so large that these
    would cost more than ``epoch_work`` multiply-adds of propagation, fewer and larger steps (never fewer than 8), so that an epoch's cost
    stays bounded however long the log is. ``patience`` counts epochs without a better held-out Recall@20.
    """

    embedding_size: int = 64
    num_layers: int = 3
    learning_rate: float = 5e-3
    weight_decay: float = 1e-4
    epochs: int = 200
    batch_size: int | None = None
    steps_per_epoch: int = 64
    epoch_work: float = 2.5e10
    patience: int = 5
    held_out: float = 0.1
    start: Literal["spectral", "random"] = "spectral"
    warm_start: bool = False

    def __post_init__(self) -> None:
        for name in ("embedding_size", "steps_per_epoch", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        for name in ("num_layers", "epochs", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: wanted at least 0, got {getattr(self, name)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size: wanted at least 1, got {self.batch_size}")
        for name in ("learning_rate", "epoch_work"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: wanted above 0, got {getattr(self, name)}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out: wanted a share in (0, 1), got {self.held_out}")


def train_anchors(
    interactions: Interactions,
    config: AnchorsConfig,
    *,
    seed: int,
    previous: Float32 | None = None,
    progress: Progress = silent,
) -> Anchors:
    """Train LightGCN and return one unit row [A] per item.

    ``previous`` [I, A] holds the ego rows of an earlier run, NaN for items it did not know; given, it replaces ``config.start``.
    Raises ValueError if its shape does not fit.
    """
    num_users, num_items = interactions.num_users, interactions.num_items
    everything = normalised_bipartite(interactions.users, interactions.items, num_users, num_items)
    trained = np.bincount(interactions.items, minlength=num_items) > 0
    training, held_out = hold_out(interactions, config.held_out, generator(seed, "anchors", "hold-out"))
    graph = normalised_bipartite(training.users, training.items, num_users, num_items)
    ego = _starting_point(graph, config, seed, previous)
    ego, losses, recalls = _fit(ego, graph, training, held_out, config, seed, progress)
    final = layer_mean(symmetric_adjacency(everything), ego, config.num_layers)[num_users:]
    items = np.where(trained[:, None], unit_rows(final), np.float32(0))
    return Anchors(
        items=np.ascontiguousarray(items),
        ego=np.ascontiguousarray(np.where(trained[:, None], ego[num_users:], np.float32(0))),
        trained=trained & (np.abs(items).sum(axis=1) > 0),
        reliability=split_half_reliability(interactions, config.embedding_size, config.num_layers, generator(seed, "anchors", "halves")),
        losses=np.asarray(losses, dtype=np.float64),
        recalls=np.asarray(recalls, dtype=np.float64),
    )


def hold_out(interactions: Interactions, share: float, rng: np.random.Generator) -> tuple[Interactions, Interactions]:
    """Split off about ``share`` of the pairs, never a user's or an item's only one, so that everything trained stays trained."""
    order = rng.permutation(len(interactions.users))
    users, items = interactions.users[order], interactions.items[order]
    needed = np.zeros(len(order), dtype=bool)
    needed[np.unique(users, return_index=True)[1]] = True
    needed[np.unique(items, return_index=True)[1]] = True
    chosen = np.zeros(len(order), dtype=bool)
    chosen[np.flatnonzero(~needed)[: int(share * len(order))]] = True
    return _pairs(interactions, users[~chosen], items[~chosen]), _pairs(interactions, users[chosen], items[chosen])


def _pairs(whole: Interactions, users: Int32, items: Int32) -> Interactions:
    return Interactions(users=users, items=items, times=None, num_users=whole.num_users, num_items=whole.num_items)


def _starting_point(graph: sp.csr_array, config: AnchorsConfig, seed: int, previous: Float32 | None) -> Float32:
    num_users, num_items = graph.shape
    rng, width = generator(seed, "anchors", "start"), config.embedding_size
    if previous is not None:
        if previous.shape != (num_items, width):
            raise ValueError(f"previous: wanted shape {(num_items, width)}, got {previous.shape}")
        items = np.nan_to_num(previous, nan=0.0)
        users = graph @ items
        unknown = np.isnan(previous).any(axis=1)
        items[unknown] = (graph.T @ users)[unknown]
        return np.concatenate([users, items]).astype(np.float32)
    if config.start == "random":
        return rng.normal(0.0, 0.1, (num_users + num_items, width)).astype(np.float32)
    return spectral_start(graph, width, rng)


def spectral_start(graph: sp.csr_array, width: int, rng: np.random.Generator) -> Float32:
    """Ego rows [U + I, width] at the leading singular vectors of a normalised ``graph`` [U, I], entries spread by ``SPECTRAL_SPREAD``."""
    u, s, v = leading_singular_vectors(graph, width, rng)
    ego = np.concatenate([u, v]) * s
    spread = float(ego.std()) or 1.0
    return (ego * (SPECTRAL_SPREAD / spread)).astype(np.float32)


def _fit(
    start: Float32,
    graph: sp.csr_array,
    training: Interactions,
    held_out: Interactions,
    config: AnchorsConfig,
    seed: int,
    progress: Progress,
) -> tuple[Float32, list[float], list[float]]:
    adjacency, num_users = symmetric_adjacency(graph), training.num_users
    ego = torch.from_numpy(start.copy()).requires_grad_()
    optimiser = torch.optim.Adam([ego], lr=config.learning_rate)
    judge = HeldOutRecall(training, held_out, generator(seed, "anchors", "judge"))
    sampler = NegativeSampler(training)
    best, best_ego, since = judge(layer_mean(adjacency, start, config.num_layers)), start.copy(), 0
    losses: list[float] = []
    recalls = [best]
    size = config.batch_size or _batch_size(len(training.users), adjacency.nnz, config)
    for epoch in range(config.epochs):
        rng = generator(seed, "anchors", "epoch", epoch)
        order = rng.permutation(len(training.users))
        total = 0.0
        for first in range(0, len(order), size):
            picked = order[first : first + size]
            users, positives = training.users[picked], training.items[picked]
            negatives = sampler(users, rng)
            final: torch.Tensor = LayerMean.apply(ego, adjacency, config.num_layers)  # type: ignore[no-untyped-call]
            loss = bpr_loss(final, ego, users, positives + num_users, negatives + num_users, config.weight_decay)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(loss.detach()) * len(picked)
        losses.append(total / max(1, len(order)))
        current = ego.detach().numpy()
        recalls.append(judge(layer_mean(adjacency, current, config.num_layers)))
        progress(f"anchors: loss {losses[-1]:.4f}, held-out recall@20 {recalls[-1]:.4f}", epoch + 1, config.epochs)
        since += 1
        if recalls[-1] > best:
            best, best_ego, since = recalls[-1], current.copy(), 0
        if since >= config.patience:
            break
    return best_ego, losses, recalls


def _batch_size(num_pairs: int, num_entries: int, config: AnchorsConfig) -> int:
    step_work = 2 * max(1, config.num_layers) * num_entries * config.embedding_size
    steps = int(np.clip(config.epoch_work / max(1, step_work), min(8, config.steps_per_epoch), config.steps_per_epoch))
    return max(2048, -(-num_pairs // steps))


def bpr_loss(final: torch.Tensor, ego: torch.Tensor, users: Int32, positives: Int32, negatives: Int32, weight_decay: float) -> torch.Tensor:
    """Mean of -log sigmoid(s_up - s_un) plus half the squared length of the batch's ego rows a pair (LightGCN equation 15).

    ``final`` and ``ego`` [U + I, A]; the index arrays [B] are rows of both, items offset by the number of users.
    """
    rows = [torch.from_numpy(index.astype(np.int64)) for index in (users, positives, negatives)]
    user, positive, negative = (final.index_select(0, index) for index in rows)
    ranking = torch.nn.functional.softplus(((negative - positive) * user).sum(dim=1)).mean()
    length = sum(ego.index_select(0, index).square().sum() for index in rows)
    return ranking + weight_decay * 0.5 * length / len(users)


class PairSet:
    """Membership of (user, item) pairs, vectorised: a sorted array of int64 keys."""

    def __init__(self, pairs: Interactions) -> None:
        self._num_items = pairs.num_items
        self._keys = np.unique(pairs.users.astype(np.int64) * pairs.num_items + pairs.items)

    def __contains__(self, pair: tuple[int, int]) -> bool:
        return bool(self.contains(np.array([pair[0]], np.int32), np.array([pair[1]], np.int32))[0])

    def contains(self, users: Int32, items: Int32) -> Bool:
        """True where the pair is in the set; ``users`` and ``items`` broadcast against each other."""
        keys = users.astype(np.int64) * self._num_items + items
        if not len(self._keys):
            return np.zeros(keys.shape, dtype=np.bool_)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray(self._keys[at] == keys)


class NegativeSampler:
    """Uniform negatives over the items of the log, rejecting the user's own positives; a whole batch a call."""

    def __init__(self, training: Interactions) -> None:
        self._pool = np.unique(training.items)
        self._positives = PairSet(training)

    def __call__(self, users: Int32, rng: np.random.Generator) -> Int32:
        """One negative per user, int32; after 20 rounds a user who took (nearly) every item keeps the last draw."""
        drawn = self._pool[rng.integers(len(self._pool), size=len(users))]
        pending = np.arange(len(users))
        for _ in range(20):
            pending = pending[self._positives.contains(users[pending], drawn[pending])]
            if not len(pending):
                break
            drawn[pending] = self._pool[rng.integers(len(self._pool), size=len(pending))]
        return drawn


class HeldOutRecall:
    """Recall@20 over at most 2,000 held-out users, all items ranked, their training items masked."""

    def __init__(self, training: Interactions, held_out: Interactions, rng: np.random.Generator) -> None:
        users, counts = np.unique(held_out.users, return_counts=True)
        chosen = np.sort(rng.choice(len(users), min(2000, len(users)), replace=False))
        self._users, self._wanted_counts = users[chosen], counts[chosen]
        self._wanted, self._num_items = PairSet(held_out), training.num_items
        matrix = sp.csr_array(
            (np.ones(len(training.users), np.float32), (training.users, training.items)), (training.num_users, self._num_items)
        )
        self._known = matrix[self._users]

    def __call__(self, final: Float32, *, block: int = 256) -> float:
        """Mean recall of ``final`` [U + I, A]; 0 when nothing is held out."""
        if not len(self._users):
            return 0.0
        items, total = torch.from_numpy(final[-self._num_items :]), 0.0
        for first in range(0, len(self._users), block):
            users = self._users[first : first + block]
            known = self._known[first : first + block].tocoo()
            scores = torch.from_numpy(final[users]) @ items.T
            scores[torch.from_numpy(known.row.astype(np.int64)), torch.from_numpy(known.col.astype(np.int64))] = -torch.inf
            top = scores.topk(min(20, self._num_items), dim=1).indices.numpy().astype(np.int32)
            hits = self._wanted.contains(users[:, None], top).sum(axis=1)
            total += float((hits / self._wanted_counts[first : first + block]).sum())
        return total / len(self._users)

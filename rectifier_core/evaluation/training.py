"""The fit loop of every recommender: Adam on sampled triples, early stopping on validation Recall@20, the best epoch's weights kept.

Each positive gets one uniform negative from the items of the log, never one of the user's logged pairs. An epoch is all positives once,
shuffled. ``patience`` counts evaluations without a better score. MMRec rounds scores to four decimals; here they are not rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from rectifier_core.anchors.interaction_sampling import NegativeSampler
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.backbones.config import TrainingConfig
from rectifier_core.evaluation.backbones.protocol import Backbone, Batch, TrainingSet
from rectifier_core.evaluation.metrics import per_user_ranking
from rectifier_core.evaluation.ranking import rank_items


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """``losses[e]`` is the mean loss of epoch e, ``scores[n]`` the validation Recall@20 after epoch ``evaluated[n]``."""

    losses: tuple[float, ...]
    evaluated: tuple[int, ...]
    scores: tuple[float, ...]
    best_epoch: int


def fit(
    backbone: Backbone,
    data: TrainingSet,
    validation: Interactions,
    config: TrainingConfig,
    *,
    seed: int,
    progress: Progress = silent,
) -> History:
    """Train ``backbone`` in place and leave it at its best epoch; raises ValueError when the loss stops being a number."""
    optimiser = torch.optim.Adam(backbone.parameters(), lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, config.decay ** (1 / config.decay_epochs))
    sampler = NegativeSampler(data.known)
    losses: list[float] = []
    evaluated: list[int] = []
    scores: list[float] = []
    best = {name: value.clone() for name, value in backbone.state_dict().items()}
    best_epoch, best_score, since = -1, -1.0, 0
    for epoch in range(config.epochs):
        rng = generator(seed, "training", "epoch", epoch)
        backbone.train()
        losses.append(_epoch(backbone, data, sampler, optimiser, config.batch_size, rng))
        schedule.step()
        if not np.isfinite(losses[-1]):
            raise ValueError(
                f"{backbone.name}: the loss of epoch {epoch} is {losses[-1]}; a smaller learning_rate may help"
            )
        if (epoch + 1) % config.evaluate_every and epoch + 1 < config.epochs:
            continue
        backbone.eval()
        score = _validation_recall(backbone, data.known, validation)
        evaluated.append(epoch)
        scores.append(score)
        progress(f"{backbone.name}: loss {losses[-1]:.4f}, validation recall@20 {score:.4f}", epoch + 1, config.epochs)
        since += 1
        if score > best_score:
            best = {name: value.clone() for name, value in backbone.state_dict().items()}
            best_epoch, best_score, since = epoch, score, 0
        if since > config.patience:
            break
    backbone.load_state_dict(best)
    backbone.eval()
    return History(losses=tuple(losses), evaluated=tuple(evaluated), scores=tuple(scores), best_epoch=best_epoch)


def _epoch(
    backbone: Backbone,
    data: TrainingSet,
    sampler: NegativeSampler,
    optimiser: torch.optim.Optimizer,
    size: int,
    rng: np.random.Generator,
) -> float:
    backbone.begin_epoch(rng)
    total = 0.0
    device = next(backbone.parameters()).device
    for batch in batches(data.positives, sampler, size, rng):
        loss = backbone.loss(Batch(*(x.to(device) for x in batch)))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach()) * len(batch.users)
    return total / max(1, len(data.positives.users))


def batches(positives: Interactions, sampler: NegativeSampler, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """The triples of one epoch: every positive once, in random order, with a fresh negative."""
    order = rng.permutation(len(positives.users))
    for first in range(0, len(order), size):
        picked = order[first : first + size]
        users = positives.users[picked]
        drawn = (users, positives.items[picked], sampler(users, rng))
        yield Batch(*(torch.from_numpy(x.astype(np.int64)) for x in drawn))


def _validation_recall(backbone: Backbone, known: Interactions, validation: Interactions) -> float:
    """Recall@20 over all users with a validation pair and a training pair; 0 without such a user."""
    users = np.intersect1d(validation.users, known.users).astype(np.int32)
    if not len(users):
        return 0.0
    with torch.no_grad():
        ranked = rank_items(*backbone.represent(), users, known)
    return float(per_user_ranking(ranked, users, validation).recall[20].mean())

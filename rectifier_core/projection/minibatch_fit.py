"""The paper's solver: Adam on the cosine loss, small-loss selection inside each mini-batch."""

from __future__ import annotations

import numpy as np
import torch

from rectifier_core.base.arrays import Float32, Int64
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.base.records import Anchors
from rectifier_core.base.seeding import generator, torch_generator
from rectifier_core.projection.crossfit import FoldMaps
from rectifier_core.projection.problem import Fitted, Problem, keep_best


def fit_minibatch(problem: Problem) -> Fitted:
    """Fit one map for all folds by mini-batches. Its scores are in-sample."""
    modality, features, pairs, anchors = problem.modality, problem.features, problem.pairs, problem.anchors
    config, keep_ratio, seed, progress = problem.config, problem.keep_ratio, problem.seed, problem.progress
    source = torch_generator(seed, "projection", modality, "weight")
    width, size = features.shape[1], anchors.items.shape[1]
    weight = (torch.randn(width, size, generator=source) / np.sqrt(width)).requires_grad_()
    optimiser = torch.optim.Adam([weight], lr=config.learning_rate, weight_decay=config.weight_decay)
    for epoch in range(config.epochs):
        order = generator(seed, "projection", modality, "epoch", epoch).permutation(len(pairs))
        share = 1 - (1 - keep_ratio) * min(1.0, epoch / config.ramp)
        epoch_loss = 0.0
        for first in range(0, len(order), config.batch_size):
            rows = np.sort(pairs[order[first : first + config.batch_size]])
            loss = _cosine_losses(features, anchors, rows, weight)
            smallest = loss.topk(max(1, round(share * len(rows))), largest=False).values
            optimiser.zero_grad(set_to_none=True)
            smallest.mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            epoch_loss += float(smallest.detach().sum())
        progress(
            f"projection of {modality}: cosine loss {epoch_loss / max(1.0, share * len(order)):.4f}",
            epoch + 1,
            config.epochs,
        )
    learned = weight.detach().numpy()
    projected = np.zeros((len(pairs), size), np.float32)
    for block in row_blocks(len(pairs), config.block_rows):
        projected[block] = unit_rows(np.asarray(features[pairs[block]])) @ learned
    score: Float32 = np.einsum("ij,ij->i", unit_rows(projected), anchors.items[pairs])
    means, target_means = np.zeros((config.folds, width), np.float32), np.zeros((config.folds, size), np.float32)
    return Fitted(
        weight=learned,
        feature_mean=means[0],
        target_mean=target_means[0],
        maps=FoldMaps(
            weights=np.repeat(learned[None], config.folds, axis=0), feature_means=means, target_means=target_means
        ),
        projected=projected,
        kept=keep_best(score, keep_ratio),
        ridge=None,
    )


def _cosine_losses(features: Float32, anchors: Anchors, rows: Int64, weight: torch.Tensor) -> torch.Tensor:
    units = torch.from_numpy(unit_rows(np.asarray(features[rows])))
    targets = torch.from_numpy(np.asarray(anchors.items[rows]))
    return 1 - torch.nn.functional.cosine_similarity(units @ weight, targets, dim=1)

"""The distinct rows of a batch, so that losses are computed at those rows alone."""

from __future__ import annotations

from typing import NamedTuple

import torch

from rectifier_core.evaluation.backbones.protocol import Batch, softplus_ranking


class BatchRows(NamedTuple):
    """The distinct rows of a batch of B triples: users first, then items.

    ``users`` [P] and ``items`` [Q] are sorted. ``user_at``, ``positive_at`` and ``negative_at`` [B] are each triple's rows in both together.
    ``user_counts`` [P], ``positive_counts`` and ``negative_counts`` [Q] float32 are how often a row occurs.
    """

    users: torch.Tensor
    items: torch.Tensor
    user_at: torch.Tensor
    positive_at: torch.Tensor
    negative_at: torch.Tensor
    user_counts: torch.Tensor
    positive_counts: torch.Tensor
    negative_counts: torch.Tensor

    @classmethod
    def of(cls, batch: Batch) -> BatchRows:
        """The distinct rows of ``batch``, on its device."""
        users, user_at = torch.unique(batch.users, return_inverse=True)
        items, item_at = torch.unique(torch.cat([batch.positives, batch.negatives]), return_inverse=True)
        positive_at, negative_at = item_at.split(len(batch.users))
        return cls(
            users=users,
            items=items,
            user_at=user_at,
            positive_at=positive_at + len(users),
            negative_at=negative_at + len(users),
            user_counts=torch.bincount(user_at, minlength=len(users)).float(),
            positive_counts=torch.bincount(positive_at, minlength=len(items)).float(),
            negative_counts=torch.bincount(negative_at, minlength=len(items)).float(),
        )

    def stacked(self, num_users: int) -> torch.Tensor:
        """Row numbers [P + Q] in a table of all users, then all items."""
        return torch.cat([self.users, self.items + num_users])

    def ranking_loss(self, final: torch.Tensor, weight_decay: float) -> torch.Tensor:
        """BPR plus ``weight_decay`` times half the squared length a triple of the rows as they are scored: ``final`` [P + Q, R]."""
        user, positive, negative = (
            final.index_select(0, at) for at in (self.user_at, self.positive_at, self.negative_at)
        )
        loss = softplus_ranking(user, positive, negative)
        if weight_decay:
            counts = torch.cat([self.user_counts, self.positive_counts + self.negative_counts])
            loss = loss + weight_decay * 0.5 * (counts @ final.square().sum(dim=1)) / len(self.user_at)
        return loss

"""What a batch needs and no more: its distinct rows, and sparse products at those rows alone."""

from __future__ import annotations

from typing import NamedTuple

import torch

from rectifier_core.evaluation.backbones.protocol import Batch, softplus_ranking
from rectifier_core.evaluation.backbones.sparse_product import SparseOperator


class BatchRows(NamedTuple):
    """The distinct rows of a batch of B triples, users first, then items, and where each triple finds its own.

    ``users`` [P] and ``items`` [Q] are sorted; ``user_at``, ``positive_at``, ``negative_at`` [B] count through both together (an item's
    place is P plus its rank); ``user_counts`` [P], ``positive_counts`` and ``negative_counts`` [Q] float32 say how often a row occurs.
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


def product_at(operator: SparseOperator, rows: torch.Tensor | None, dense: torch.Tensor) -> torch.Tensor:
    """``(matrix @ dense)[rows]`` with the gradient to ``dense``; all rows where ``rows`` is None."""
    if rows is None:
        return operator(dense)
    if dense.device.type != "cpu":
        return operator(dense).index_select(0, rows)
    return SparseOperator(operator.matrix[rows.numpy()])(dense)


def layer_mean_at(
    operator: SparseOperator, ego: torch.Tensor, num_layers: int, rows: torch.Tensor | None
) -> torch.Tensor:
    """Rows of LightGCN's readout, the mean of ``ego``, ``A ego``, ..., ``A^L ego``: [N, R] -> [len(rows), R].

    By Horner's rule, E + A (E + A (E + ...)): only the last product, which the loss sees, can be cut down to ``rows``.
    """
    partial = ego
    for _ in range(num_layers - 1):
        partial = ego + operator(partial)
    own = ego if rows is None else ego.index_select(0, rows)
    return (own + product_at(operator, rows, partial)) / (num_layers + 1) if num_layers else own

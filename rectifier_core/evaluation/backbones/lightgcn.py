"""LightGCN: free embeddings, smoothed over the interaction graph. It reads no features.

Source: He et al., "LightGCN", SIGIR 2020, equations 3-8. Checked against enoche/MMRec at commit e775373 (``src/models/lightgcn.py``): loss,
gradients and representations of one batch on fixed weights agree to 1e-5.

Differs from the paper, as MMRec does:
- The penalty is the plain Frobenius norm of the batch's layer-0 rows over the batch size (``embedding_penalty``), not half its square.
- Embeddings start Xavier-uniform, not normal.

Differs from MMRec:
- -log sigmoid(x) stands for -log(1e-10 + sigmoid(x)), and degrees carry no 1e-7: equal to single precision.
- A pair that is logged twice is one edge here as there, but an epoch visits it twice.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from rectifier_core.anchors.propagation import normalised_bipartite, symmetric_adjacency
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.backbones.config import LightGCNConfig, TrainingConfig
from rectifier_core.evaluation.backbones.protocol import Backbone, Batch, TrainingSet, softplus_ranking
from rectifier_core.evaluation.backbones.sparse_product import SparseOperator, layer_mean

TRAINING = TrainingConfig(learning_rate=5e-3, batch_size=4096, epochs=200, patience=4, evaluate_every=3)
"""Chosen on the validation pairs of a sparse log of 6,000 users and 66,000 pairs, for speed among what ranks alike."""


class LightGCN(Backbone):
    """Users and items are their mean over layers 0..L of the propagation over ``data.graph``."""

    name: ClassVar[str] = "lightgcn"
    config_type: ClassVar[type] = LightGCNConfig
    training_config: ClassVar[TrainingConfig] = TRAINING
    searched_decays: ClassVar[tuple[float, ...]] = (1e-3, 1e-2, 0.1, 1.0)

    def __init__(self, data: TrainingSet, config: LightGCNConfig, *, seed: int) -> None:
        super().__init__(seed)
        self.config = config
        self.user_embedding = self.embedding(data.known.num_users, config.embedding_size)
        self.item_embedding = self.embedding(data.known.num_items, config.embedding_size)
        self._adjacency = interaction_operator(data.graph)

    def loss(self, batch: Batch) -> torch.Tensor:
        """BPR of the propagated rows, and the penalty on the layer-0 rows."""
        users, items = self.represent()
        picked = (
            users.index_select(0, batch.users),
            items.index_select(0, batch.positives),
            items.index_select(0, batch.negatives),
        )
        loss = softplus_ranking(*picked)
        if not self.config.weight_decay:
            return loss
        ego = (
            self.user_embedding.index_select(0, batch.users),
            self.item_embedding.index_select(0, batch.positives),
            self.item_embedding.index_select(0, batch.negatives),
        )
        return loss + self.config.weight_decay * embedding_penalty(*ego)

    def represent(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Users [U, A] and items [I, A]."""
        return propagate(self._adjacency, self.user_embedding, self.item_embedding, self.config.num_layers)


def interaction_operator(graph: Interactions) -> SparseOperator:
    """D^-1/2 A D^-1/2 over users, then items, without self-loops; repeated pairs count once, nodes without an edge stay empty."""
    bipartite = normalised_bipartite(graph.users, graph.items, graph.num_users, graph.num_items)
    return SparseOperator(symmetric_adjacency(bipartite), symmetric=True)


def propagate(
    adjacency: SparseOperator, users: torch.Tensor, items: torch.Tensor, num_layers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """LightGCN's layer mean of users [U, A] and items [I, A] over an operator on users, then items."""
    final = layer_mean(adjacency, torch.cat([users, items]), num_layers)
    return final[: len(users)], final[len(users) :]


def embedding_penalty(users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """(||U||_F + ||P||_F + ||N||_F) / B for rows [B, A]: norms without a square, so a factor's strength falls with sqrt(B).

    A factor therefore suits one batch size, and a few times too much of it lets every row decay to nothing.
    """
    norms = torch.stack([torch.linalg.vector_norm(x) for x in (users, positives, negatives)])
    return norms.sum() / len(users)

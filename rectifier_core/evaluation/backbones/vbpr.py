"""VBPR: matrix factorisation whose items also have a linear map of their raw features. The scale of the features matters.

Source: He and McAuley, "VBPR", AAAI 2016, in the form the field compares with: enoche/MMRec at commit e775373 (``src/models/vbpr.py``,
"recommended version"), against which loss, gradients and representations of one batch on fixed weights agree to 1e-5.

Differs from the paper, as MMRec does:
- No item bias and no visual bias; the user's two halves are one free vector; the feature map has a bias, which the penalty alone moves.
- The penalty is ``embedding_penalty`` on the whole user and item vectors, not half-squares of the parameters.

Differs from MMRec:
- Modalities are joined in the order of their names, however many there are. Without any the model is plain BPR matrix factorisation, of
  users as wide as the items.
- An item without a feature gets the mean of the others.
- Only the rows of a batch are mapped where they are fewer than the items; -log sigmoid(x) stands for -log(1e-10 + sigmoid(x)).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from rectifier_core.evaluation.backbones.config import TrainingConfig, VBPRConfig
from rectifier_core.evaluation.backbones.lightgcn import embedding_penalty
from rectifier_core.evaluation.backbones.protocol import Backbone, Batch, TrainingSet, softplus_ranking

TRAINING = TrainingConfig(learning_rate=5e-3, batch_size=4096, epochs=200, patience=4, evaluate_every=3)
"""Chosen on the validation pairs of a sparse log of 6,000 users and 66,000 pairs, for speed among what ranks alike."""


class VBPR(Backbone):
    """Items are (free embedding, linear map of the joined features), users one free vector of that width."""

    name: ClassVar[str] = "vbpr"
    config_type: ClassVar[type] = VBPRConfig
    training_config: ClassVar[TrainingConfig] = TRAINING
    searched_decays: ClassVar[tuple[float, ...]] = (1e-3, 1e-2, 0.1, 1.0)
    features: torch.Tensor | None

    def __init__(self, data: TrainingSet, config: VBPRConfig, *, seed: int) -> None:
        super().__init__(seed)
        self.config = config
        names = sorted(data.features)
        self.user_embedding = self.embedding(data.known.num_users, config.embedding_size * (2 if names else 1))
        self.item_embedding = self.embedding(data.known.num_items, config.embedding_size)
        self.register_buffer("features", None)
        if names:
            self.register_buffer(
                "features", torch.from_numpy(np.concatenate([data.filled(m) for m in names], axis=1)), persistent=False
            )
            self.map = self.linear(sum(data.features[m].shape[1] for m in names), config.embedding_size)
            torch.nn.init.xavier_normal_(self.map.weight, generator=self.generator)
            torch.nn.init.zeros_(self.map.bias)

    def loss(self, batch: Batch) -> torch.Tensor:
        """BPR and the penalty on the rows of the batch."""
        users = self.user_embedding.index_select(0, batch.users)
        positives, negatives = self._items(torch.cat([batch.positives, batch.negatives])).chunk(2)
        loss = softplus_ranking(users, positives, negatives)
        if not self.config.weight_decay:
            return loss
        return loss + self.config.weight_decay * embedding_penalty(users, positives, negatives)

    def represent(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Users and items, [U, 2A] and [I, 2A]; [U, A] and [I, A] without features."""
        if self.features is None:
            return self.user_embedding, self.item_embedding
        return self.user_embedding, torch.cat([self.item_embedding, self.map(self.features)], dim=1)

    def _items(self, rows: torch.Tensor) -> torch.Tensor:
        free = self.item_embedding.index_select(0, rows)
        return free if self.features is None else torch.cat([free, mapped_rows(self.map, self.features, rows)], dim=1)


def mapped_rows(layer: torch.nn.Linear, features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``layer(features)[rows]``, of features [I, D] and rows [N], mapping whichever is fewer: the rows or all items."""
    if len(rows) < len(features):
        mapped: torch.Tensor = layer(features.index_select(0, rows))
        return mapped
    return torch.Tensor.index_select(layer(features), 0, rows)

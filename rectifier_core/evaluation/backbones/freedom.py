"""FREEDOM: LightGCN over a freshly pruned graph, plus item embeddings averaged over a frozen graph of feature neighbours.

Source: Zhou and Shen, "A Tale of Two Graphs", ACM MM 2023, equations 1-11. Checked against enoche/MMRec at commit e775373
(``src/models/freedom.py``): loss, gradients and representations of one batch on fixed weights and a fixed pruned graph agree to 1e-5.

Features have two effects: they decide the neighbours in the frozen graph, and with ``feature_loss`` they add a BPR term per modality.

Differs from the paper, as MMRec does: the item graph is normalised with the out-degree at both ends, so all edges of a modality weigh 1/k.

Differs from MMRec:
- Any number of modalities: ``modality_weights`` says what each graph counts, as shares among the modalities there are. Exactly "image" and
  "text" default to the original's 0.1 and 0.9, any other set to equal shares. Without modalities the item graph is empty.
- The maps have no bias: it cancels in BPR, which is the only place they are used.
- An item without a feature is filled with the mean for the BPR term and has itself alone in that modality's graph.
- The frozen graph is built from the features at hand every time, never read from a file named after k.
- A graph edge is kept with the same odds, drawn from the generator of the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch

from rectifier_core.base.pairs import pair_keys, subset
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.backbones.config import FREEDOMConfig, TrainingConfig
from rectifier_core.evaluation.backbones.item_graph import as_matrix, nearest_items, normalised_by_rows
from rectifier_core.evaluation.backbones.lightgcn import interaction_operator, propagate
from rectifier_core.evaluation.backbones.protocol import Backbone, Batch, TrainingSet, softplus_ranking
from rectifier_core.evaluation.backbones.sparse_product import SparseOperator
from rectifier_core.evaluation.backbones.vbpr import mapped_rows

TRAINING = TrainingConfig(learning_rate=5e-3, batch_size=4096, epochs=200, patience=4, evaluate_every=3)
"""Chosen on the validation pairs of a sparse log of 6,000 users and 66,000 pairs, for speed among what ranks alike."""


class FREEDOM(Backbone):
    """Users are LightGCN's; items are LightGCN's plus their embedding averaged over the item graph."""

    name: ClassVar[str] = "freedom"
    config_type: ClassVar[type] = FREEDOMConfig
    training_config: ClassVar[TrainingConfig] = TRAINING

    def __init__(self, data: TrainingSet, config: FREEDOMConfig, *, seed: int) -> None:
        super().__init__(seed)
        self.config = config
        self.user_embedding = self.embedding(data.known.num_users, config.embedding_size)
        self.item_embedding = self.embedding(data.known.num_items, config.embedding_size)
        self.features, self.maps = torch.nn.ParameterList(), torch.nn.ModuleList()
        if config.feature_loss:
            for name in sorted(data.features):
                self.features.append(torch.nn.Parameter(torch.tensor(data.filled(name))))
                self.maps.append(self.linear(data.features[name].shape[1], config.embedding_size, bias=False))
        self._item_graph = SparseOperator(item_graph(data, config))
        self._full = interaction_operator(data.graph)
        self._pruned = self._full
        self._edges = distinct_edges(data.graph)

    def begin_epoch(self, rng: np.random.Generator) -> None:
        """Draw the subgraph of the epoch."""
        if self.config.dropout and len(self._edges.users):
            self._pruned = interaction_operator(degree_sensitive_sample(self._edges, 1 - self.config.dropout, rng))

    def loss(self, batch: Batch) -> torch.Tensor:
        """BPR over the pruned graph, and BPR of the users with the mapped features."""
        every_user, every_item = self._represent(self._pruned)
        users = every_user.index_select(0, batch.users)
        rows = torch.cat([batch.positives, batch.negatives])
        loss = softplus_ranking(users, *every_item.index_select(0, rows).chunk(2))
        for features, layer in zip(self.features, self.maps, strict=True):
            assert isinstance(layer, torch.nn.Linear)
            mapped = mapped_rows(layer, features, rows)
            loss = loss + self.config.feature_loss * softplus_ranking(users, *mapped.chunk(2))
        return loss

    def represent(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Users [U, A] and items [I, A] over the whole graph."""
        return self._represent(self._full)

    def _represent(self, adjacency: SparseOperator) -> tuple[torch.Tensor, torch.Tensor]:
        users, items = propagate(adjacency, self.user_embedding, self.item_embedding, self.config.num_layers)
        neighbourhood: torch.Tensor = self.item_embedding
        for _ in range(self.config.num_item_layers):
            neighbourhood = self._item_graph(neighbourhood)
        return users, items + neighbourhood


def item_graph(data: TrainingSet, config: FREEDOMConfig) -> sp.csr_array:
    """The weighted sum of the modalities' binary neighbour graphs, each with rows that sum to 1: CSR float32 [I, I]."""
    count = data.known.num_items
    graph = sp.csr_array((count, count), dtype=np.float32)
    for name, share in modality_shares(sorted(data.features), config.modality_weights).items():
        neighbours, _ = nearest_items(data.features[name], data.present[name], config.num_neighbours)
        graph = graph + np.float32(share) * normalised_by_rows(
            as_matrix(neighbours, np.ones(neighbours.shape, np.float32))
        )
    return sp.csr_array(graph)


def modality_shares(names: list[str], weights: Mapping[str, float] | None) -> dict[str, float]:
    """What each modality's graph counts, summing to 1; ``weights`` may also name modalities that are not there."""
    if weights is None:
        weights = {"image": 0.1, "text": 0.9} if names == ["image", "text"] else dict.fromkeys(names, 1.0)
    if missing := [name for name in names if name not in weights]:
        raise ValueError(f"modality_weights: wanted a weight for each of {names}, got none for {missing}")
    total = sum(weights[name] for name in names)
    if names and not total > 0:
        raise ValueError(f"modality_weights: wanted a positive weight among {names}, got {dict(weights)}")
    return {name: weights[name] / total for name in names}


def distinct_edges(graph: Interactions) -> Interactions:
    """The pairs of a graph, each once."""
    first = np.unique(pair_keys(graph), return_index=True)[1]
    return subset(graph, np.isin(np.arange(len(graph.users)), first))


def degree_sensitive_sample(edges: Interactions, share: float, rng: np.random.Generator) -> Interactions:
    """``floor(share * E)`` of the E distinct ``edges`` without replacement, with odds 1 / sqrt(degree of user * degree of item)."""
    weights = 1 / np.sqrt(np.bincount(edges.users)[edges.users] * np.bincount(edges.items)[edges.items])
    kept = rng.choice(len(weights), int(share * len(weights)), replace=False, p=weights / weights.sum())
    return subset(edges, np.isin(np.arange(len(weights)), kept))

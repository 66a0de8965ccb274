"""The common part of MGCN and SMORE: gated embeddings propagated over item graphs, fused beside LightGCN, and a contrastive loss.

There is one view x a modality; SMORE adds one more. A gate that reads an item's content multiplies its free embedding. The result is
propagated over the view's item graph: Z_x[items] = S_x^n e_x. For users, Z_x[users] = R~ Z_x[items]. The views are fused row by row into
``side``. A row is scored as content + side, where content is LightGCN's readout of the free embeddings. Loss: BPR + weight_decay * half-L2
of the scored rows + contrast_weight * (InfoNCE(side, content) over the batch's positives + the same over its users).

The fusion works row by row, so it is computed at the distinct rows of a batch alone.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch.nn.functional import normalize

from rectifier_core.anchors.propagation import normalised_bipartite, symmetric_adjacency
from rectifier_core.evaluation.backbones.batch_rows import BatchRows
from rectifier_core.evaluation.backbones.config import SideViewConfig
from rectifier_core.evaluation.backbones.item_graph import as_matrix, nearest_items, normalised_by_rows
from rectifier_core.evaluation.backbones.protocol import Backbone, Batch, TrainingSet
from rectifier_core.evaluation.backbones.sparse_product import SparseOperator, layer_mean


class SideViewBackbone(Backbone):
    """A recommender of this family. ``modalities`` are in sorted order; with none, it is LightGCN (no side, no contrast).

    Feature tables start at the features handed in and are trained, as are the maps from them to ``embedding_size``.
    """

    searched_decays: ClassVar[tuple[float, ...]] = (0.0, 1e-5, 1e-3, 1e-2)

    def __init__(self, data: TrainingSet, config: SideViewConfig, *, seed: int) -> None:
        super().__init__(seed)
        self.config = config
        self.num_users, num_items, size = data.known.num_users, data.known.num_items, config.embedding_size
        self.modalities = tuple(sorted(data.features))
        graph = normalised_bipartite(data.graph.users, data.graph.items, self.num_users, num_items)
        self._adjacency = SparseOperator(symmetric_adjacency(graph), symmetric=True)
        self._users_from_items = SparseOperator(graph)
        self.user_embedding = self.embedding(self.num_users, size)
        self.item_embedding = self.embedding(num_items, size)
        self.features = torch.nn.ParameterList(torch.from_numpy(data.filled(m).copy()) for m in self.modalities)
        self.maps = torch.nn.ModuleList(self.linear(data.features[m].shape[1], size) for m in self.modalities)
        self._item_graphs = [
            normalised_by_rows(as_matrix(*nearest_items(data.features[m], data.present[m], config.neighbours(m))))
            for m in self.modalities
        ]

    @abstractmethod
    def item_views(self) -> list[torch.Tensor]:
        """The item side of every view, propagated: each [I, A]."""

    @abstractmethod
    def fuse(self, content: torch.Tensor, views: torch.Tensor, *, training: bool) -> torch.Tensor:
        """Side [N, A] of rows whose content is [N, A] and whose views are [N, X, A]; dropout only where ``training``."""

    def propagated(self, operator: SparseOperator, items: torch.Tensor) -> torch.Tensor:
        """``items`` [I, A] propagated over an item graph ``num_item_layers`` times."""
        for _ in range(self.config.num_item_layers):
            items = operator(items)
        return items

    def mapped(self) -> list[torch.Tensor]:
        """The content of every modality, mapped to [I, A]."""
        return [to_size(feature) for to_size, feature in zip(self.maps, self.features, strict=True)]

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch (module docstring)."""
        rows = BatchRows.of(batch)
        content, side = self._content_and_side(rows, training=self.training)
        if side is None:
            return rows.ranking_loss(content, self.config.weight_decay)
        loss = rows.ranking_loss(content + side, self.config.weight_decay)
        count = len(rows.users)
        taken = rows.positive_counts.nonzero().squeeze(1)
        of_items = (
            side.index_select(0, taken + count),
            content.index_select(0, taken + count),
            rows.positive_counts[taken],
        )
        of_users = (side[:count], content[:count], rows.user_counts)
        contrast = info_nce(*of_items, self.config.temperature) + info_nce(*of_users, self.config.temperature)
        return loss + self.config.contrast_weight * contrast

    def represent(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Content plus side, for users [U, A] and items [I, A]."""
        content, side = self._content_and_side(None, training=False)
        final = content if side is None else content + side
        return final[: self.num_users], final[self.num_users :]

    def _content_and_side(self, rows: BatchRows | None, *, training: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        ego = torch.cat([self.user_embedding, self.item_embedding])
        stacked = None if rows is None else rows.stacked(self.num_users)
        content = layer_mean(self._adjacency, ego, self.config.num_layers, stacked)
        if not self.modalities:
            return content, None
        items = torch.cat(self.item_views(), dim=1)
        users = self._users_from_items.at(None if rows is None else rows.users, items)
        views = torch.cat([users, items if rows is None else items.index_select(0, rows.items)])
        return content, self.fuse(content, views.view(len(views), -1, self.config.embedding_size), training=training)


def info_nce(first: torch.Tensor, second: torch.Tensor, counts: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean of -log(exp(cos(a_r, b_r) / t) / sum_s exp(cos(a_r, b_s) / t)) over a batch whose row r occurs ``counts[r]`` times.

    ``first`` and ``second`` [P, R] are the two views of the distinct rows, ``counts`` [P] float. Repeated rows are scored once and counted
    as often as they occur, which gives the same sum. Source: van den Oord et al., arXiv 1807.03748, equation 4.
    """
    first, second = normalize(first) / temperature, normalize(second)
    # Cosines over a temperature of at least .05 are at most 20, so the exponentials need no maximum subtracted.
    totals = (first @ second.T).exp() @ counts
    agreement = (first * second).sum(dim=1)
    return ((totals.log() - agreement) * counts).sum() / counts.sum()

"""MGCN: content gated by behaviour, one item graph a modality, and a fuser that weighs what modalities share against what each adds.

Source: Yu et al., "Multi-View Graph Convolutional Network for Multimedia Recommendation", ACM MM 2023 (arXiv 2308.03588).
Checked against enoche/MMRec at e775373 (``src/models/mgcn.py``): representations, loss and every gradient on fixed weights, to 1e-5.

Per modality m, with trainable features f: e_m = e_id * sigmoid(Linear_m(W_m f + b_m)), Z_m = S_m^n e_m, users by R~. Fuser, row by row:
w = softmax over m of q(Z_m) with q = Linear-tanh-Linear shared; Z_c = sum_m w_m Z_m; side = (sum_m (Z_m - Z_c) * sigmoid(P_m content) +
Z_c) / (M + 1). The rest is in ``side_views``.

Differs from the paper:
- Any number M of modalities: the published fuser is M = 2. With one, Z_c = Z_m, so those layers
  are not made and side = Z_m / 2; with none, the model is LightGCN.
- The weight decay is a mean over the batch's actual triples; the public code divides by the configured batch size, also in a last, shorter
  batch.
- Items without a feature start from the mean feature and have only themselves as neighbour.
- An item graph's rows of sum 0 or less stay empty (the public code gives infinities or NaN there).
"""

from __future__ import annotations

from typing import ClassVar

import torch

from rectifier_core.evaluation.backbones.config import MGCNConfig, TrainingConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.backbones.side_views import SideViewBackbone
from rectifier_core.evaluation.backbones.sparse_product import SparseOperator

TRAINING = TrainingConfig(learning_rate=3e-3, decay=0.96, epochs=200, patience=5)


class MGCN(SideViewBackbone):
    """MGCN (module docstring)."""

    name: ClassVar[str] = "mgcn"
    config_type: ClassVar[type] = MGCNConfig
    training_config: ClassVar[TrainingConfig] = TRAINING

    def __init__(self, data: TrainingSet, config: MGCNConfig, *, seed: int) -> None:
        super().__init__(data, config, seed=seed)
        size, count = config.embedding_size, len(self.modalities)
        self._operators = [SparseOperator(graph) for graph in self._item_graphs]
        self.gates = torch.nn.ModuleList(self.linear(size, size) for _ in self.modalities)
        if count > 1:
            self.query = torch.nn.Sequential(self.linear(size, size), torch.nn.Tanh(), self.linear(size, 1, bias=False))
            self.preference = self.linear(size, count * size)

    def item_views(self) -> list[torch.Tensor]:
        """Gated free embeddings, propagated over each modality's graph."""
        parts = zip(self.mapped(), self.gates, self._operators, strict=True)
        return [
            self.propagated(operator, self.item_embedding * gate(mapped).sigmoid()) for mapped, gate, operator in parts
        ]

    def fuse(self, content: torch.Tensor, views: torch.Tensor, *, training: bool) -> torch.Tensor:
        """The common part of the views plus what each adds, weighted by the content."""
        if len(self.modalities) == 1:
            return views[:, 0] / 2
        common: torch.Tensor = (self.query(views).softmax(dim=1) * views).sum(dim=1)
        preference = self.preference(content).sigmoid().view_as(views)
        added: torch.Tensor = ((views - common[:, None]) * preference).sum(dim=1)
        return (added + common) / (len(self.modalities) + 1)

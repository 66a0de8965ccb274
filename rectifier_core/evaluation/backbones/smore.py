"""SMORE: modalities denoised and fused by filters over the spectrum of their content, one item graph each and one for the fusion.

Source: Ong and Khong, "Spectrum-based Modality Representation Fusion Graph Convolutional Network for Multimodal Recommendation", WSDM 2025
(arXiv 2412.14978). Checked against kennethorq/SMORE at 0148d92 (``src/models/smore.py``, byte for byte that of enoche/MMRec at e775373):
representations, loss and every gradient on fixed weights, to 1e-5.

Per modality m, with trainable features f and F_m = rfft(W_m f + b_m) along the A content dimensions: conv_m = irfft(F_m * c_m); for the
fusion conv_f = irfft((prod_m F_m) * c_f), all c complex filters of A / 2 + 1 entries. e_x = e_id * sigmoid(Linear_x(conv_x)),
Z_x = S_x^n e_x, users by R~; S_f is the largest weight that any modality's graph gives an edge. Fusion, row by row:
A_m = softmax over the A dimensions of (Linear-tanh-Linear)_m(Z_f), times Z_m; side = mean of sigmoid(P_m content) * A_m over m and of
sigmoid(P_f content) * Z_f, with dropout on the sigmoids. The rest is in ``side_views``.

Differs from the paper:
- Any number of modalities: the spectral product and the largest weight run over all of them; with one, the fusion is a second filter on
  the same content and graph; with none, the model is LightGCN.
- The weight decay is a mean over the batch's actual triples; the public code divides by the configured batch size, also in a last, shorter
  batch.
- Items without a feature start from the mean feature and have only themselves as neighbour.
- An item graph's rows of sum 0 or less stay empty (the public code gives infinities or NaN there).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch

from rectifier_core.evaluation.backbones.config import SMOREConfig, TrainingConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.backbones.side_views import SideViewBackbone
from rectifier_core.evaluation.backbones.sparse_product import SparseOperator

TRAINING = TrainingConfig(learning_rate=3e-3, decay=0.96, epochs=200, patience=5)


def largest_of(graphs: Sequence[sp.csr_array]) -> sp.csr_array:
    """The entrywise maximum over the stored entries of any graph, where an entry that a graph lacks does not count: CSR float32."""
    # SciPy's maximum takes a missing entry as zero, so weights are raised above zero in between; float64 keeps them exact.
    lift = 1 + max(float(np.abs(graph.data).max(initial=0)) for graph in graphs)
    lifted = [
        sp.csr_array((graph.data + np.float64(lift), graph.indices, graph.indptr), graph.shape) for graph in graphs
    ]
    largest = reduce(lambda first, second: first.maximum(second), lifted)
    return sp.csr_array(((largest.data - lift).astype(np.float32), largest.indices, largest.indptr), largest.shape)


class SMORE(SideViewBackbone):
    """SMORE (module docstring). The filters are stored as pairs (real, imaginary), modalities first, the fusion last."""

    name: ClassVar[str] = "smore"
    config_type: ClassVar[type] = SMOREConfig
    training_config: ClassVar[TrainingConfig] = TRAINING

    def __init__(self, data: TrainingSet, config: SMOREConfig, *, seed: int) -> None:
        super().__init__(data, config, seed=seed)
        size, count = config.embedding_size, len(self.modalities)
        self.dropout = config.dropout
        if not count:
            return
        self._operators = [SparseOperator(graph) for graph in (*self._item_graphs, largest_of(self._item_graphs))]
        self.filters = torch.nn.Parameter(torch.randn(count + 1, size // 2 + 1, 2, generator=self.generator))
        self.gates = torch.nn.ModuleList(self.linear(size, size) for _ in range(count + 1))
        self.query_hidden = self.linear(size, count * size)
        self.query = torch.nn.ModuleList(self.linear(size, size, bias=False) for _ in self.modalities)
        self.preference = self.linear(size, (count + 1) * size)

    def item_views(self) -> list[torch.Tensor]:
        """Free embeddings gated by the filtered contents, propagated over each modality's graph and over the fusion's."""
        size = self.config.embedding_size
        spectra = torch.fft.rfft(torch.stack(self.mapped()), dim=2, norm="ortho")
        spectra = torch.cat([spectra, spectra.prod(dim=0, keepdim=True)])
        filtered = torch.fft.irfft(spectra * torch.view_as_complex(self.filters)[:, None], n=size, dim=2, norm="ortho")
        parts = zip(filtered, self.gates, self._operators, strict=True)
        return [
            self.propagated(operator, self.item_embedding * gate(content).sigmoid())
            for content, gate, operator in parts
        ]

    def fuse(self, content: torch.Tensor, views: torch.Tensor, *, training: bool) -> torch.Tensor:
        """The mean of the modalities, each weighted by the fusion's attention, and of the fusion, all weighted by the content."""
        hidden = self.query_hidden(views[:, -1]).tanh().chunk(len(self.modalities), dim=1)
        attended = [query(part).softmax(dim=1) for query, part in zip(self.query, hidden, strict=True)]
        preferred = self.preference(content).sigmoid()
        if training and self.dropout:
            kept = torch.empty(preferred.shape).bernoulli_(1 - self.dropout, generator=self.generator)
            preferred = preferred * (kept / (1 - self.dropout)).to(preferred.device)
        parts = preferred.view_as(views).unbind(dim=1)
        weights = torch.stack(
            [*(attention * part for attention, part in zip(attended, parts, strict=False)), parts[-1]], dim=1
        )
        return (weights * views).mean(dim=1)

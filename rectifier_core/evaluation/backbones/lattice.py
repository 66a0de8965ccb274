"""LATTICE: item graphs mined from content, re-learned as training goes on, over which free item embeddings are propagated.

Source: Zhang et al., "Mining Latent Structures for Multimedia Recommendation", ACM MM 2021 (arXiv 2104.09036).
Checked against enoche/MMRec at e775373 (``src/models/lattice.py``): representations, loss and every gradient on fixed weights, to 1e-5.

Per modality m: S~_m, the k nearest by cosine of the features as handed in (the item itself among them), weighted by the cosine and
normalised by row sums; S_m, the same k nearest of the trainable features mapped to A dimensions. With alpha = softmax(modal_weight),
A_item = (1 - initial_weight) * normalised(sum_m alpha_m S_m) + initial_weight * sum_m alpha_m S~_m and h = A_item^n E_items.
Users are scored as the mean of layers over the row-normalised graph D^-1 (A + I), items as that plus h scaled to length 1.
Loss: BPR + weight_decay * half-L2 of the scored rows.

Item graphs are lists of neighbours [I, K]. The top-k step of the dense form passes a gradient to the kept cosines alone, so the lists are
equivalent. The first batch of an epoch rebuilds the item graph and passes a gradient into it; the other batches use it as a fixed sparse
matrix. ``represent`` builds it once from the current weights.

Differs from the paper:
- Features, maps and modal weights get a gradient in the first batch of an epoch only, as in the public code. Its old torch gives zero
  gradients in the other batches, so Adam moves on by momentum; with a current torch these parameters do not move.
- The weight decay is a mean over the batch's actual triples; the public code divides by the configured batch size, also in a last, shorter
  batch.
- Any number of modalities; with one there is nothing to weigh and ``modal_weight`` is not made, with none items have no h.
- Items without a feature start from the mean feature and have only themselves as neighbour.
- Rows of an item graph whose sum is 0 or less stay empty (the public code gives infinities or NaN there).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch.nn.functional import embedding_bag, normalize

from rectifier_core.anchors.propagation import normalised_bipartite, symmetric_adjacency
from rectifier_core.base.arrays import Bool
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.backbones.batch_rows import BatchRows
from rectifier_core.evaluation.backbones.config import LATTICEConfig, TrainingConfig
from rectifier_core.evaluation.backbones.item_graph import nearest_items
from rectifier_core.evaluation.backbones.protocol import Backbone, Batch, TrainingSet
from rectifier_core.evaluation.backbones.sparse_product import SparseOperator, layer_mean

TRAINING = TrainingConfig(learning_rate=3e-3, decay=0.96, epochs=200, patience=5, evaluate_every=2)


class NeighbourLists(NamedTuple):
    """A sparse item graph [I, I] by rows: ``items`` [I, K] int64 and ``weights`` [I, K]; unused places hold item 0 at weight 0."""

    items: torch.Tensor
    weights: torch.Tensor

    def normalised(self) -> NeighbourLists:
        """Divided by the roots of the row sums, on both sides; rows of sum 0 or less become empty."""
        sums = self.weights.sum(dim=1)
        scale = torch.where(sums > 0, sums.clamp_min(torch.finfo(sums.dtype).tiny).rsqrt(), 0.0)
        return NeighbourLists(self.items, self.weights * scale[:, None] * at_items(scale, self.items))

    def matrix(self) -> sp.csr_array:
        """As CSR float32, entries that name the same neighbour twice summed."""
        count, width = self.items.shape
        rows = np.repeat(np.arange(count), width)
        entries = (self.weights.detach().cpu().numpy().ravel(), (rows, self.items.cpu().numpy().ravel()))
        return sp.csr_array(sp.coo_array(entries, shape=(count, count)))


def at_items(table: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """``table[items]`` [I, K, ...]; unlike that of indexing, its gradient is summed in a fixed order."""
    return table.index_select(0, items.ravel()).view(*items.shape, *table.shape[1:])


def beside(graphs: list[NeighbourLists], factors: torch.Tensor) -> NeighbourLists:
    """sum_m factors[m] * graphs[m], lists side by side."""
    weights = [factor * graph.weights for factor, graph in zip(factors, graphs, strict=True)]
    return NeighbourLists(torch.cat([graph.items for graph in graphs], dim=1), torch.cat(weights, dim=1))


def with_self_loops(graph: Interactions) -> sp.csr_array:
    """D^-1 (A + I) over users, then items, as CSR float32."""
    adjacency = symmetric_adjacency(normalised_bipartite(graph.users, graph.items, graph.num_users, graph.num_items))
    adjacency.data[:] = 1.0
    looped = sp.csr_array(adjacency + sp.eye_array(adjacency.shape[0], dtype=np.float32))
    return sp.csr_array(sp.diags_array(1.0 / looped.sum(axis=1)) @ looped)


class LATTICE(Backbone):
    """LATTICE (module docstring). ``modalities`` are in sorted order."""

    name: ClassVar[str] = "lattice"
    config_type: ClassVar[type] = LATTICEConfig
    training_config: ClassVar[TrainingConfig] = TRAINING
    searched_decays: ClassVar[tuple[float, ...]] = (0.0, 1e-5, 1e-3, 1e-2)

    def __init__(self, data: TrainingSet, config: LATTICEConfig, *, seed: int) -> None:
        super().__init__(seed)
        self.config = config
        self.num_users, num_items, size = data.known.num_users, data.known.num_items, config.embedding_size
        self.modalities = tuple(sorted(data.features))
        self._propagation = SparseOperator(with_self_loops(data.graph))
        self.user_embedding = self.embedding(self.num_users, size)
        self.item_embedding = self.embedding(num_items, size)
        self.features = torch.nn.ParameterList(torch.from_numpy(data.filled(m).copy()) for m in self.modalities)
        self.maps = torch.nn.ModuleList(self.linear(data.features[m].shape[1], size) for m in self.modalities)
        if len(self.modalities) > 1:
            self.modal_weight = torch.nn.Parameter(torch.full((len(self.modalities),), 1 / len(self.modalities)))
        self._present = [data.present[m] for m in self.modalities]
        self._initial = []
        for modality, present in zip(self.modalities, self._present, strict=True):
            neighbours, cosines = nearest_items(data.features[modality], present, config.num_neighbours)
            items = torch.from_numpy(np.maximum(neighbours, 0).astype(np.int64))
            self._initial.append(NeighbourLists(items, torch.from_numpy(cosines)).normalised())
        self._fixed: SparseOperator | None = None

    def begin_epoch(self, rng: np.random.Generator) -> None:
        """Drop the item graph; the next batch rebuilds it with a gradient."""
        self._fixed = None

    def loss(self, batch: Batch) -> torch.Tensor:
        """BPR and half-L2 over the batch."""
        rows = BatchRows.of(batch)
        stacked = rows.stacked(self.num_users)
        ego = torch.cat([self.user_embedding, self.item_embedding])
        readout = layer_mean(self._propagation, ego, self.config.num_layers, stacked)
        if not self.modalities:
            return rows.ranking_loss(readout, self.config.weight_decay)
        if self._fixed is None:
            graph = self._item_graph()
            self._fixed = SparseOperator(graph.matrix())
            latent = self._over_lists(graph).index_select(0, rows.items)
        else:
            latent = self._over_fixed(self._fixed, rows.items)
        users, items = readout[: len(rows.users)], readout[len(rows.users) :]
        return rows.ranking_loss(torch.cat([users, items + normalize(latent)]), self.config.weight_decay)

    def represent(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Users [U, A] and items [I, A], over an item graph built from the weights as they are."""
        ego = torch.cat([self.user_embedding, self.item_embedding])
        readout = layer_mean(self._propagation, ego, self.config.num_layers)
        users, items = readout[: self.num_users], readout[self.num_users :]
        if not self.modalities:
            return users, items
        return users, items + normalize(self._over_lists(self._item_graph()))

    def _item_graph(self) -> NeighbourLists:
        """A_item, differentiable in the features, the maps and the modal weights."""
        tables = zip(self.maps, self.features, self._present, strict=True)
        learned = [self._nearest(to_size(feature), present) for to_size, feature, present in tables]
        device = self.item_embedding.device
        share = self.modal_weight.softmax(dim=0) if len(self.modalities) > 1 else torch.ones(1, device=device)
        initial = [NeighbourLists(*(part.to(device) for part in graph)) for graph in self._initial]
        both = [beside(learned, share).normalised(), beside(initial, share)]
        weight = self.config.initial_weight
        return beside(both, torch.tensor([1 - weight, weight], device=device))

    def _nearest(self, content: torch.Tensor, present: Bool) -> NeighbourLists:
        """The nearest items by cosine of ``content`` [I, A], with the gradient to the cosines that are kept."""
        neighbours, _ = nearest_items(content.detach().cpu().numpy(), present, self.config.num_neighbours)
        there = torch.from_numpy(neighbours >= 0).to(content.device)
        items = torch.from_numpy(np.maximum(neighbours, 0).astype(np.int64)).to(content.device)
        unit = normalize(content)
        cosines = (unit[:, None] * at_items(unit, items)).sum(dim=2)
        return NeighbourLists(items, torch.where(there, cosines, 0.0))

    def _over_lists(self, graph: NeighbourLists) -> torch.Tensor:
        latent: torch.Tensor = self.item_embedding
        for _ in range(self.config.num_item_layers):
            latent = embedding_bag(graph.items, latent, per_sample_weights=graph.weights, mode="sum")
        return latent

    def _over_fixed(self, operator: SparseOperator, rows: torch.Tensor) -> torch.Tensor:
        latent: torch.Tensor = self.item_embedding
        for _ in range(self.config.num_item_layers - 1):
            latent = operator(latent)
        return operator.at(rows, latent)

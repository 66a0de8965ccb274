"""The interface of a recommender: its training data, the loss of a batch, and the representations that it scores with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from rectifier_core.base.arrays import Bool, Features, Float32, check_array
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import derive_seed
from rectifier_core.evaluation.backbones.config import TrainingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """The data that a recommender learns from.

    The model learns to rank ``positives`` and propagates over ``graph``. Both are the logged pairs unless they were edited. ``known`` are
    the logged pairs: never drawn as negatives, and masked when items are ranked, so editing does not change the candidates.
    ``features[m]`` [I, D_m] may have any modalities or none; rows where ``present[m]`` is False are ignored.
    """

    positives: Interactions
    graph: Interactions
    known: Interactions
    features: Features
    present: Mapping[str, Bool]

    def __post_init__(self) -> None:
        if set(self.features) != set(self.present):
            raise ValueError(f"present: wanted the modalities {sorted(self.features)}, got {sorted(self.present)}")
        for name, feature in self.features.items():
            check_array(f"features[{name}]", feature, (self.known.num_items, None), np.float32)
            check_array(f"present[{name}]", self.present[name], (self.known.num_items,), np.bool_)
        sizes = {(x.num_users, x.num_items) for x in (self.positives, self.graph, self.known)}
        if len(sizes) != 1:
            raise ValueError(
                f"training set: wanted the same users and items everywhere, got (users, items) of {sorted(sizes)}"
            )

    @classmethod
    def plain(cls, known: Interactions, features: Features, present: Mapping[str, Bool]) -> TrainingSet:
        """The training set without any editing."""
        return cls(positives=known, graph=known, known=known, features=features, present=present)

    def filled(self, modality: str) -> Float32:
        """The features of one modality [I, D_m], the mean of the present rows where one is missing (zeros where all are)."""
        feature, given = self.features[modality], self.present[modality]
        if given.all():
            return feature
        filled = feature.copy()
        filled[~given] = feature[given].mean(axis=0) if given.any() else 0.0
        return filled


class Batch(NamedTuple):
    """Triples of one step, int64 tensors [B]: user, positive item, negative item."""

    users: torch.Tensor
    positives: torch.Tensor
    negatives: torch.Tensor


class Backbone(torch.nn.Module, ABC):
    """A recommender that scores by an inner product: score(u, i) = <user u, item i>.

    A subclass is built as ``Model(data: TrainingSet, config: ModelConfig, seed=...)``. It draws everything random from ``self.generator``
    (CPU) and from the generators it is given. ``state_dict`` restores its whole state. ``config_type`` is the class of its hyperparameters
    and ``training_config`` its default training.
    """

    name: ClassVar[str]
    config_type: ClassVar[Any]
    training_config: ClassVar[TrainingConfig]
    searched_decays: ClassVar[tuple[float, ...]] = ()

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(derive_seed(seed, "backbone", self.name))

    def begin_epoch(self, rng: np.random.Generator) -> None:
        """Called before the first batch of every epoch: draw a subgraph, rebuild a learned graph. The default does nothing."""

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch."""

    @abstractmethod
    def represent(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Users [U, R] and items [I, R] as they are scored, on the graph that evaluation uses, without dropout."""

    def embedding(self, rows: int, width: int) -> torch.nn.Parameter:
        """A free embedding [rows, width], Xavier-uniform."""
        return torch.nn.Parameter(torch.nn.init.xavier_uniform_(torch.empty(rows, width), generator=self.generator))

    def linear(self, inputs: int, outputs: int, *, bias: bool = True) -> torch.nn.Linear:
        """A linear layer with torch's default start (uniform within 1/sqrt(inputs)), drawn from ``self.generator``."""
        layer: torch.nn.Linear = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs, bias=bias)  # type: ignore[no-untyped-call]
        bound = inputs**-0.5
        for parameter in layer.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound, generator=self.generator)
        return layer


def softplus_ranking(users: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """BPR: the mean of -log sigmoid(s_up - s_un) for representations [B, R] (Rendle et al., UAI 2009)."""
    return torch.nn.functional.softplus((users * (negatives - positives)).sum(dim=1)).mean()

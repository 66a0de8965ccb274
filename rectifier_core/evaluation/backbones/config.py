"""Configs of the recommenders and of their training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Float, Int, NotNegative, Positive, Share

Dropout = Annotated[float, Field(strict=True, ge=0, lt=1)]


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """How a recommender is trained."""

    learning_rate: Positive = Field(default=1e-3, description="Step size of the first epoch.")
    decay: Float = Field(default=1.0, gt=0, le=1, description="Factor of the learning rate every decay_epochs epochs.")
    decay_epochs: Count = Field(default=50, description="Epochs over which the learning rate falls by decay.")
    batch_size: Count = Field(default=2048, description="Pairs a step.")
    epochs: Count = Field(default=1000, description="Most passes over the training pairs.")
    patience: Count = Field(default=20, description="Training stops after so many evaluations without a gain.")
    evaluate_every: Count = Field(default=1, description="Epochs between two evaluations.")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class LightGCNConfig:
    """Hyperparameters of LightGCN."""

    embedding_size: Count = Field(default=64, description="Numbers in an embedding.")
    num_layers: Int = Field(default=3, ge=0, description="Layers on the interaction graph.")
    weight_decay: NotNegative = Field(default=0.3, description="Factor of the embedding penalty (MMRec's reg_weight).")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class VBPRConfig:
    """Hyperparameters of VBPR."""

    embedding_size: Count = Field(default=64, description="Numbers in an embedding.")
    weight_decay: NotNegative = Field(default=5.0, description="Factor of the embedding penalty (MMRec's reg_weight).")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class LATTICEConfig:
    """Hyperparameters of LATTICE."""

    embedding_size: Count = Field(default=64, description="Numbers in an embedding.")
    num_layers: Count = Field(default=2, description="Layers on the interaction graph.")
    num_item_layers: Count = Field(default=1, description="Layers on the item graph.")
    num_neighbours: Count = Field(default=10, description="Neighbours of an item in the item graph.")
    initial_weight: Share = Field(
        default=0.9, description="Share of the graph of the input features (lambda in the paper)."
    )
    weight_decay: NotNegative = Field(default=1e-4, description="Factor of half the squared length of the scored rows.")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class FREEDOMConfig:
    """Hyperparameters of FREEDOM.

    MMRec searches ``dropout`` in {0.8, 0.9} and ``feature_loss`` in {0, 1e-5, 1e-4, 1e-3}. On our validation pairs a dropout of 0.5 ranked
    best, and no feature loss up to 0.1 did better than 0, which trains twice as fast.
    """

    embedding_size: Count = Field(default=64, description="Numbers in an embedding.")
    num_layers: Int = Field(default=2, ge=0, description="Layers on the interaction graph.")
    num_item_layers: Int = Field(default=1, ge=0, description="Layers on the item graph.")
    num_neighbours: Count = Field(default=10, description="Neighbours of an item in the item graph.")
    dropout: Dropout = Field(default=0.5, description="Share of graph edges that each epoch drops.")
    feature_loss: NotNegative = Field(
        default=0.0, description="Factor of the BPR terms of the features (MMRec's reg_weight)."
    )
    modality_weights: Mapping[str, NotNegative] | None = Field(
        default=None, description="Share of each modality's item graph, by modality."
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SideViewConfig:
    """Hyperparameters that MGCN and SMORE share."""

    embedding_size: Count = Field(default=64, description="Numbers in an embedding.")
    num_layers: Count = Field(default=2, description="Layers on the interaction graph.")
    num_item_layers: Int = Field(default=1, ge=0, description="Layers on the item graphs.")
    num_neighbours: Count = Field(default=10, description="Neighbours of an item in an item graph.")
    neighbours_of: Mapping[str, Count] | None = Field(
        default=None, description="Neighbours in the graphs of single modalities, by modality."
    )
    weight_decay: NotNegative = Field(default=1e-4, description="Factor of half the squared length of the scored rows.")
    contrast_weight: NotNegative = Field(default=0.01, description="Factor of the contrastive loss.")
    temperature: Positive = Field(default=0.2, description="Temperature of the contrastive loss.")

    def neighbours(self, modality: str) -> int:
        """How many neighbours an item has in this modality's graph, itself included."""
        return (self.neighbours_of or {}).get(modality, self.num_neighbours)


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class MGCNConfig(SideViewConfig):
    """Hyperparameters of MGCN, with the public code's defaults."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SMOREConfig(SideViewConfig):
    """Hyperparameters of SMORE."""

    num_layers: Count = Field(default=3, description="Layers on the interaction graph.")
    dropout: Dropout = Field(default=0.1, description="Dropout of the preference gates.")

"""Configs of the evaluation: the search for training settings, edge editing and the shadow evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Float, Int, NotNegative, OpenShare, Positive
from rectifier_core.evaluation.backbones.config import LightGCNConfig, TrainingConfig

DamageKind = Literal["swap", "within", "noise", "scale", "drop", "segments"]
ClickKind = Literal["random", "popular"]
BackboneName = Literal["lightgcn", "vbpr", "lattice", "freedom", "mgcn", "smore"]
EditTarget = Literal["train", "graph", "both"]
# The settings of a recommender that may be searched.
RATE, DECAY = "learning_rate", "weight_decay"
RATE, DECAY = "learning_rate", "weight_decay"
"""The settings that a search chooses."""
QUICK = TrainingConfig(learning_rate=5e-3, batch_size=4096, epochs=30, patience=2, evaluate_every=3)


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class EditConfig:
    """How many edges are added or dropped, as ratios of the number of training pairs."""

    completion: NotNegative = Field(default=0.0, description="Pairs that are added.")
    pruning: Float = Field(default=0.0, ge=0, lt=1, description="Pairs that are dropped.")
    target: EditTarget = Field(default="both", description="What is edited: the training pairs, the graph or both.")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class PriorConfig:
    """The LightGCN prior that edges are edited by."""

    model: LightGCNConfig = Field(default_factory=LightGCNConfig, description="Its hyperparameters.")
    training: TrainingConfig | None = Field(default=QUICK, description="Its training. None keeps the spectral start.")
    held_out: OpenShare = Field(default=0.1, description="Share of the pairs that early stopping watches.")


SPECTRAL = PriorConfig(model=LightGCNConfig(embedding_size=32), training=None)


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class AlignmentConfig:
    """How the strength of the editing is chosen from the training pairs."""

    prior: PriorConfig = Field(default=SPECTRAL, description="The prior that is fitted many times.")
    folds: Int = Field(default=5, ge=2, description="Parts of the pairs. Each is scored by a fit on the others.")
    slices: Int = Field(
        default=5, ge=1, le=5, description="Slices of a fifth of the pairs that every ratio is tried on."
    )
    ratios: tuple[OpenShare, ...] = Field(
        default=(0.05, 0.1, 0.2), min_length=1, description="Rising ratios to choose from."
    )
    errors: NotNegative = Field(default=2.0, description="Standard errors by which the best gain must exceed zero.")

    def __post_init__(self) -> None:
        if sorted(set(self.ratios)) != list(self.ratios):
            raise ValueError(f"ratios: wanted rising values in (0, 1), got {self.ratios}")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SearchConfig:
    """The search for a learning rate and a weight decay of every recommender, by Recall@20 on validation pairs and raw features.

    A value that ``evaluation.training`` or ``evaluation.models`` sets is not searched.
    """

    enabled: bool = Field(default=True, description="False trains every recommender with its own settings.")
    learning_rates: tuple[Positive, ...] = Field(
        default=(1e-3, 1e-2, 3e-2), description="Learning rates that are tried beside the recommender's own."
    )
    weight_decays: Mapping[str, tuple[NotNegative, ...]] = Field(
        default_factory=dict,
        description="Weight decays that are tried beside the recommender's own, by its name. "
        "By default four values that suit its penalty. FREEDOM has none.",
    )
    steps: Count = Field(
        default=600,
        description="Steps of the longest training of a candidate. A search of 20 candidates takes at most 9 times as many.",
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ShadowConfig:
    """How the shadow evaluation trains and compares."""

    backbone: BackboneName = Field(default="vbpr", description="The recommender that is trained.")
    model: Any = Field(default=None, description="Its hyperparameters. None takes its defaults.")
    training: TrainingConfig | None = Field(default=None, description="Its training. None takes shadow_training.")
    search: SearchConfig | None = Field(
        default=None, description="The search for its settings. None takes them as they are."
    )
    fixed: tuple[str, ...] = Field(default=(), description="What is not searched: learning_rate, weight_decay or both.")
    seeds: Count = Field(default=3, description="Trainings on each kind of feature.")
    tolerance: Float = Field(default=0.01, ge=0, lt=1, description="Relative loss of Recall@20 that passes.")
    max_interactions: Count = Field(default=200_000, description="Most pairs. A larger log is sampled by user.")

"""The ``[anchors]`` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Int, NotNegative, OpenShare, Positive

TRAINED_PAIRS = 600_000
"""So many pairs train in about 12 CPU seconds. Without training the AUC of the trust is at most .006 lower, but intervals hold less often
(``benchmarks/results/anchor_methods.md``)."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class AnchorsConfig:
    """How the anchors are trained."""

    method: Literal["auto", "lightgcn", "spectral"] = Field(
        default="auto",
        description='"lightgcn" trains, as in the paper. "spectral" trains nothing and tells mismatches nearly as well in a fraction of the time. '
        '"auto" trains on logs of up to 600,000 pairs.',
    )
    embedding_size: Count = Field(default=64, description="Numbers in an anchor.")
    num_layers: Int = Field(default=3, ge=0, description="Layers of propagation over the interaction graph.")
    learning_rate: Positive = Field(default=5e-3, description="Step size for steps of 2,048 pairs.")
    weight_decay: NotNegative = Field(default=1e-4, description="Weight of the squared parameters in the loss.")
    epochs: Int = Field(default=200, ge=0, description="Most passes over the training pairs.")
    batch_size: Count | None = Field(
        default=None,
        description="Pairs a step. By default at least 2,048, and so many that an epoch has at most steps_per_epoch steps.",
    )
    steps_per_epoch: Count = Field(
        default=16,
        description="Most steps an epoch where batch_size is not set. More cost time and rank no better (`benchmarks/results/anchor_curve.md`).",
    )
    epoch_work: Positive = Field(
        default=2.5e10,
        description="Most multiply-adds of propagation an epoch. Beyond it, an epoch takes fewer and larger steps, never fewer than 8.",
    )
    patience: Count = Field(default=5, description="Training stops after so many epochs without a gain of least_gain.")
    least_gain: NotNegative = Field(
        default=0.005, description="The relative rise of held-out Recall@20 that counts as a gain."
    )
    held_out: OpenShare = Field(default=0.1, description="Share of the pairs that training only measures recall on.")
    start: Literal["spectral", "random"] = Field(default="spectral", description="What training starts from.")
    warm_start: bool = Field(
        default=False,
        description="Start from the previous run's anchors. A day's rows then depend on which nights ran before it.",
    )

    def method_for(self, num_pairs: int) -> Literal["lightgcn", "spectral"]:
        """Return how the anchors of a log of ``num_pairs`` are made."""
        if self.method != "auto":
            return self.method
        return "lightgcn" if self.warm_start or num_pairs <= TRAINED_PAIRS else "spectral"

    def __post_init__(self) -> None:
        if self.warm_start and self.method == "spectral":
            raise ValueError("warm_start: wanted false where method is spectral, which trains nothing, got true")

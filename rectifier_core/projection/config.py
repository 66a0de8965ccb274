"""The ``[projection]`` and ``[cross_modal]`` sections."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Int, NotNegative, Positive


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ProjectionConfig:
    """How each modality's features are mapped to the anchors."""

    solver: Literal["crossfit_ridge", "minibatch"] = Field(
        default="crossfit_ridge",
        description='"crossfit_ridge" scores every pair by a map fitted without it. "minibatch" is the paper\'s loop, in sample.',
    )
    keep_ratio: float | Literal["auto"] = Field(
        default=1.0,
        description='Share of the pairs that the fit keeps. "auto" repeats the fit with 1 - (estimated mismatch rate + 0.05).',
    )
    folds: Int = Field(
        default=5, ge=2, description="crossfit_ridge: parts of the items. Each is scored by a fit on the others."
    )
    rounds: Count = Field(default=2, description="crossfit_ridge: fits until keep_ratio is reached.")
    ridge_grid: tuple[Positive, ...] = Field(
        default=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        min_length=1,
        description="crossfit_ridge: penalties to choose from, in units of the mean eigenvalue of the centred Gram matrix.",
    )
    epochs: Count = Field(default=30, description="minibatch: passes over the pairs.")
    ramp: Count = Field(default=10, description="minibatch: epochs until keep_ratio is reached.")
    batch_size: Count = Field(default=128, description="minibatch: pairs a step.")
    learning_rate: Positive = Field(default=1e-3, description="minibatch: step size.")
    weight_decay: NotNegative = Field(
        default=0.0, description="minibatch: weight of the squared parameters in the loss."
    )
    block_rows: Count = Field(default=8192, description="Rows read at a time. It changes no published byte.")

    @field_validator("keep_ratio", mode="plain")
    @classmethod
    def _share_or_auto(cls, value: Any) -> Any:
        share = isinstance(value, float | int) and not isinstance(value, bool) and 0 < value <= 1
        if not share and value != "auto":
            raise ValueError(f'wanted a share in (0, 1] or "auto", got {value}')
        return value


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class CrossModalConfig:
    """How one modality is compared with another."""

    enabled: bool = Field(default=True, description="Compare modalities with one another, not only with behaviour.")
    components: Count = Field(default=64, description="Principal components that a modality is reduced to as a target.")
    sample_rows: Count = Field(default=50_000, description="Most rows that the components are computed from.")
    block_rows: Count = Field(default=8192, description="Rows read at a time. It changes no published byte.")

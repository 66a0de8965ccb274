"""The ``[sinkhorn]`` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Positive


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SinkhornConfig:
    """How the affinity is balanced to a plan."""

    balance: Literal["sinkhorn", "row"] = Field(
        default="sinkhorn", description='What is balanced. "row" leaves the columns as they are, for comparison.'
    )
    method: Literal["anderson", "knopp"] = Field(
        default="anderson",
        description='"knopp" is the plain iteration. "anderson" mixes its iterates and needs fewer of them.',
    )
    max_iterations: Count = Field(default=200, description="Most iterations.")
    tolerance: Positive = Field(
        default=1e-3, description="Stop at this mean absolute relative error of the column sums."
    )
    memory: Count = Field(default=7, description="anderson: earlier iterates that are mixed.")

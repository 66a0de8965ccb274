"""The ``[affinity]`` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Float, Share


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class AffinityConfig:
    """How the nearest features of each anchor are searched."""

    num_neighbours: Count = Field(default=20, description="Nearest features that each item keeps (K).")
    temperature: Float = Field(
        default=0.1, ge=1e-3, description="Divides the cosine. 0.05 to 0.2 is stable in the paper, 0.5 over-smooths."
    )
    anchor_share: Share | Literal["auto"] = Field(
        default="auto",
        description="Share of a donor's anchor in its place, the rest being its projected feature. 0 is the paper's. "
        '"auto" takes the share whose donors predict trusted features best.',
    )
    index: Literal["auto", "flat", "ivf"] = Field(
        default="auto",
        description='"flat" is exact, "ivf" approximate to target_recall. "auto" takes the cheaper one, and "flat" on a GPU.',
    )
    target_recall: Float = Field(
        default=0.99,
        gt=0,
        le=1,
        description="Share of the exact neighbours that an approximate search must find on a sample.",
    )
    block_rows: Count = Field(default=8192, description="Rows searched at a time. It changes no published byte.")

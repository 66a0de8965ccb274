"""The ``[trust]`` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Int

AUC = Annotated[float, Field(strict=True, ge=0.5, lt=1)]


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TrustConfig:
    """When a modality is judged, and how its mismatch rate is estimated."""

    min_items: Int = Field(default=100, ge=2, description="Fewest items with evidence. With fewer, nothing is judged.")
    min_separation: AUC = Field(
        default=0.52,
        description="The AUC of actual against re-paired evidence must exceed this by three standard errors. Else nothing is judged.",
    )
    null_pairs: Int = Field(default=20_000, ge=1000, description="Fewest re-paired scores that are drawn.")
    resamples: Int = Field(default=50, ge=2, description="Bootstrap samples for the interval of the mismatch rate.")
    alike_groups: Count = Field(
        default=8, description="Groups of items by behaviour, to re-pair features among similar items."
    )
    min_alike_separation: AUC = Field(
        default=0.58,
        description="Below this AUC among similar items, swaps between them cannot be counted, and the report warns.",
    )
    min_claim_separation: AUC = Field(
        default=0.85,
        description="Below this AUC of right features by behaviour, the rate is bounded from above only: its lower end is 0.",
    )

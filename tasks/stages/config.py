"""The ``[incremental]`` section."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Share


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class IncrementalConfig:
    """What a run may reuse of a previous one. A run without a usable previous one computes everything."""

    enabled: bool = Field(
        default=False,
        description="Update the previous run instead of computing everything. A day's rows then depend on it.",
    )
    cold_every: Count = Field(default=7, description="Compute everything every so many nights.")
    most_changed: Share = Field(
        default=0.1, description="Compute everything if a larger share of a modality's features changed."
    )
    most_fallen: Share = Field(
        default=0.1, description="Compute everything if held-out recall fell by a larger share since the previous run."
    )
    min_anchor_cosine: Share = Field(
        default=0.99,
        description="Search an item's neighbours again if the cosine of its anchor to the previous one is below this.",
    )

    @property
    def rows(self) -> dict[str, float]:
        """The settings that the rows of an incremental run depend on. The others only decide which runs are incremental."""
        return {"min_anchor_cosine": self.min_anchor_cosine}

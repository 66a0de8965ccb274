"""The ``[copies]`` section."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Float, Int, Share


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class CopiesConfig:
    """What counts as a copy of a feature, and which groups of copies are placeholders."""

    threshold: Float = Field(
        default=0.999,
        ge=0.9,
        lt=1,
        description="Two features are copies from this cosine on. It rises where all features share a large common part.",
    )
    min_group: Int = Field(default=3, ge=2, description="Fewest items of a placeholder.")
    large_group: Int = Field(
        default=20, description="A group of this size is a placeholder where too few of its items have an anchor."
    )
    min_likeness: Share = Field(
        default=0.3,
        description="A group is no placeholder if its anchors are this much alike, as a share of what their reliability allows.",
    )
    num_trees: Count = Field(default=6, description="Random trees of the search. More trees miss fewer pairs.")
    leaf_rows: Int = Field(default=64, ge=2, description="Rows in a leaf of a tree. Larger leaves miss fewer pairs.")
    block_rows: Count = Field(default=4096, description="Rows read at a time. It changes no published byte.")

    def __post_init__(self) -> None:
        if self.large_group < self.min_group:
            raise ValueError(f"large_group: wanted at least min_group = {self.min_group}, got {self.large_group}")

"""The ``[rectify]`` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Share


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class RectifyConfig:
    """How an item's feature is mixed with its donors'."""

    mix: Literal["adaptive", "constant"] = Field(
        default="adaptive",
        description='"adaptive" keeps as much of a feature as its trust says, and takes the rest from the expected feature. '
        '"constant" keeps the same share of every feature, as the paper does.',
    )
    keep_original: Share = Field(
        default=0.6, description="constant: share of the item's own feature. 1 changes nothing."
    )
    impute: bool = Field(
        default=False, description="Fill missing features and placeholders of items that have an anchor."
    )
    block_rows: Count = Field(default=4096, description="Rows mixed at a time. It changes no published byte.")

"""The ``[rectify]`` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Positive, Share


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class RectifyConfig:
    """How an item's feature is mixed with its donors'."""

    mix: Literal["adaptive", "constant"] = Field(
        default="adaptive",
        description='"adaptive" keeps more of a trusted feature. "constant" keeps the same share of every feature, as the paper does.',
    )
    keep_original: Share = Field(
        default=0.6, description="constant: share of the item's own feature. 1 changes nothing."
    )
    keep_trusted: Share = Field(
        default=0.97, description="adaptive: share of its own feature that a fully trusted item keeps."
    )
    sharpness: Positive = Field(
        default=2.0, description="adaptive: power of the trust. A larger one replaces doubtful features sooner."
    )
    impute: bool = Field(
        default=False, description="Fill missing features and placeholders of items that have an anchor."
    )
    block_rows: Count = Field(default=4096, description="Rows mixed at a time. It changes no published byte.")

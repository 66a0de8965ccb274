"""The sizes and planted shares of a demo catalog."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Int

Modality = Annotated[str, Field(pattern="^(image|text)$")]
Rate = Annotated[float, Field(strict=True, ge=0, le=0.9)]
Width = Annotated[int, Field(strict=True, ge=2, le=65536)]
Users = Annotated[int, Field(strict=True, ge=10, lt=2**31)]
Interactions = Annotated[int, Field(strict=True, ge=1000, lt=2**31)]
MODALITIES = ("image", "text")
DEFAULT_WIDTHS: Mapping[str, int] = {"image": 256, "text": 128}
DEFAULT_MISMATCH: Mapping[str, float] = {"image": 0.2, "text": 0.1}
DEFAULT_MISSING: Mapping[str, float] = {"image": 0.05, "text": 0.01}
SEQUENCES: Mapping[str, int] = {"video": 64, "audio": 48}
"""The sequence modalities and the width of their segments."""
LARGEST_OFFSET = 16
ROW_FAULTS = ("duplicate_id", "null_id")
FEATURE_FAULTS = ("nan", "infinite", "zero_norm", "wrong_width")

_BROKEN_SHARE = 0.003
_PLACEHOLDER_SHARE = 0.005


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class DemoConfig:
    """Sizes, seed and planted shares of a demo catalog. Raises ``ValueError`` naming the key for a value out of range."""

    items: Int = Field(default=5000, ge=100, le=9_999_999, description="Items in the catalog.")
    users: Users | None = Field(default=None, description="Users of the log. By default 1.6 per item.")
    interactions: Interactions | None = Field(default=None, description="Rows of the log. By default 25 per user.")
    seed: Int = Field(default=7, ge=0, lt=2**63, description="Seed of every draw.")
    mismatch: Mapping[Modality, Rate] = Field(
        default=DEFAULT_MISMATCH, description="Share of the items with a modality whose feature is another item's."
    )
    missing: Mapping[Modality, Rate] = Field(
        default=DEFAULT_MISSING, description="Share of all items without a modality."
    )
    widths: Mapping[Modality, Width] = Field(default=DEFAULT_WIDTHS, description="Length of a modality's vectors.")
    days: Int = Field(default=60, ge=1, le=3660, description="Days that the log spans.")
    sequences: bool = Field(default=False, description="Add a video and an audio modality: a list of segments an item.")
    spliced: Rate = Field(default=0.2, description="Share of the items with a run of segments that belong to another.")
    time_offset: Int = Field(
        default=3,
        ge=-LARGEST_OFFSET,
        le=LARGEST_OFFSET,
        description="Segments by which the audio is later than the video.",
    )

    def __post_init__(self) -> None:
        if self.num_interactions < 20 * self.days:
            raise ValueError(f"interactions: wanted at least {20 * self.days}, 20 a day, got {self.num_interactions}")
        for modality in MODALITIES:
            if modality not in self.widths:
                raise ValueError(f"widths.{modality}: missing")
        for modality in MODALITIES:
            self._check_room(modality)

    def _check_room(self, modality: str) -> None:
        having, swapped = self.having(modality), self.swapped(modality)
        broken = self.num_placeholders + self.faults_each * len(ROW_FAULTS + FEATURE_FAULTS)
        if swapped == 1:
            raise ValueError(
                f"mismatch.{modality}: one item of {having} has no other to swap with; raise it or items, or set it to 0"
            )
        if swapped + broken > having:
            raise ValueError(
                f"mismatch.{modality}: {swapped} swapped of {having} items leave no room for {broken} broken rows; "
                "lower this rate or missing, or raise items"
            )

    @property
    def num_users(self) -> int:
        """The number of users."""
        return round(1.6 * self.items) if self.users is None else self.users

    @property
    def num_interactions(self) -> int:
        """Rows of the interaction log, broken ones included."""
        return 25 * self.num_users if self.interactions is None else self.interactions

    @property
    def num_placeholders(self) -> int:
        """Items that show the same stock picture."""
        return max(2, round(_PLACEHOLDER_SHARE * self.items))

    @property
    def faults_each(self) -> int:
        """Catalog rows broken in each of the ways of ``ROW_FAULTS`` and ``FEATURE_FAULTS``."""
        return math.ceil(_BROKEN_SHARE * self.items / len(ROW_FAULTS + FEATURE_FAULTS))

    def having(self, modality: str) -> int:
        """Items with a feature of this modality, their own or another's."""
        return self.items - round(self.missing.get(modality, 0.0) * self.items)

    def swapped(self, modality: str) -> int:
        """Items that show another item's feature of this modality."""
        return round(self.mismatch.get(modality, 0.0) * self.having(modality))

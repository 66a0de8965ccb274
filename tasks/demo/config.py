"""What a demo catalog is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

MODALITIES = ("image", "text")
SEQUENCES = ("video", "audio")
DEFAULT_WIDTHS: Mapping[str, int] = {"image": 256, "text": 128}
DEFAULT_MISMATCH: Mapping[str, float] = {"image": 0.2, "text": 0.1}
DEFAULT_MISSING: Mapping[str, float] = {"image": 0.05, "text": 0.01}
ROW_FAULTS = ("duplicate_id", "null_id")
FEATURE_FAULTS = ("nan", "infinite", "zero_norm", "wrong_width")

_BROKEN_SHARE = 0.003
_PLACEHOLDER_SHARE = 0.005
_LARGEST_RATE = 0.9
_LARGEST_COUNT = 2**31 - 1
_LARGEST_OFFSET = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Sizes, seed and planted shares of a demo catalog.

    ``users`` is 1.6 per item when None, ``interactions`` 25 per user. ``mismatch[m]`` is the share of the items that have modality m whose
    feature is another item's, ``missing[m]`` the share of all items with none; a modality that is not named has rate 0. ``widths[m]`` is
    the length of its vectors. ``interactions`` are spread over ``days`` days. ``sequences`` adds the modalities of ``SEQUENCES``, a list of
    segments an item: the share ``spliced`` of the items has a run of segments that belong to another, and what the video shows at segment
    t is heard at segment t + ``time_offset``. Raises ``ValueError`` naming the key for a value out of range.
    """

    items: int = 5000
    users: int | None = None
    interactions: int | None = None
    seed: int = 7
    mismatch: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MISMATCH))
    missing: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MISSING))
    widths: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_WIDTHS))
    days: int = 60
    sequences: bool = False
    spliced: float = 0.2
    time_offset: int = 3

    def __post_init__(self) -> None:
        """Check every value, and that what is to be planted fits."""
        _check_count("items", self.items, 100, 9_999_999)
        _check_count("days", self.days, 1, 3660)
        _check_count("users", self.num_users, 10, _LARGEST_COUNT)
        _check_count("interactions", self.num_interactions, max(1000, 20 * self.days), _LARGEST_COUNT)
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: wanted a whole number from 0 to 2^63 - 1, got {self.seed}")
        for key, rates in (("mismatch", self.mismatch), ("missing", self.missing)):
            for modality, rate in rates.items():
                if modality not in MODALITIES:
                    raise ValueError(f"{key}: the demo has the modalities {' and '.join(MODALITIES)}, not {modality!r}")
                if not 0 <= rate <= _LARGEST_RATE:
                    raise ValueError(f"{key}.{modality}: wanted a rate from 0 to {_LARGEST_RATE}, got {rate}")
        for modality in MODALITIES:
            _check_count(f"widths.{modality}", self.widths.get(modality), 2, 65536)
        if not 0 <= self.spliced <= _LARGEST_RATE:
            raise ValueError(f"spliced: wanted a share from 0 to {_LARGEST_RATE}, got {self.spliced}")
        if not -_LARGEST_OFFSET <= self.time_offset <= _LARGEST_OFFSET:
            raise ValueError(
                f"time_offset: wanted from {-_LARGEST_OFFSET} to {_LARGEST_OFFSET} segments, got {self.time_offset}"
            )
        for modality in MODALITIES:
            self._check_room(modality)

    def _check_room(self, modality: str) -> None:
        having, swapped = self.having(modality), self.swapped(modality)
        kept_clean = self.num_placeholders + self.faults_each * len(ROW_FAULTS + FEATURE_FAULTS)
        if swapped == 1:
            raise ValueError(
                f"mismatch.{modality}: one item of {having} has none to swap with; raise it or items, or set it to 0"
            )
        if swapped + kept_clean > having:
            raise ValueError(
                f"mismatch.{modality}: {swapped} swapped of {having} items that have it leave no room for the {kept_clean} rows "
                "broken in other ways; lower this rate or missing, or raise items"
            )

    @property
    def num_users(self) -> int:
        """Users, with the default worked out."""
        return round(1.6 * self.items) if self.users is None else self.users

    @property
    def num_interactions(self) -> int:
        """Rows of the interaction log, broken ones among them, with the default worked out."""
        return 25 * self.num_users if self.interactions is None else self.interactions

    @property
    def num_placeholders(self) -> int:
        """Items that show the same stock picture."""
        return max(2, round(_PLACEHOLDER_SHARE * self.items))

    @property
    def faults_each(self) -> int:
        """Catalog rows broken in each of the ways of ``ROW_FAULTS`` and ``FEATURE_FAULTS``."""
        return math.ceil(_BROKEN_SHARE * self.items / len(ROW_FAULTS + FEATURE_FAULTS))

    @property
    def broken_interactions(self) -> int:
        """Rows of the interaction log that point nowhere."""
        return max(2, round(_BROKEN_SHARE * self.num_interactions))

    def having(self, modality: str) -> int:
        """Items that have this modality, be it their own or not."""
        return self.items - round(self.missing.get(modality, 0.0) * self.items)

    def swapped(self, modality: str) -> int:
        """Items that carry another item's feature of this modality."""
        return round(self.mismatch.get(modality, 0.0) * self.having(modality))


def _check_count(key: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{key}: wanted a whole number from {least} to {most}, got {value}")

"""What a run may take over from an earlier one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class IncrementalConfig:
    """``enabled`` brings an earlier run up to date instead of running cold; off by default, for then a day's rows depend on its data alone.

    A run is cold nonetheless where no earlier run can be used, every ``cold_every`` nights, where more than the share ``most_changed`` of a
    modality's features are not what they were, and where held-out recall fell by more than the share ``most_fallen`` since the earlier run.
    An item asks for all its neighbours anew where the cosine of its anchor with the earlier one is below ``still``.
    """

    enabled: bool = False
    cold_every: int = 7
    most_changed: float = 0.1
    most_fallen: float = 0.1
    still: float = 0.99

    @property
    def rows(self) -> dict[str, float]:
        """The settings that the rows of an incremental run depend on; the others only say which run it is."""
        return {"still": self.still}

    def __post_init__(self) -> None:
        if self.cold_every < 1:
            raise ValueError(f"cold_every: wanted at least 1, got {self.cold_every}")
        for name in ("most_changed", "most_fallen", "still"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: wanted a share in [0, 1], got {getattr(self, name)}")

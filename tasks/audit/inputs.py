"""The options of an audit, and references to the stage outputs of one day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import InputError
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """Where the list of suspects stops: at an expected share ``fdr`` of false alarms, .1 by default, or after the ``top`` worst if given.

    ``conservative``: stop where the upper bound of that share reaches ``fdr``.
    ``labels``: a file with a person's verdicts. ``hand_check``: the number of judged items to draw for one (0: none).
    Raises InputError naming the option.
    """

    fdr: float | None = None
    top: int | None = None
    conservative: bool = False
    labels: Path | None = None
    hand_check: int = 0

    def __post_init__(self) -> None:
        if self.fdr is not None and self.top is not None:
            raise InputError("--fdr, --top: give one of the two")
        if not 0 <= self.share <= 1:
            raise InputError(f"--fdr {self.fdr}: wanted a share in [0, 1]")
        if self.top is not None and self.top < 0:
            raise InputError(f"--top {self.top}: wanted at least 0")
        if self.top is not None and self.conservative:
            raise InputError("--top, --conservative: give one of the two, --conservative belongs to --fdr")
        if self.hand_check < 0:
            raise InputError(f"--hand-check {self.hand_check}: wanted at least 0")

    @property
    def share(self) -> float:
        """The expected share of false alarms at which the list stops."""
        return 0.1 if self.fdr is None else self.fdr


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditInputs:
    """One day's stage outputs. ``rectified`` says how far the features that a night publishes moved."""

    run_id: str
    as_of: str
    seed: int
    source: Ref
    anchors: Ref
    rectified: Ref
    modalities: Mapping[str, ModalityRefs]

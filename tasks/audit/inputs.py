"""The options of an audit, and references to the stage outputs of one day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """Where the list of suspects stops: at an expected share ``fdr`` of false alarms, or after the ``top`` worst if given.

    ``conservative``: stop where the upper bound of that share reaches ``fdr``.
    ``labels``: a file with a person's verdicts. ``hand_check``: the number of judged items to draw for one (0: none).
    """

    fdr: float = 0.1
    top: int | None = None
    conservative: bool = False
    labels: Path | None = None
    hand_check: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fdr <= 1:
            raise ValueError(f"--fdr {self.fdr}: wanted a share in [0, 1]")
        if self.top is not None and self.top < 0:
            raise ValueError(f"--top {self.top}: wanted at least 0")
        if self.top is not None and self.conservative:
            raise ValueError("--top, --conservative: give one of the two, --conservative belongs to --fdr")
        if self.hand_check < 0:
            raise ValueError(f"--hand-check {self.hand_check}: wanted at least 0")


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

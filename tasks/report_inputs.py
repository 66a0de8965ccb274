"""What a run hands to its report: references to its stage outputs, and the few scalars that only the run knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rectifier_core.records import QualityReport
from tasks.references import Ref

Outcome = Literal["published", "unchanged", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityRefs:
    """The stage outputs of one modality."""

    projection: Ref
    affinity: Ref
    plan: Ref
    trust: Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTiming:
    """One stage of the run: wall-clock ``seconds``, and whether its output was already there (``reused``)."""

    stage: str
    seconds: float
    reused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInputs:
    """Everything a report is made from.

    ``table_version`` is the version just published, or the one that already held this run; None if there is none. ``peak_memory_bytes``
    is the run's peak resident memory; ``provenance`` and ``config`` are shown as they are, except values that look like credentials.
    """

    outcome: Outcome
    run_id: str
    as_of: str
    table_uri: str
    table_version: int | None
    source: Ref
    anchors: Ref
    modalities: Mapping[str, ModalityRefs]
    rectified: Ref
    quality: QualityReport
    timings: tuple[StageTiming, ...]
    peak_memory_bytes: int
    provenance: Mapping[str, str]
    config: Mapping[str, Any]

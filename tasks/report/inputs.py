"""What a run hands to its report: references to its stage outputs, and the few scalars that only the run knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rectifier_core.base.published_records import QualityReport
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref

Outcome = Literal["published", "unchanged", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTiming:
    """One stage of the run: seconds by the clock and of the processors, the most bytes resident meanwhile and those planned for (None:
    no plan), and whether its output was there already."""

    stage: str
    seconds: float
    cpu_seconds: float
    reused: bool
    peak_memory: int
    planned_memory: int | None

    @classmethod
    def of(cls, stage: str, ref: Ref, planned_memory: int | None) -> StageTiming:
        """What a stage's output says of its making."""
        return cls(
            stage=stage,
            seconds=ref.seconds,
            cpu_seconds=ref.cpu_seconds,
            reused=ref.reused,
            peak_memory=ref.peak_memory,
            planned_memory=planned_memory,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInputs:
    """Everything a report is made from.

    ``table_version`` is the version just published, or the one that already held this run; None if there is none. ``peak_memory_bytes``
    is the run's peak resident memory, ``memory_limit`` what it was allowed; ``provenance`` and ``config`` are shown as they are, except
    values that look like credentials.
    ``sequences`` and ``time_offsets`` are what was found in sequence modalities, as ``tasks.stages.sequences`` states it.
    ``shadow`` is what ``tasks.evaluation.shadow.shadow_facts`` states, where a shadow evaluation was run.
    ``trend`` are the entries of the last days as ``tasks.table.trend.read_trend`` gives them, oldest first, this run's own among them, and
    ``trend_damaged`` how many files of it could not be read. ``embedding_models`` are those that the config names, by modality.
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
    memory_limit: int
    provenance: Mapping[str, str]
    config: Mapping[str, Any]
    sequences: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    time_offsets: tuple[Mapping[str, Any], ...] = ()
    trend: tuple[Mapping[str, Any], ...] = ()
    trend_damaged: int = 0
    shadow: Mapping[str, Any] | None = None
    embedding_models: Mapping[str, str] = field(default_factory=dict)

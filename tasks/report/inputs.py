"""The inputs of a run's report: references to its stage outputs, and a few values that only the run has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rectifier_core.base.published_records import QualityReport
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref

Outcome = Literal["published", "unchanged", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInputs:
    """Everything that a report shows.

    - ``table_version``: the version just published, or the one that already held this run; None if there is none.
    - ``peak_memory_bytes`` and ``memory_limit``: of the whole run.
    - ``provenance``, ``config``: shown as they are, except values that look like credentials.
    - ``sequences``, ``time_offsets``: as ``tasks.stages.sequences`` gives them.
    - ``shadow``: as ``tasks.evaluation.shadow.shadow_facts`` gives it; None where no shadow evaluation was run.
    - ``trend``: the last days as ``read_trend`` gives them, oldest first, with this run. ``trend_damaged``: days that cannot be read.
    - ``embedding_models``: the models that the config names, by modality.
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
    stages: Mapping[str, Ref]
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

    @property
    def timings(self) -> list[dict[str, Any]]:
        """Of every stage: wall-clock and CPU seconds, whether it was reused, and bytes of peak memory."""
        names = ("seconds", "cpu_seconds", "reused", "peak_memory")
        return [{"stage": stage} | {x: getattr(ref, x) for x in names} for stage, ref in self.stages.items()]

"""The end of a night: what the run made, its report, and its summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from flows.anchors import AnchorsResult
from flows.config.run_config import RunConfig
from flows.steps import night as steps
from rectifier_core.base.published_records import QualityReport, TableVersion
from tasks.errors import GateRefusedError
from tasks.report.inputs import ReportInputs
from tasks.runs.folders import ref_values, save_summary
from tasks.runs.identity import making_digest, without_places
from tasks.stages.previous_run import ROW_MAPPING
from tasks.store.peak_memory import peak_memory_bytes
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref
from tasks.table.trend import Trend


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a run would publish, and the quality gate's report on it."""

    source: Ref
    shadow: Ref | None
    start: AnchorsResult
    matched: dict[str, ModalityRefs]
    rectified: Ref
    quality: QualityReport

    @property
    def stages(self) -> dict[str, Ref]:
        """Every stage output by its name."""
        refs = {"source": self.source, "anchors": self.start.anchors, "rectify": self.rectified}
        if self.shadow is not None:
            refs["shadow"] = self.shadow
        if self.start.previous is not None:
            refs[ROW_MAPPING] = self.start.previous.row_mapping
        for modality, outputs in self.matched.items():
            refs |= outputs.named(modality)
        return refs


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What a run made and published. ``version`` is None where the gate refused. ``facts`` are its findings as JSON values."""

    config: RunConfig
    made: Candidate
    version: TableVersion | None
    facts: dict[str, Any]
    trend: Trend

    @property
    def outcome(self) -> Literal["published", "unchanged", "refused"]:
        """What became of the day."""
        if self.version is None:
            return "refused"
        return "published" if self.version.published else "unchanged"


def report_night(night: Night) -> dict[str, Any]:
    """Write the report and the summary, and return the summary.

    Raises GateRefusedError where the gate refused. Its message names the failed checks and the report.
    """
    identity = night.made.start.identity
    path = steps.report(night.config.run.run_folder(identity.run_id), _report_inputs(night), night.facts)
    if night.version is None:
        quality = night.made.quality
        failed = [
            f"{check.name}: {check.value:.4g}, wanted {check.rule} {check.bound:.4g}"
            for check in quality.checks
            if check.verdict == "failed"
        ]
        why = "; ".join([*failed, *quality.notes])
        raise GateRefusedError(f"{identity.day}: the quality gate refused, nothing was published: {why}; see {path}")
    summary = _summary(night, night.version, path)
    save_summary(night.config.run, summary)
    return summary


def _summary(night: Night, version: TableVersion, report: str) -> dict[str, Any]:
    made, facts, config = night.made, night.facts, night.config
    previous, stages = made.start.previous, made.stages
    return {
        "run_id": made.start.identity.run_id,
        "as_of": made.start.identity.day,
        "version": version.version,
        "rows": version.rows,
        "published": version.published,
        "report": report,
        "table": config.publish.uri,
        "modalities": facts["modalities"],
        "time_offsets": facts["time_offsets"],
        "newest_event": facts["newest_event"],
        "warnings": facts["warnings"],
        "seconds": {name: round(ref.seconds, 3) for name, ref in stages.items()},
        "cpu_seconds": {name: round(ref.cpu_seconds, 3) for name, ref in stages.items()},
        "peak_memory_bytes": peak_memory_bytes(),
        "stage_memory_bytes": {name: ref.peak_memory for name, ref in stages.items() if not ref.reused},
        "memory_limit_bytes": config.resources.memory_bytes,
        "stages": {name: ref_values(ref) for name, ref in stages.items()},
        "making": making_digest(config.shaping),
        "base": None if previous is None else previous.identity,
        "nights": 0 if previous is None else previous.nights,
        **{name: facts[name] for name in ("incremental", "shadow") if name in facts},
    }


def _report_inputs(night: Night) -> ReportInputs:
    made, facts, config = night.made, night.facts, night.config
    identity = made.start.identity
    provenance = {
        "digest": identity.digest,
        "config": identity.config_digest,
        "inputs": identity.inputs_digest,
        "code": identity.code_version,
    }
    if "incremental" in facts:
        provenance["incremental"] = facts["incremental"]["reason"]
    return ReportInputs(
        outcome=night.outcome,
        run_id=identity.run_id,
        as_of=identity.day,
        table_uri=config.publish.uri,
        table_version=None if night.version is None else night.version.version,
        source=made.source,
        anchors=made.start.anchors,
        modalities=made.matched,
        rectified=made.rectified,
        quality=made.quality,
        stages=made.stages,
        peak_memory_bytes=peak_memory_bytes(),
        memory_limit=config.resources.memory_bytes,
        provenance=provenance,
        config=without_places(config.shaping),
        sequences={m: x["sequence"] for m, x in facts["modalities"].items() if "sequence" in x},
        time_offsets=tuple(facts["time_offsets"]),
        shadow=facts.get("shadow"),
        trend=night.trend.days,
        trend_damaged=night.trend.damaged,
        embedding_models=config.source.embedding_models,
    )

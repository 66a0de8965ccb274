"""The audit: read, learn, match and rectify as a night does, then name the suspects; nothing is published."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.anchors import anchors_of_published_run
from flows.config.run_config import RunConfig
from flows.matching import match_catalog
from flows.monitoring import logged
from flows.steps import night as steps
from tasks.audit.inputs import AuditInputs, AuditOptions
from tasks.audit.write import write_audit
from tasks.resources.memory_plan import check_memory
from tasks.resources.process import use_resources
from tasks.shards.open_runner import open_runner


@task(name="audit", cache_policy=NO_CACHE, persist_result=False)
def audit(folder: Path, inputs: AuditInputs, options: AuditOptions) -> dict[str, Any]:
    """Write the findings."""
    return write_audit(folder, inputs, options)


@flow(name="audit-catalog", flow_run_name="audit {as_of}", validate_parameters=False, persist_result=False)
@logged
def audit_catalog(config: RunConfig, as_of: date, options: AuditOptions, out: Path | None = None) -> dict[str, Any]:
    """Audit one day into ``out`` (by default beside the day's report) and return the counts.

    It shares the stage outputs of a night that ran before it, and runs beside one: it holds the stage store, not the table. Raises
    InputError or StorageError, each with one line for the user.
    """
    use_resources(config.resources)
    with config.run.store.in_use(), open_runner(config.resources, config.run.store) as store:
        source = steps.read(config.source, as_of, store)
        start = anchors_of_published_run(config, as_of, source, store)
        run_id, anchors = start.identity.run_id, start.anchors
        check_memory(source, config.pipeline, config.resources)
        matched = match_catalog(source, anchors, config, store, start.previous)
        rectified = steps.rectify(source, matched, config.rectify, config.segments, config.seed, store)
        folder = out or config.run.run_folder(run_id) / "audit"
        inputs = AuditInputs(
            run_id=run_id,
            as_of=as_of.isoformat(),
            seed=config.seed,
            source=source,
            anchors=anchors,
            rectified=rectified,
            modalities=matched,
        )
        result: dict[str, Any] = audit(folder, inputs, options)
        return result

"""Prefect artifacts of a run: its findings, the quality gate, and the stages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.observe.events import server_answers
from tasks.report.inputs import ReportInputs
from tasks.run_logger import run_logger

_VERDICTS = {"passed": "passed", "warning": "**warning**", "failed": "**FAILED**"}


def leave_artifacts(inputs: ReportInputs, facts: Mapping[str, Any], path: Path) -> None:
    """Create the artifacts of a run. A failure is a warning, because the report at `path` has the same facts."""
    if not server_answers():
        return
    version = "nothing" if inputs.table_version is None else f"version {inputs.table_version}"
    checks = (f"{_VERDICTS[c.verdict]}: {c.name}: {c.value:.4g}, {c.rule} {c.bound:.4g}" for c in inputs.quality.checks)
    where = f"Run `{inputs.run_id}`, table `{inputs.table_uri}`, report `{path}`."
    lines = [f"# {inputs.as_of}: {inputs.outcome}, {version}", "", where, ""]
    lines += [f"- {line}" for line in (*checks, *inputs.quality.notes)]
    modalities = [{"modality": m} | dict(values) for m, values in facts["modalities"].items()]
    try:
        title = f"{inputs.as_of} {inputs.outcome}"
        create_markdown_artifact("\n".join(lines), key="rectify-catalog", description=title)
        create_table_artifact(modalities, key="rectify-catalog-modalities", description=inputs.as_of)
        create_table_artifact(inputs.timings, key="rectify-catalog-stages", description=inputs.as_of)
    except Exception as error:
        run_logger().warning("Prefect took no artifacts (%s: %s); the report has the same", type(error).__name__, error)

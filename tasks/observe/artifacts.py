"""What a run's page in Prefect shows of it; a run whose server is gone goes on without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.observe.publish_events import server_answers
from tasks.report.inputs import ReportInputs
from tasks.run_logger import run_logger


def leave_artifacts(inputs: ReportInputs, facts: Mapping[str, Any], path: Path) -> None:
    """Leave what was found, the gate and the stages with Prefect; what it does not take is in the report at ``path`` all the same."""
    if not server_answers():
        return
    try:
        version = "nothing" if inputs.table_version is None else f"version {inputs.table_version}"
        lines = [f"# {inputs.as_of}: {inputs.outcome}, {version}", ""]
        lines += [f"Run `{inputs.run_id}`, table `{inputs.table_uri}`, report `{path}`.", ""]
        said = {"passed": "passed", "warning": "**warning**", "failed": "**FAILED**"}
        lines += [
            f"- {said[c.verdict]}: {c.name}: {c.value:.4g}, {c.rule} {c.bound:.4g}" for c in inputs.quality.checks
        ]
        lines += [f"- {note}" for note in inputs.quality.notes]
        create_markdown_artifact(
            "\n".join(lines), key="rectify-catalog", description=f"{inputs.as_of} {inputs.outcome}"
        )
        rows = [{"modality": m} | found for m, found in facts["modalities"].items()]
        create_table_artifact(rows, key="rectify-catalog-modalities", description=inputs.as_of)
        create_table_artifact(
            [asdict(x) for x in inputs.timings], key="rectify-catalog-stages", description=inputs.as_of
        )
    except Exception as error:
        run_logger().warning(
            "Prefect did not take the run's artifacts (%s: %s); the report has it all", type(error).__name__, error
        )

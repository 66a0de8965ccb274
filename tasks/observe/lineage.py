"""A run's lineage as OpenLineage events: what it read, what it wrote, and what the gate said, for a catalog such as Marquez or DataHub.

Told only where the environment asks for it in OpenLineage's own variables (``OPENLINEAGE_URL``, ``OPENLINEAGE_CONFIG`` or
``OPENLINEAGE__TRANSPORT__TYPE``); needs the package openlineage-python. Events: START, then COMPLETE, or FAIL with the one line, or ABORT
where the run was stopped. Datasets are named as OpenLineage's naming wants them: ``s3://bucket`` and the key, or ``file`` and the path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    JobFacet,
    RunFacet,
    dataset_version_dataset,
    error_message_run,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    schema_dataset,
    tags_dataset,
    test_run,
)
from openlineage.client.uuid import generate_new_uuid

import rectifier_core
from tasks.masking import masked
from tasks.source.config import SourceConfig
from tasks.store.run_context import RunContext
from tasks.table.config import PublishConfig
from tasks.table.embedding_models import EMBEDDING_MODEL
from tasks.table.log import open_table
from tasks.table.trend import read_trend

PRODUCER = f"urn:catalog-rectifier:{rectifier_core.__version__}"
NAMESPACE = "catalog-rectifier"
JOB = "rectify"


@dataclass(frozen=True, slots=True)
class Lineage:
    """The lineage of one run; ``uuid`` is its id there."""

    client: OpenLineageClient
    uuid: str
    run: RunContext
    source: SourceConfig
    publish: PublishConfig

    @classmethod
    def of(cls, run: RunContext, source: SourceConfig, publish: PublishConfig) -> Lineage:
        """The lineage of a run that begins. Raises ValueError where the environment's transport makes no sense."""
        return cls(OpenLineageClient(), str(generate_new_uuid()), run, source, publish)

    def began(self) -> None:
        """Tell that the run began."""
        self._emit(RunState.START, {}, [OutputDataset(*dataset_name(self.publish.uri))])

    def ended(self, outcome: str, message: str | None) -> None:
        """Tell how the run ended, and of one that published what it wrote. Raises StorageError where the table cannot be read."""
        state = RunState.COMPLETE if message is None else RunState.ABORT if outcome == "interrupted" else RunState.FAIL
        facets: dict[str, RunFacet] = {}
        if message is not None:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                message=message, programmingLanguage="Python"
            )
        if outcome in ("published", "unchanged", "refused") and (checks := self._checks()):
            facets["test"] = test_run.TestRunFacet(tests=checks)
        self._emit(
            state, facets, [self._written() if message is None else OutputDataset(*dataset_name(self.publish.uri))]
        )
        self.client.close(timeout=10)

    def _emit(self, state: RunState, facets: dict[str, RunFacet], outputs: list[OutputDataset]) -> None:
        job = Job(
            namespace=os.environ.get("OPENLINEAGE_NAMESPACE", NAMESPACE),
            name=f"{JOB}.{self.publish.uri.rsplit('/', 1)[-1]}",
        )
        batch: dict[str, JobFacet] = {
            "jobType": job_type_job.JobTypeJobFacet(
                processingType="BATCH", integration="CATALOG_RECTIFIER", jobType="JOB"
            )
        }
        job.facets = batch
        event = RunEvent(
            eventType=state,
            eventTime=datetime.now(UTC).isoformat(timespec="milliseconds"),
            run=Run(runId=self.uuid, facets=self._run_facets() | facets),
            job=job,
            inputs=[InputDataset(*dataset_name(masked(x))) for x in (self.source.catalog, self.source.interactions)],
            outputs=outputs,
            producer=PRODUCER,
        )
        self.client.emit(event)

    def _run_facets(self) -> dict[str, RunFacet]:
        found: dict[str, RunFacet] = {}
        if self.run.as_of is not None:
            day = datetime.combine(date.fromisoformat(self.run.as_of), time(), tzinfo=UTC)
            found["nominalTime"] = nominal_time_run.NominalTimeRunFacet(
                day.isoformat(), (day + timedelta(days=1)).isoformat()
            )
        if self.run.flow_run_id is not None:
            parent = parent_run.ParentRunFacet(
                parent_run.Run(self.run.flow_run_id), parent_run.Job("prefect", "rectify-catalog")
            )
            found["parent"] = parent
        return found

    def _checks(self) -> list[test_run.TestExecution]:
        days = read_trend(self.publish, 1, until=self.run.as_of).days
        if not days or days[-1]["run_id"] != self.run.run_id:
            return []
        return [_check(x) for x in days[-1]["gate"]]

    def _written(self) -> OutputDataset:
        summary, table = self.run.summary or {}, open_table(self.publish.uri)
        found = OutputDataset(*dataset_name(self.publish.uri))
        found.facets = {"version": dataset_version_dataset.DatasetVersionDatasetFacet(str(summary.get("version")))}
        if table is not None:
            fields = [
                schema_dataset.SchemaDatasetFacetFields(name=x.name, type=str(x.type))
                for x in pa.schema(table.schema().to_arrow())
            ]
            found.facets["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields)
        models = {m: x[EMBEDDING_MODEL] for m, x in summary.get("modalities", {}).items() if x.get(EMBEDDING_MODEL)}
        if models:
            tags = [
                tags_dataset.TagsDatasetFacetFields(EMBEDDING_MODEL, model, "INTEGRATION", m)
                for m, model in models.items()
            ]
            found.facets["tags"] = tags_dataset.TagsDatasetFacet(tags=tags)
        if summary.get("published"):
            rows = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=summary["rows"])
            found.outputFacets = {"outputStatistics": rows}
        return found


def _check(found: Mapping[str, Any]) -> test_run.TestExecution:
    return test_run.TestExecution(
        name=found["name"],
        status="pass" if found["passed"] else "fail",
        severity="error" if found["blocking"] else "warn",
        expected=f"{found['rule']} {found['bound']}",
        actual=str(found["value"]),
    )


def dataset_name(place: str) -> tuple[str, str]:
    """The namespace and name of a dataset: ``s3://bucket`` and the key, or ``file`` and an absolute path."""
    scheme, separator, rest = place.partition("://")
    if not separator:
        return "file", place
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key or "/"

"""The run config: one TOML file. Each section is the config class of a stage, and an unknown key is an error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from flows.config.toml_file import read_config
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.config import STRICT, Int, explain, mistakes
from rectifier_core.config import PipelineConfig, QualityConfig
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.projection.config import CrossModalConfig, ProjectionConfig
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.sequences.config import SegmentsConfig, TimeOffsetConfig
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.trust.config import TrustConfig
from tasks.errors import InputError
from tasks.evaluation.config import EvaluationConfig
from tasks.feature_store.config import FeatureStoreConfig
from tasks.observe.config import AlertsConfig, WatchConfig
from tasks.resources.config import ResourcesConfig
from tasks.runs.config import RunSettings
from tasks.runs.day_journal import DayJournal
from tasks.source.config import SourceConfig
from tasks.stages.config import IncrementalConfig
from tasks.table.config import PublishConfig


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class RunConfig:
    """The whole config of a run. Only ``source`` and ``publish`` have no defaults."""

    seed: Int = Field(
        default=0,
        ge=0,
        description="Seed of every draw. The same inputs, config and seed give the same bytes on the CPU.",
    )
    source: SourceConfig
    publish: PublishConfig
    run: RunSettings
    feature_store: FeatureStoreConfig
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig)
    incremental: IncrementalConfig = Field(default_factory=IncrementalConfig)
    alerts: AlertsConfig = Field(default_factory=AlertsConfig)
    anchors: AnchorsConfig = Field(default_factory=AnchorsConfig)
    segments: SegmentsConfig = Field(default_factory=SegmentsConfig)
    time_offset: TimeOffsetConfig = Field(default_factory=TimeOffsetConfig)
    copies: CopiesConfig = Field(default_factory=CopiesConfig)
    projection: ProjectionConfig = Field(default_factory=ProjectionConfig)
    cross_modal: CrossModalConfig = Field(default_factory=CrossModalConfig)
    affinity: AffinityConfig = Field(default_factory=AffinityConfig)
    sinkhorn: SinkhornConfig = Field(default_factory=SinkhornConfig)
    trust: TrustConfig = Field(default_factory=TrustConfig)
    rectify: RectifyConfig = Field(default_factory=RectifyConfig)
    quality: QualityConfig = Field(default_factory=QualityConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    @classmethod
    def from_toml(cls, path: Path, overrides: Iterable[str] = ()) -> RunConfig:
        """Read and validate ``path``; raises InputError with one line that names the file and the key."""
        try:
            return cls(**read_config(path, overrides))
        except ValidationError as error:
            raise InputError(f"{path}: {explain(error, cls)}") from error

    @classmethod
    def mistakes(cls, path: Path, overrides: Iterable[str] = ()) -> list[str]:
        """Every mistake of ``path`` as a line, none if it is right. Raises InputError where it is no TOML file."""
        try:
            cls(**read_config(path, overrides))
        except ValidationError as error:
            return mistakes(error, cls)
        return []

    @property
    def pipeline(self) -> PipelineConfig:
        """The stages from anchors to rectified features, as the core chains them in memory."""
        return PipelineConfig(**{part.name: getattr(self, part.name) for part in fields(PipelineConfig)})

    @property
    def watch(self) -> WatchConfig:
        """The config that monitoring needs."""
        parts = {part.name: getattr(self, part.name) for part in fields(WatchConfig)}
        return WatchConfig(**parts)

    @property
    def journal(self) -> DayJournal:
        """The journal of the table's days."""
        return DayJournal(self.run.folder, self.publish)

    @property
    def shaping(self) -> dict[str, Any]:
        """The parts that the published rows depend on. Of the evaluation that is its shadow, which may refuse them.

        ``incremental`` is not among them: the rows of a run that computes everything do not depend on it.
        """
        apart = ("publish", "run", "feature_store", "resources", "incremental", "alerts", "evaluation")
        parts = {x.name: getattr(self, x.name) for x in fields(self) if x.name not in apart}
        return (
            parts
            | self.evaluation.shadow_parts
            | {name: getattr(self.publish, name) for name in ("sequences", "behaviour")}
        )

"""The run config: one TOML file, every section the frozen config of the stage it tunes; an unknown key is an error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.config.toml_file import read_config
from rectifier_core.affinity.affinity import AffinityConfig
from rectifier_core.anchors.anchors import AnchorsConfig
from rectifier_core.copies.copies import CopiesConfig
from rectifier_core.pipeline import PipelineConfig
from rectifier_core.projection.cross_modal import WitnessConfig
from rectifier_core.projection.projection import ProjectionConfig
from rectifier_core.quality import QualityConfig
from rectifier_core.rectify.rectify import RectifyConfig
from rectifier_core.sequences.segments import SegmentsConfig
from rectifier_core.sequences.time_offset import TimeOffsetConfig
from rectifier_core.sinkhorn.sinkhorn import SinkhornConfig
from rectifier_core.trust.trust import TrustConfig
from tasks.errors import InputError
from tasks.evaluation.config import EvaluationConfig
from tasks.feature_store.config import FeatureStoreConfig
from tasks.observe.config import WatchConfig
from tasks.observe.freshness import AlertsConfig
from tasks.resources.config import ResourcesConfig
from tasks.runs.identity import RunSettings
from tasks.source.config import SourceConfig
from tasks.stages.incremental_config import IncrementalConfig
from tasks.table.config import PublishConfig


class RunConfig(BaseModel):
    """Everything a run is told; only ``source`` and ``publish`` have no defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: int = Field(default=0, ge=0)
    source: SourceConfig
    publish: PublishConfig
    run: RunSettings
    feature_store: FeatureStoreConfig
    resources: ResourcesConfig = ResourcesConfig()
    incremental: IncrementalConfig = IncrementalConfig()
    alerts: AlertsConfig = AlertsConfig()
    anchors: AnchorsConfig = AnchorsConfig()
    segments: SegmentsConfig = SegmentsConfig()
    time_offset: TimeOffsetConfig = TimeOffsetConfig()
    copies: CopiesConfig = CopiesConfig()
    projection: ProjectionConfig = ProjectionConfig()
    witness: WitnessConfig = WitnessConfig()
    affinity: AffinityConfig = AffinityConfig()
    sinkhorn: SinkhornConfig = SinkhornConfig()
    trust: TrustConfig = TrustConfig()
    rectify: RectifyConfig = RectifyConfig()
    quality: QualityConfig = QualityConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @classmethod
    def from_toml(cls, path: Path, overrides: Iterable[str] = ()) -> RunConfig:
        """Read and validate ``path``; raises InputError with one line that names the file and the key."""
        try:
            return cls.model_validate(read_config(path, overrides))
        except ValidationError as error:
            raise InputError(f"{path}: {explain(error)}") from error

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, given: Any) -> Any:
        """``keep_snapshots = true`` would be read as 1, and cost all days but one."""
        for section, values in given.items() if isinstance(given, dict) else ():
            kind = cls.model_fields[section].annotation if section in cls.model_fields else None
            told = (
                {x.name: str(x.type) for x in fields(kind)} if isinstance(values, dict) and is_dataclass(kind) else {}
            )
            for name in (x for x in told if isinstance(values.get(x), bool) and told[x].startswith(("int", "float"))):
                raise ValueError(f"{section}.{name}: wanted a number, got {str(values[name]).lower()}")
        return given

    @property
    def pipeline(self) -> PipelineConfig:
        """The stages from anchors to rectified features, as the core chains them in memory."""
        return PipelineConfig(**{part.name: getattr(self, part.name) for part in fields(PipelineConfig)})

    @property
    def watch(self) -> WatchConfig:
        """What those are told who watch a run."""
        parts = {part.name: getattr(self, part.name) for part in fields(WatchConfig)}
        return WatchConfig(**parts)

    @property
    def shaping(self) -> dict[str, Any]:
        """The parts that the published rows depend on; of the evaluation only its shadow, which may refuse them.

        What an incremental run takes from an earlier one is told with that run: a cold run's rows do not depend on it.
        """
        apart = ("publish", "run", "feature_store", "resources", "incremental", "alerts", "evaluation")
        parts = {name: getattr(self, name) for name in type(self).model_fields if name not in apart}
        return parts | self.evaluation.shadow_parts | {"sequences": self.publish.sequences}


def explain(error: ValidationError) -> str:
    """The first thing wrong, as ``section.key: what``, and how many more there are."""
    first, *more = error.errors()
    key = ".".join(str(part) for part in first["loc"])
    said = {
        "extra_forbidden": "unknown key",
        "unexpected_keyword_argument": "unknown key",
        "missing": "missing, and it has no default",
        "missing_keyword_only_argument": "missing, and it has no default",
    }.get(first["type"], first["msg"].removeprefix("Value error, "))
    return (f"{key}: {said}" if key else said) + (f" (and {len(more)} more)" if more else "")

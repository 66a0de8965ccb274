"""The ``[quality]`` section, and the configs of all stages that ``pipeline`` runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.config import STRICT, Float, NotNegative, Share
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.projection.config import CrossModalConfig, ProjectionConfig
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.trust.config import TrustConfig

WarnableCheck = Literal[
    "marginal_error", "join", "moved", "rate_low", "changed", "norm_ratio", "drift", "rate_jump", "shadow"
]


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class QualityConfig:
    """The bounds of the quality gate. A day that fails a check is not published."""

    max_marginal_error: NotNegative = Field(default=0.25, description="Largest mean relative column error of a plan.")
    changed_below: Float = Field(
        default=0.5, ge=-1, le=1, description="A row counts as changed below this cosine to its input."
    )
    max_changed: NotNegative = Field(
        default=0.25, description="Largest share of trusted items whose row may be changed."
    )
    max_unexplained: Share = Field(
        default=0.5,
        description="Largest agreement (cosine) of two halves of the log where no modality fits it: such a log is another catalog's.",
    )
    max_whole_rows_low: Share = Field(
        default=0.1,
        description="Largest lower end of the share of items whose modalities fit each other, and not the log.",
    )
    max_moved: Share = Field(
        default=0.6,
        description="Largest share of features that may move by more than .1. Beyond it, the catalog and the log probably do not belong together.",
    )
    max_rate_low: Share = Field(
        default=0.6,
        description="Largest lower end of a mismatch rate. Beyond it, the catalog and the log probably do not belong together.",
    )
    min_drift_cosine: Float = Field(
        default=0.8, ge=-1, le=1, description="Smallest mean cosine to the last published version."
    )
    max_norm_ratio: Float = Field(
        default=1.01, ge=1, description="How far a row's length may lie outside the range of the input's, as a factor."
    )
    max_rate_jump: NotNegative = Field(
        default=0.05,
        description="How far a mismatch rate may lie above that of the last published day, beyond both intervals.",
    )
    warn: tuple[WarnableCheck, ...] = Field(
        default=("rate_jump",), description="Checks that publish with a warning where they fail."
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class PipelineConfig:
    """The config of every stage of ``pipeline``."""

    anchors: AnchorsConfig = Field(default_factory=AnchorsConfig)
    copies: CopiesConfig = Field(default_factory=CopiesConfig)
    projection: ProjectionConfig = Field(default_factory=ProjectionConfig)
    cross_modal: CrossModalConfig = Field(default_factory=CrossModalConfig)
    affinity: AffinityConfig = Field(default_factory=AffinityConfig)
    sinkhorn: SinkhornConfig = Field(default_factory=SinkhornConfig)
    trust: TrustConfig = Field(default_factory=TrustConfig)
    rectify: RectifyConfig = Field(default_factory=RectifyConfig)

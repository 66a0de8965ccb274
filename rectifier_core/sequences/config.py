"""The ``[segments]`` and ``[time_offset]`` sections."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Float, Int, OpenShare, Positive


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SegmentsConfig:
    """How wrong segments of a sequence are found."""

    folds: Int = Field(default=5, ge=2, description="Parts of the items. Each is scored by a fit on the others.")
    ridge_grid: tuple[Positive, ...] = Field(
        default=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        min_length=1,
        description="Penalties to choose from, in units of the mean eigenvalue of the Gram matrix.",
    )
    shrinkage: Positive = Field(default=0.1, description="Ridge of the whitening.")
    rounds: Count = Field(
        default=2, description="How often the weights of an item's other segments are computed again."
    )
    prior: OpenShare = Field(default=0.3, description="Assumed share of wrong segments in those weights.")
    window: Int = Field(default=256, ge=2, description="Most segments of an item that are compared with one another.")
    sample: Int = Field(default=50_000, ge=1000, description="Most segments that the fits use.")
    doubtful: OpenShare = Field(
        default=0.5, description="A segment below this probability is mended, and left out of the pooled feature."
    )
    min_items: Int = Field(
        default=100, ge=2, description="Fewest items with the sequence. With fewer, nothing is judged."
    )
    min_separation: Float = Field(
        default=0.52,
        ge=0.5,
        lt=1,
        description="The AUC of actual against re-paired segments must exceed this by three standard errors. Else nothing is judged.",
    )
    block_rows: Count = Field(default=8192, description="Segments read at a time. It changes no published byte.")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TimeOffsetConfig:
    """How the offset between two sequence modalities is estimated."""

    max_lag: Count = Field(default=8, description="Offsets from -max_lag to max_lag segments are tried.")
    folds: Int = Field(default=5, ge=2, description="Parts of the items. Each is scored by a fit on the others.")
    width: Count = Field(default=64, description="Principal directions that each modality is reduced to.")
    ridge: Positive = Field(default=0.3, description="Penalty, in units of the mean eigenvalue of the Gram matrix.")
    sample: Int = Field(default=40_000, ge=100, description="Most segments of each modality that are used.")
    controls: Count = Field(
        default=3, description="Pairings with other items that give the correlation expected by chance."
    )
    clearance: Positive = Field(
        default=5.0, description="Standard deviations by which the best correlation must exceed chance."
    )
    min_support: Float = Field(
        default=0.95, gt=0, le=1, description="Share of the resamples in which the best offset must be the same."
    )
    resamples: Int = Field(default=200, ge=2, description="Resamples of the items.")
    min_items: Int = Field(
        default=100, ge=2, description="Fewest items with both modalities. With fewer, nothing is estimated."
    )
    min_overlap: Int = Field(default=4, ge=2, description="Fewest common segments for an offset of a single item.")
    block_rows: Count = Field(default=8192, description="Segments read at a time. It changes no published byte.")

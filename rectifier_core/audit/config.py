"""How probable owners are searched; not part of a run config."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Float, Positive


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class OwnersConfig:
    """How the probable owners of a suspect feature are found."""

    count: Count = Field(default=10, description="Owners suggested for each suspect.")
    ridge: Positive = Field(default=0.2, description="Ridge of the covariances, in units of their mean eigenvalue.")
    least_prior: Float = Field(default=1e-3, gt=0, le=1, description="Least prior of a trusted item as an owner.")
    exact: Count = Field(default=256, description="Best candidates of a suspect that are weighed one by one.")
    sample: Count = Field(default=4096, description="Items that stand for all other candidates.")
    block_rows: Count = Field(default=1024, description="Suspects searched at a time.")

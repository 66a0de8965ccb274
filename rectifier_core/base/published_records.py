"""The frozen records of the last stages: published features, quality report and table version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Features, Float32, check_array, check_modalities


class Status(Enum):
    """What the run did to one item's feature. The published table holds the value."""

    RECTIFIED = "rectified"
    PASSED_THROUGH = "passed_through"
    IMPUTED = "imputed"
    MISSING = "missing"

    @property
    def code(self) -> int:
        """The int8 that stands for this status in ``Rectified.status``."""
        return list(Status).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectified:
    """The published features. ``status[m]`` holds ``Status.code`` (int8); ``features[m][i]`` is zeros where the status is MISSING.

    ``moved[m][i]`` is 1 - cosine between the feature that was read and the published one, NaN where the item has no feature of its own.
    """

    features: Features
    status: Mapping[str, NDArray[np.int8]]
    trust: Mapping[str, Float32]
    moved: Mapping[str, Float32]

    def __post_init__(self) -> None:
        check_modalities("status", self.features, self.status)
        check_modalities("trust", self.features, self.trust)
        check_modalities("moved", self.features, self.moved)
        for name, feature in self.features.items():
            check_array(f"features[{name}]", feature, (None, None), np.float32)
            check_array(f"status[{name}]", self.status[name], (len(feature),), np.int8)
            check_array(f"trust[{name}]", self.trust[name], (len(feature),), np.float32)
            check_array(f"moved[{name}]", self.moved[name], (len(feature),), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the quality gate: ``value`` against ``bound``, in the words of ``rule`` ("at most", "at least", "equal to").

    A failed check that is not ``blocking`` is a warning. The run still publishes.
    """

    name: str
    value: float
    bound: float
    rule: str
    passed: bool
    blocking: bool = True

    @property
    def verdict(self) -> str:
        """ "passed", "failed", or "warning" where it failed and does not block."""
        return "passed" if self.passed else "failed" if self.blocking else "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """All checks of the gate, and ``notes`` that explain them."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True when every blocking check passed; otherwise nothing is published."""
        return all(check.passed or not check.blocking for check in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableVersion:
    """Where a run's rows can be read. ``published`` is False when the table already held exactly this run."""

    uri: str
    version: int
    as_of: str
    run_id: str
    rows: int
    published: bool

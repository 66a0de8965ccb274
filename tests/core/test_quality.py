"""The gate: every check passes and fails as it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from rectifier_core.base.published_records import QualityReport, Status
from rectifier_core.config import QualityConfig, WarnableCheck
from rectifier_core.quality import ModalityMeasures, check_quality, measure_modality
from tests.support.core_samples import normals

GOOD = ModalityMeasures(not_finite=0, trusted=10, changed=1, norm_ratio=1.0, marginal_error=0.01, drift=0.99)


def judged(
    measures: ModalityMeasures = GOOD,
    *,
    read: int = 12,
    out: int = 10,
    quarantined: int = 2,
    config: QualityConfig | None = None,
) -> QualityReport:
    found, bounds = {"image": measures}, config or QualityConfig()
    return check_quality(rows_read=read, rows_out=out, rows_quarantined=quarantined, modalities=found, config=bounds)


def test_a_good_run_passes_every_check() -> None:
    report = judged()
    assert report.passed
    assert len(report.checks) == 6
    assert all(check.passed for check in report.checks)


@pytest.mark.parametrize(
    ("measures", "name"),
    [
        (replace(GOOD, not_finite=1), "not finite"),
        (replace(GOOD, marginal_error=0.5), "column error"),
        (replace(GOOD, marginal_error=float("nan")), "column error"),
        (replace(GOOD, changed=9), "share of trusted items"),
        (replace(GOOD, norm_ratio=3.0), "length"),
        (replace(GOOD, norm_ratio=float("inf")), "length"),
        (replace(GOOD, drift=0.1), "last published"),
        (replace(GOOD, drift=float("nan")), "last published"),
    ],
)
def test_each_fault_fails_its_own_check_and_the_gate(measures: ModalityMeasures, name: str) -> None:
    report = judged(measures)
    assert not report.passed
    failed = [check.name for check in report.checks if not check.passed]
    assert len(failed) == 1
    assert name in failed[0]


def test_a_check_that_only_warns_lets_the_run_publish() -> None:
    jumped, drifted = replace(GOOD, rate_jump=0.2), replace(GOOD, drift=0.1)
    report = judged(jumped)
    assert report.passed
    assert [(x.verdict, x.value, x.bound) for x in report.checks if not x.passed] == [("warning", 0.2, 0.05)]
    assert judged(replace(GOOD, rate_jump=-0.1)).checks[-1].verdict == "passed"
    assert not judged(jumped, config=QualityConfig(warn=())).passed
    assert not judged(drifted).passed
    assert judged(drifted, config=QualityConfig(warn=("drift", "rate_jump"))).passed


@pytest.mark.parametrize("fault", [{"out": 9}, {"measures": replace(GOOD, not_finite=1)}])
def test_rows_that_do_not_add_up_and_values_that_are_no_numbers_are_never_a_warning(fault: dict[str, Any]) -> None:
    assert not judged(**fault, config=QualityConfig(warn=get_args(WarnableCheck))).passed
    with pytest.raises(ValueError, match="warn"):
        QualityConfig(warn=("rows",))


def test_checks_without_a_subject_are_left_out() -> None:
    names = [x.name for x in judged(replace(GOOD, marginal_error=None, drift=None, trusted=0, changed=0)).checks]
    assert len(names) == 3


def test_measures_of_a_modality_count_by_rows_and_ignore_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    original = normals(rng, 50, 4)
    published = original.copy()
    status = np.full(50, Status.RECTIFIED.code, np.int8)
    trust = np.ones(50, np.float32)
    trust[40:49], trust[49] = 0.2, np.nan
    published[3] = -original[3]
    published[41] = -original[41]
    published[7, 2] = np.nan
    published[8] = 0
    status[8] = Status.MISSING.code
    moved = np.where(np.arange(50) % 10 == 1, np.float32(0.3), np.float32(0.05))
    moved[8] = np.nan
    found = [
        measure_modality(
            original, published, status, trust, moved, QualityConfig(), marginal_error=0.1, drift=None, block_rows=n
        )
        for n in (7, 100)
    ]
    assert found[0].changed == found[1].changed == 1
    assert found[0].not_finite == found[1].not_finite == 1
    assert found[0].trusted == 39
    assert found[0].moved == pytest.approx(5 / 49)


def test_a_length_outside_the_inputs_range_is_measured_as_a_ratio() -> None:
    original = np.array([[1.0, 0], [2, 0], [4, 0]], np.float32)
    status = np.full(3, Status.RECTIFIED.code, np.int8)
    for factor, wanted in ((1.0, 1.0), (2.0, 2.0), (0.25, 4.0)):
        found = measure_modality(
            original,
            original * np.float32(factor),
            status,
            np.ones(3, np.float32),
            np.zeros(3, np.float32),
            QualityConfig(),
            marginal_error=None,
            drift=None,
        )
        assert found.norm_ratio == pytest.approx(wanted)

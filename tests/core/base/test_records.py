"""Records refuse what does not fit, in words that name the field, what was wanted and what was given."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from rectifier_core.base.published_records import Check, QualityReport, Rectified, Status
from rectifier_core.base.records import (
    Affinity,
    Anchors,
    BalanceOutcome,
    Catalog,
    Copies,
    Interactions,
    Plan,
    Projection,
    Trust,
)
from rectifier_core.base.sequence_records import NO_LAG, Segments, TimeOffset

F32, I32 = np.float32, np.int32


def good(record: type) -> dict[str, Any]:
    """Keyword arguments of a small record that is whole: 3 items, anchor width 2, feature width 4."""
    eye = np.eye(3, 2, dtype=F32)
    eye[2] = (0.6, 0.8)
    samples: dict[type, dict[str, Any]] = {
        Catalog: {
            "item_ids": np.array(["a", "b", "c"]),
            "features": {"image": np.ones((3, 4), F32)},
            "present": {"image": np.ones(3, np.bool_)},
        },
        Interactions: {
            "users": np.array([0, 1, 1], I32),
            "items": np.array([2, 0, 1], I32),
            "times": np.array([5, 6, 7], np.int64),
            "num_users": 2,
            "num_items": 3,
        },
        Anchors: {
            "items": eye,
            "ego": eye * F32(3),
            "trained": np.ones(3, np.bool_),
            "reliability": np.ones(3, F32),
            "losses": np.zeros(2),
            "recalls": np.zeros(3),
        },
        Projection: {
            "modality": "image",
            "weight": np.ones((4, 2), F32),
            "feature_mean": np.zeros(4, F32),
            "target_mean": np.zeros(2, F32),
            "fold_weights": np.ones((2, 4, 2), F32),
            "fold_means": np.zeros((2, 4), F32),
            "projected": eye,
            "target": eye,
            "alignment": np.ones(3, F32),
            "length": np.ones(3, F32),
            "fold": np.array([0, 1, -1], I32),
            "null_alignment": np.zeros(7, F32),
            "kept": np.ones(3, np.bool_),
            "ridge": 1.0,
        },
        Affinity: {
            "modality": "image",
            "neighbours": np.array([[0, 1], [1, -1], [2, 0]], I32),
            "scores": np.zeros((3, 2), F32),
            "recall": 1.0,
            "index": "flat",
        },
        Plan: {
            "modality": "image",
            "indptr": np.array([0, 2, 2, 3], np.int64),
            "indices": np.array([0, 2, 1], I32),
            "weights": np.array([0.5, 0.5, 1], F32),
            "potential": np.zeros(3),
            "marginal_errors": np.zeros(1),
            "iterations": 0,
            "column_sums": np.ones(3, F32),
            "column_error": 0.0,
            "diagonal_mass": 0.5,
            "outcome": BalanceOutcome.CONVERGED,
        },
        Trust: {
            "modality": "image",
            "probability": np.array([0, np.nan, 1], F32),
            "probability_upper": np.array([0.5, np.nan, 1], F32),
            "behaviour": np.array([-2, np.nan, 3], F32),
            "cross_modal": np.full(3, np.nan, F32),
            "mismatch_rate": 0.1,
            "low": 0.0,
            "high": 0.2,
            "low_unlike": 0.05,
            "high_unlike": 0.15,
            "identifiable": True,
            "separation": 0.9,
            "reason": "",
        },
        Copies: {
            "modality": "image",
            "group": np.array([0, -1, 0], I32),
            "unlike": np.ones(1, np.bool_),
            "likeness": np.zeros(1, F32),
        },
        Segments: {
            "modality": "video",
            "alignment": np.array([0.5, np.nan, 1], F32),
            "consensus": np.array([0.5, np.nan, 1], F32),
            "evidence": np.array([0.5, np.nan, 1], F32),
            "probability": np.array([0.5, np.nan, 1], F32),
            "wrong_rate": 0.1,
            "identifiable": True,
            "separation": 0.9,
            "ridge": None,
            "reason": "",
        },
        TimeOffset: {
            "first": "video",
            "second": "audio",
            "lag": 1,
            "identifiable": True,
            "lags": np.array([-1, 0, 1], I32),
            "correlation": np.zeros(3),
            "null_correlation": np.zeros(5),
            "support": 0.9,
            "item_lags": np.array([1, NO_LAG, 0], I32),
            "reason": "",
        },
        Rectified: {
            "features": {"image": np.ones((3, 4), F32)},
            "status": {"image": np.zeros(3, np.int8)},
            "trust": {"image": np.ones(3, F32)},
        },
    }
    return samples[record]


RECORDS = [Catalog, Interactions, Anchors, Copies, Projection, Affinity, Plan, Trust, Segments, TimeOffset, Rectified]


@pytest.mark.parametrize("record", RECORDS)
def test_a_whole_record_builds_and_stays_as_it_is(record: type) -> None:
    values = good(record)
    built = record(**values)
    for field, value in values.items():
        assert getattr(built, field) is value
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(built, field, value)


BROKEN: list[tuple[type, str, Any, str]] = [
    (Catalog, "item_ids", np.array([["a"]]), r"item_ids: wanted one dimension, got shape \(1, 1\)"),
    (Catalog, "present", {"text": np.ones(3, np.bool_)}, r"present: wanted the modalities \['image'\], got \['text'\]"),
    (
        Catalog,
        "features",
        {"image": np.ones((2, 4), F32)},
        r"features\[image\]: wanted shape \(3, None\), got \(2, 4\)",
    ),
    (Catalog, "features", {"image": np.ones((3, 4))}, r"features\[image\]: wanted dtype float32, got float64"),
    (Catalog, "present", {"image": np.ones(2, np.bool_)}, r"present\[image\]: wanted shape \(3,\), got \(2,\)"),
    (Catalog, "present", {"image": np.ones(3, np.int8)}, r"present\[image\]: wanted dtype bool, got int8"),
    (Interactions, "users", np.array([0, 1, 1]), "users: wanted dtype int32, got int64"),
    (Interactions, "users", np.array([0, 1, 2], I32), r"users: wanted values in \[0, 2\), got \[0, 2\]"),
    (Interactions, "users", np.array([0, -1, 1], I32), r"users: wanted values in \[0, 2\), got \[-1, 1\]"),
    (Interactions, "items", np.array([2, 0], I32), r"items: wanted shape \(3,\), got \(2,\)"),
    (Interactions, "items", np.array([2, 0, 3], I32), r"items: wanted values in \[0, 3\), got \[0, 3\]"),
    (Interactions, "times", np.array([5, 6, 7], I32), "times: wanted dtype int64, got int32"),
    (Interactions, "times", np.array([5, 6], np.int64), r"times: wanted shape \(3,\), got \(2,\)"),
    (
        Anchors,
        "items",
        np.full((3, 2), 0.1, F32),
        r"items: wanted unit rows where trained, got norms in \[0.1414, 0.1414\]",
    ),
    (Anchors, "items", np.eye(2, dtype=np.float64), "items: wanted dtype float32, got float64"),
    (Anchors, "ego", np.ones((3, 3), F32), r"ego: wanted shape \(3, 2\), got \(3, 3\)"),
    (Anchors, "trained", np.ones(2, np.bool_), r"trained: wanted shape \(3,\), got \(2,\)"),
    (Anchors, "losses", np.zeros((2, 1)), r"losses: wanted shape \(None,\), got \(2, 1\)"),
    (Anchors, "recalls", np.zeros(3, F32), "recalls: wanted dtype float64, got float32"),
    (
        Projection,
        "fold_weights",
        np.ones((2, 3, 2), F32),
        r"fold_weights: wanted shape \(None, 4, 2\), got \(2, 3, 2\)",
    ),
    (Projection, "fold_means", np.zeros((3, 4), F32), r"fold_means: wanted shape \(2, 4\), got \(3, 4\)"),
    (Projection, "weight", np.ones(4, F32), r"weight: wanted shape \(None, None\), got \(4,\)"),
    (Projection, "weight", np.ones((4, 2), np.float16), "weight: wanted dtype float32, got float16"),
    (Projection, "feature_mean", np.zeros(5, F32), r"feature_mean: wanted shape \(4,\), got \(5,\)"),
    (Projection, "projected", np.ones((3, 3), F32), r"projected: wanted shape \(None, 2\), got \(3, 3\)"),
    (Projection, "target", np.ones((2, 2), F32), r"target: wanted shape \(3, 2\), got \(2, 2\)"),
    (Projection, "target", np.ones((2, 3), F32).T, r"target: wanted a C-contiguous array"),
    (Projection, "alignment", np.ones(2, F32), r"alignment: wanted shape \(3,\), got \(2,\)"),
    (Projection, "null_alignment", np.zeros(7), "null_alignment: wanted dtype float32, got float64"),
    (Projection, "kept", np.ones(4, np.bool_), r"kept: wanted shape \(3,\), got \(4,\)"),
    (
        Affinity,
        "neighbours",
        np.array([[0, 1], [1, -2], [2, 0]], I32),
        r"neighbours: wanted values in \[-1, 3\), got \[-2, 2\]",
    ),
    (
        Affinity,
        "neighbours",
        np.array([[0, 1], [1, 3], [2, 0]], I32),
        r"neighbours: wanted values in \[-1, 3\), got \[0, 3\]",
    ),
    (Affinity, "neighbours", np.zeros((3, 2), np.int64), "neighbours: wanted dtype int32, got int64"),
    (Affinity, "scores", np.zeros((3, 3), F32), r"scores: wanted shape \(3, 2\), got \(3, 3\)"),
    (Plan, "indptr", np.array([0, 2, 2, 3], I32), "indptr: wanted dtype int64, got int32"),
    (Plan, "indptr", np.zeros(0, np.int64), r"indptr: wanted at least one value, got shape \(0,\)"),
    (Plan, "indices", np.array([0, 2], I32), r"indices: wanted shape \(3,\), got \(2,\)"),
    (Plan, "indices", np.array([0, 2, 3], I32), r"indices: wanted values in \[0, 3\), got \[0, 3\]"),
    (Plan, "weights", np.ones(3), "weights: wanted dtype float32, got float64"),
    (Plan, "weights", np.ones(4, F32), r"weights: wanted shape \(3,\), got \(4,\)"),
    (Plan, "potential", np.zeros(4), r"potential: wanted shape \(3,\), got \(4,\)"),
    (Plan, "marginal_errors", np.zeros(1, F32), "marginal_errors: wanted dtype float64, got float32"),
    (Plan, "column_sums", np.ones(4, F32), r"column_sums: wanted shape \(3,\), got \(4,\)"),
    (Trust, "probability", np.zeros(3), "probability: wanted dtype float32, got float64"),
    (
        Trust,
        "probability",
        np.array([0.5, np.nan, 1.5], F32),
        r"probability: wanted values in \[0, 1\], got \[0.5, 1.5\]",
    ),
    (
        Trust,
        "probability",
        np.array([-0.5, np.nan, 1], F32),
        r"probability: wanted values in \[0, 1\], got \[-0.5, 1.0\]",
    ),
    (Anchors, "reliability", np.ones(2, F32), r"reliability: wanted shape \(3,\), got \(2,\)"),
    (Projection, "length", np.ones(3), "length: wanted dtype float32, got float64"),
    (Projection, "fold", np.zeros(2, I32), r"fold: wanted shape \(3,\), got \(2,\)"),
    (Projection, "fold", np.zeros(3, np.int64), "fold: wanted dtype int32, got int64"),
    (Trust, "probability_upper", np.zeros(2, F32), r"probability_upper: wanted shape \(3,\), got \(2,\)"),
    (Trust, "behaviour", np.zeros(3), "behaviour: wanted dtype float32, got float64"),
    (Trust, "cross_modal", np.zeros(4, F32), r"cross_modal: wanted shape \(3,\), got \(4,\)"),
    (Copies, "group", np.array([0, 1, -1], I32), r"group: wanted values in \[-1, 1\), got \[-1, 1\]"),
    (Copies, "unlike", np.ones(1, np.int8), "unlike: wanted dtype bool, got int8"),
    (Copies, "likeness", np.zeros(2, F32), r"likeness: wanted shape \(1,\), got \(2,\)"),
    (Segments, "alignment", np.zeros(2, F32), r"alignment: wanted shape \(3,\), got \(2,\)"),
    (Segments, "evidence", np.zeros(3), "evidence: wanted dtype float32, got float64"),
    (
        Segments,
        "probability",
        np.array([0.5, np.nan, 1.5], F32),
        r"probability: wanted values in \[0, 1\], got \[0.5, 1.5\]",
    ),
    (TimeOffset, "lags", np.zeros(3, np.int64), "lags: wanted dtype int32, got int64"),
    (TimeOffset, "correlation", np.zeros(2), r"correlation: wanted shape \(3,\), got \(2,\)"),
    (TimeOffset, "item_lags", np.zeros((2, 1), I32), r"item_lags: wanted shape \(None,\), got \(2, 1\)"),
    (Rectified, "features", {"image": np.ones(3, F32)}, r"features\[image\]: wanted shape \(None, None\), got \(3,\)"),
    (Rectified, "status", {"image": np.zeros(2, np.int8)}, r"status\[image\]: wanted shape \(3,\), got \(2,\)"),
    (Rectified, "status", {"image": np.zeros(3, I32)}, r"status\[image\]: wanted dtype int8, got int32"),
    (Rectified, "status", {"text": np.zeros(3, np.int8)}, r"status: wanted the modalities \['image'\], got \['text'\]"),
    (Rectified, "trust", {"image": np.ones(4, F32)}, r"trust\[image\]: wanted shape \(3,\), got \(4,\)"),
    (Rectified, "trust", {}, r"trust: wanted the modalities \['image'\], got \[\]"),
]


@pytest.mark.parametrize(
    ("record", "field", "value", "words"),
    BROKEN,
    ids=[f"{r.__name__}-{f}-{i}" for i, (r, f, _, _) in enumerate(BROKEN)],
)
def test_what_does_not_fit_is_refused_by_name(record: type, field: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        record(**{**good(record), field: value})


def test_an_untrained_row_need_not_be_a_unit() -> None:
    values = good(Anchors)
    items = np.zeros((3, 2), F32)
    items[0, 0] = 1
    assert Anchors(**{**values, "items": items, "trained": np.array([True, False, False])}).items is items
    with pytest.raises(ValueError, match="unit rows"):
        Anchors(**{**values, "items": items, "trained": np.array([True, True, False])})


def test_interactions_may_have_no_times_and_no_rows() -> None:
    empty = Interactions(users=np.zeros(0, I32), items=np.zeros(0, I32), times=None, num_users=0, num_items=0)
    assert empty.times is None and len(empty.users) == 0


def test_a_placeholder_is_a_member_of_a_group_that_is_unlike() -> None:
    values = good(Copies)
    two = {"group": np.array([0, 1, -1], I32), "unlike": np.array([False, True]), "likeness": np.zeros(2, F32)}
    assert Copies(**values).placeholder.tolist() == [True, False, True]
    assert Copies(**{**values, **two}).placeholder.tolist() == [False, True, False]
    none = {"group": np.full(3, -1, I32), "unlike": np.zeros(0, np.bool_), "likeness": np.zeros(0, F32)}
    assert Copies(**{**values, **none}).placeholder.tolist() == [False] * 3


def test_status_codes_are_those_already_published() -> None:
    """Stored runs hold the codes and the table holds the words: neither may move."""
    assert [(status.code, status.value) for status in Status] == [
        (0, "rectified"),
        (1, "passed_through"),
        (2, "imputed"),
        (3, "missing"),
    ]


def test_a_report_passes_only_when_every_check_does() -> None:
    held, failed = (Check(name="x", value=1.0, bound=1.0, rule="at most", passed=passed) for passed in (True, False))
    assert QualityReport(checks=(held, held)).passed
    assert not QualityReport(checks=(held, failed)).passed

"""Records reject wrong arrays. The error names the field, the expected value and the actual one."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from rectifier_core.base.published_records import Check, QualityReport, Rectified, Status
from rectifier_core.base.records import (
    Affinity,
    Anchors,
    Catalog,
    Copies,
    Interactions,
    Plan,
    Projection,
    Trust,
)
from rectifier_core.base.sequence_records import Segments, TimeOffset
from tests.support.record_samples import GOOD, good

F32, I32 = np.float32, np.int32


@pytest.mark.parametrize("record", GOOD)
def test_a_valid_record_builds_and_is_frozen(record: type) -> None:
    values = good(record)
    built = record(**values)
    for field, value in values.items():
        assert getattr(built, field) is value
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(built, field, value)


# One case for each check of each record; wrong shapes and dtypes of the other fields meet the same check.
BROKEN: list[tuple[type, str, Any, str]] = [
    (Catalog, "item_ids", np.array([["a"]]), "item_ids: wanted one dimension, got shape (1, 1)"),
    (Catalog, "present", {"text": np.ones(3, np.bool_)}, "present: wanted the modalities ['image'], got ['text']"),
    (Catalog, "features", {"image": np.ones((2, 4), F32)}, "features[image]: wanted shape (3, None), got (2, 4)"),
    (Catalog, "present", {"image": np.ones(3, np.int8)}, "present[image]: wanted dtype bool, got int8"),
    (Interactions, "users", np.array([0, 1, 1]), "users: wanted dtype int32, got int64"),
    (Interactions, "users", np.array([0, -1, 1], I32), "users: wanted values in [0, 2), got [-1, 1]"),
    (Interactions, "items", np.array([2, 0], I32), "items: wanted shape (3,), got (2,)"),
    (Interactions, "items", np.array([2, 0, 3], I32), "items: wanted values in [0, 3), got [0, 3]"),
    (Interactions, "times", np.array([5, 6, 7], I32), "times: wanted dtype int64, got int32"),
    (
        Anchors,
        "items",
        np.full((3, 2), 0.1, F32),
        "items: wanted unit rows where trained, got norms in [0.1414, 0.1414]",
    ),
    (Anchors, "ego", np.ones((3, 3), F32), "ego: wanted shape (3, 2), got (3, 3)"),
    (Anchors, "user_ego", np.ones((5, 3), F32), "user_ego: wanted shape (None, 2), got (5, 3)"),
    (Anchors, "reliability", np.ones(2, F32), "reliability: wanted shape (3,), got (2,)"),
    (Anchors, "recalls", np.zeros(3, F32), "recalls: wanted dtype float64, got float32"),
    (Copies, "group", np.array([0, 1, -1], I32), "group: wanted values in [-1, 1), got [-1, 1]"),
    (Copies, "likeness", np.zeros(2, F32), "likeness: wanted shape (1,), got (2,)"),
    (Projection, "fold_weights", np.ones((2, 3, 2), F32), "fold_weights: wanted shape (None, 4, 2), got (2, 3, 2)"),
    (Projection, "fold_means", np.zeros((3, 4), F32), "fold_means: wanted shape (2, 4), got (3, 4)"),
    (Projection, "target", np.ones((2, 3), F32).T, "target: wanted a C-contiguous array"),
    (Projection, "fold", np.zeros(3, np.int64), "fold: wanted dtype int32, got int64"),
    (
        Affinity,
        "neighbours",
        np.array([[0, 1], [1, 3], [2, 0]], I32),
        "neighbours: wanted values in [-1, 3), got [0, 3]",
    ),
    (Affinity, "scores", np.zeros((3, 3), F32), "scores: wanted shape (3, 2), got (3, 3)"),
    (Affinity, "spare", np.full((3, 1), 3, I32), "spare: wanted values in [-1, 3), got [3, 3]"),
    (Plan, "indptr", np.zeros(0, np.int64), "indptr: wanted at least one value, got shape (0,)"),
    (Plan, "indices", np.array([0, 2, 3], I32), "indices: wanted values in [0, 3), got [0, 3]"),
    (Plan, "weights", np.ones(4, F32), "weights: wanted shape (3,), got (4,)"),
    (Trust, "probability", np.array([0.5, np.nan, 1.5], F32), "probability: wanted values in [0, 1], got [0.5, 1.5]"),
    (Trust, "probability_upper", np.zeros(2, F32), "probability_upper: wanted shape (3,), got (2,)"),
    (
        Segments,
        "probability",
        np.array([-0.5, np.nan, 1], F32),
        "probability: wanted values in [0, 1], got [-0.5, 1.0]",
    ),
    (Segments, "alignment", np.zeros(2, F32), "alignment: wanted shape (3,), got (2,)"),
    (TimeOffset, "correlation", np.zeros(2), "correlation: wanted shape (3,), got (2,)"),
    (TimeOffset, "lags", np.zeros(3, np.int64), "lags: wanted dtype int32, got int64"),
    (Rectified, "status", {"image": np.zeros(3, I32)}, "status[image]: wanted dtype int8, got int32"),
    (Rectified, "trust", {"image": np.ones(4, F32)}, "trust[image]: wanted shape (3,), got (4,)"),
    (Rectified, "trust", {}, "trust: wanted the modalities ['image'], got []"),
    (Rectified, "moved", {}, "moved: wanted the modalities ['image'], got []"),
]


@pytest.mark.parametrize(
    ("record", "field", "value", "words"),
    BROKEN,
    ids=[f"{r.__name__}-{f}-{i}" for i, (r, f, _, _) in enumerate(BROKEN)],
)
def test_a_wrong_field_is_rejected_by_name(record: type, field: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
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
    """Stored runs hold the codes and the table holds the words, so neither may change."""
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

"""The records that pass between stages come back from disk as they were."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rectifier_core.base.published_records import Rectified, Status
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
from tasks.store.saved_records import load_record, save_record
from tasks.store.store import StageStore


def floats(*shape: int, nan: bool = False) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    """float32 arrays of this shape."""
    finite = st.floats(-10, 10, width=32)
    return hnp.arrays(np.float32, shape, elements=finite | st.just(float("nan")) if nan else finite)


MAYBE = st.none() | st.floats(0, 1)
KINDS = [Catalog, Interactions, Anchors, Copies, Projection, Affinity, Plan, Trust, Segments, TimeOffset, Rectified]


@st.composite
def records(draw: st.DrawFn) -> Any:
    """Any record that passes between stages, NaN and None where they may be."""
    items, width = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from(KINDS))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    present = rng.random(items) < 0.5
    if kind is Catalog:
        ids = draw(st.sampled_from([np.arange(items), np.array([f"ü{x}" for x in range(items)])]))
        return Catalog(item_ids=ids, features={"image": draw(floats(items, width))}, present={"image": present})
    if kind is Interactions:
        users, rows = rng.integers(0, 3, 6, dtype=np.int32), rng.integers(0, items, 6, dtype=np.int32)
        times = draw(st.sampled_from([None, np.arange(6)]))
        return Interactions(users=users, items=rows, times=times, num_users=3, num_items=items)
    if kind is Anchors:
        raw = rng.normal(size=(items, width))
        unit = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
        return Anchors(
            items=unit,
            ego=unit * 3,
            trained=np.ones(items, np.bool_),
            reliability=np.ones(items, np.float32),
            losses=np.array([0.5, np.nan]),
            recalls=np.zeros(0),
        )
    if kind is Projection:
        return Projection(
            modality="image",
            weight=draw(floats(width, 2)),
            feature_mean=draw(floats(width)),
            target_mean=draw(floats(2)),
            fold_weights=draw(floats(5, width, 2)),
            fold_means=draw(floats(5, width)),
            projected=draw(floats(items, 2)),
            target=draw(floats(items, 2)),
            alignment=draw(floats(items, nan=True)),
            length=draw(floats(items)),
            fold=rng.integers(-1, 5, items, dtype=np.int32),
            null_alignment=draw(floats(7)),
            kept=present,
            ridge=draw(MAYBE),
        )
    if kind is Affinity:
        neighbours = rng.integers(-1, items, (items, 3), dtype=np.int32)
        scores = np.where(neighbours < 0, -np.inf, 1).astype(np.float32)
        return Affinity(
            modality="a_b",
            neighbours=neighbours,
            scores=scores,
            recall=draw(st.just(float("nan")) | st.floats(0, 1)),
            index="flat",
        )
    if kind is Plan:
        return Plan(
            modality="text",
            indptr=np.arange(items + 1),
            indices=np.arange(items, dtype=np.int32),
            weights=np.ones(items, np.float32),
            potential=np.zeros(items),
            marginal_errors=np.array([0.5]),
            iterations=draw(st.integers(0, 9)),
            column_sums=np.ones(items, np.float32),
            column_error=draw(st.just(float("nan")) | st.floats(0, 1)),
            diagonal_mass=draw(st.floats(0, 1)),
            outcome=draw(st.sampled_from(BalanceOutcome)),
        )
    if kind is Trust:
        return Trust(
            modality="text",
            probability=np.where(present, np.float32(0.5), np.float32(np.nan)),
            probability_upper=np.where(present, np.float32(0.75), np.float32(np.nan)),
            behaviour=draw(floats(items, nan=True)),
            cross_modal=draw(floats(items, nan=True)),
            mismatch_rate=draw(MAYBE),
            low=draw(MAYBE),
            high=draw(MAYBE),
            low_unlike=draw(MAYBE),
            high_unlike=draw(MAYBE),
            identifiable=draw(st.booleans()),
            separation=draw(st.just(float("nan")) | st.floats(0, 1)),
            reason=draw(st.text(st.characters(codec="utf-8"))),
        )
    if kind is Copies:
        groups = draw(st.integers(0, 3))
        return Copies(
            modality="image",
            group=rng.integers(-1, groups, items, dtype=np.int32),
            unlike=rng.random(groups) < 0.5,
            likeness=draw(floats(groups, nan=True)),
        )
    if kind is Segments:
        return Segments(
            modality="video",
            alignment=draw(floats(items, nan=True)),
            consensus=draw(floats(items, nan=True)),
            evidence=draw(floats(items, nan=True)),
            probability=np.where(present, np.float32(0.5), np.float32(np.nan)),
            wrong_rate=draw(MAYBE),
            identifiable=draw(st.booleans()),
            separation=draw(st.just(float("nan")) | st.floats(0, 1)),
            ridge=draw(MAYBE),
            reason=draw(st.text(st.characters(codec="utf-8"))),
        )
    if kind is TimeOffset:
        return TimeOffset(
            first="video",
            second="audio",
            lag=draw(st.none() | st.integers(-3, 3)),
            identifiable=draw(st.booleans()),
            lags=np.arange(-width, width + 1, dtype=np.int32),
            correlation=np.append(np.nan, rng.random(2 * width)),
            null_correlation=rng.random(7),
            support=draw(st.floats(0, 1)),
            item_lags=np.where(present, np.int32(2), np.int32(NO_LAG)),
            reason=draw(st.text(st.characters(codec="utf-8"))),
        )
    status = np.full(items, Status.IMPUTED.code, np.int8)
    some = {m: draw(floats(items, width)) for m in draw(st.sampled_from([(), ("image",), ("b", "a")]))}
    return Rectified(
        features=some, status=dict.fromkeys(some, status), trust={m: draw(floats(items, nan=True)) for m in some}
    )


def assert_same(found: Any, wanted: Any) -> None:
    """Equal, NaN to NaN, arrays with their dtype."""
    if isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    elif isinstance(wanted, dict):
        assert set(found) == set(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, float) and np.isnan(wanted):
        assert np.isnan(found)
    else:
        assert found == wanted
        assert type(found) is type(wanted)


@settings(deadline=None, max_examples=70)
@given(records())
def test_every_record_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, record: Any) -> None:
    store = StageStore(tmp_path_factory.mktemp("records"))
    ref = store.once("record", (), lambda writer: save_record(writer, record))
    found = load_record(ref, type(record))
    for part in fields(record):
        assert_same(getattr(found, part.name), getattr(record, part.name))
    assert not list(Path(ref.path).glob("*.pkl"))

"""Mixing: identity, lengths, statuses, against a dense oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core_samples import affinity_of, normals
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.records import Bool, Float32, Plan, Status, Trust
from rectifier_core.rectify import RectifyConfig, decide_status, rectify_rows
from rectifier_core.sinkhorn import SinkhornConfig, balance

ITEMS = 40


def trust_of(identifiable: bool = True) -> Trust:
    return Trust(
        modality="image",
        probability=np.full(ITEMS, np.nan, np.float32),
        mismatch_rate=0.1 if identifiable else None,
        low=0.0 if identifiable else None,
        high=0.2 if identifiable else None,
        identifiable=identifiable,
        separation=0.8,
        reason="as the test says",
    )


def sample(seed: int = 0) -> tuple[Float32, Bool, Plan]:
    """Features of very different length; some items lack the feature, the last five the anchor."""
    rng = np.random.default_rng(seed)
    present = rng.random(ITEMS) > 0.2
    features = normals(rng, ITEMS, 6) * rng.uniform(0.01, 100, (ITEMS, 1)).astype(np.float32)
    features[~present] = 0
    donors = np.flatnonzero(present)
    neighbours = np.stack([rng.permutation(donors)[:5] for _ in range(ITEMS)])
    neighbours[-5:] = -1
    scores = np.where(neighbours >= 0, rng.standard_normal(neighbours.shape), -np.inf)
    return features, present, balance(affinity_of(neighbours, scores), SinkhornConfig())


def whole(features: Float32, present: Bool, plan: Plan, config: RectifyConfig, trust: Trust | None = None) -> tuple[Float32, list[str]]:
    status = decide_status(present, plan, trust or trust_of(), config)
    rows = rectify_rows(features, slice(0, ITEMS), status, plan, config)
    return rows, [list(Status)[code].value for code in status]


def oracle(features: Float32, present: Bool, plan: Plan, config: RectifyConfig) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    matrix = np.zeros((ITEMS, ITEMS))
    matrix[np.repeat(np.arange(ITEMS), np.diff(plan.indptr)), plan.indices] = plan.weights
    length = np.linalg.norm(features, axis=1)
    wanted = features.astype(np.float64)
    for i in np.flatnonzero(matrix.any(axis=1)):
        if present[i]:
            mixed = config.keep_original * features[i] + (1 - config.keep_original) * (matrix[i] @ features)
            wanted[i] = mixed / np.linalg.norm(mixed) * length[i]
        elif config.impute:
            donated = matrix[i] @ features
            wanted[i] = donated / np.linalg.norm(donated) * (matrix[i] @ length)
    return wanted


@pytest.mark.parametrize("impute", [False, True])
@pytest.mark.parametrize("keep", [0.0, 0.6, 0.95])
def test_equals_the_dense_oracle(keep: float, impute: bool) -> None:
    features, present, plan = sample()
    config = RectifyConfig(keep_original=keep, impute=impute)
    rows, _ = whole(features, present, plan, config)
    np.testing.assert_allclose(rows, oracle(features, present, plan, config), rtol=2e-4, atol=1e-4)


def test_keeping_everything_returns_the_input_bit_for_bit() -> None:
    features, present, plan = sample()
    rows, status = whole(features, present, plan, RectifyConfig(keep_original=1.0))
    assert rows.tobytes() == features.tobytes()
    assert set(status) == {"passed_through", "missing"}


def test_where_nothing_can_be_told_features_pass_bit_for_bit() -> None:
    features, present, plan = sample()
    rows, status = whole(features, present, plan, RectifyConfig(impute=True), trust_of(identifiable=False))
    assert rows.tobytes() == features.tobytes()
    assert "imputed" not in status
    assert "rectified" not in status


def test_lengths_are_restored_and_items_without_an_anchor_untouched() -> None:
    features, present, plan = sample()
    rows, status = whole(features, present, plan, RectifyConfig())
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1)[present], np.linalg.norm(features, axis=1)[present], rtol=1e-5)
    assert rows[-5:].tobytes() == features[-5:].tobytes()
    anchored = np.arange(ITEMS) < ITEMS - 5
    wanted = np.select([present & anchored, present], ["rectified", "passed_through"], "missing")
    assert status == wanted.tolist()
    changed = (rows != features).any(axis=1)
    np.testing.assert_array_equal(changed, present & anchored)


def test_imputing_fills_what_has_an_anchor_and_no_feature() -> None:
    features, present, plan = sample()
    rows, status = whole(features, present, plan, RectifyConfig(impute=True))
    filled = np.array(status) == "imputed"
    np.testing.assert_array_equal(filled, ~present & (np.arange(ITEMS) < ITEMS - 5))
    assert filled.any()
    assert rows[filled].any(axis=1).all()
    assert not rows[np.array(status) == "missing"].any()


@given(block=st.integers(1, ITEMS), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_block_size_changes_no_bit(block: int, seed: int) -> None:
    features, present, plan = sample(seed)
    config = RectifyConfig(impute=True)
    status = decide_status(present, plan, trust_of(), config)
    parts = [rectify_rows(features, slice(at, min(at + block, ITEMS)), status, plan, config) for at in range(0, ITEMS, block)]
    assert np.concatenate(parts).tobytes() == rectify_rows(features, slice(0, ITEMS), status, plan, config).tobytes()


def test_a_memory_map_is_read_and_never_written(tmp_path: Path) -> None:
    features, present, plan = sample()
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    expected, _ = whole(features, present, plan, RectifyConfig())
    found, _ = whole(mapped, present, plan, RectifyConfig())
    assert found.tobytes() == expected.tobytes()
    assert np.load(tmp_path / "features.npy").tobytes() == features.tobytes()


def test_donors_that_cancel_the_own_feature_leave_it_as_it_was() -> None:
    features = np.zeros((ITEMS, 2), np.float32)
    features[0], features[1] = (1, 0), (-1, 0)
    plan = balance(affinity_of([[1]] + [[-1]] * (ITEMS - 1), [[0.0]] + [[-np.inf]] * (ITEMS - 1)), SinkhornConfig())
    rows, _ = whole(features, np.asarray(features.any(axis=1)), plan, RectifyConfig(keep_original=0.5))
    assert rows[0].tolist() == [1, 0]


def test_donors_without_length_leave_nothing_that_is_not_a_number() -> None:
    """Item 0 asks a donor of zeros; item 1 lacks the feature and would be imputed from the same donor."""
    features = np.zeros((ITEMS, 2), np.float32)
    features[0] = (3, 4)
    present = np.arange(ITEMS) != 1
    neighbours = np.full((ITEMS, 1), -1)
    neighbours[:2] = 2
    plan = balance(affinity_of(neighbours, np.where(neighbours >= 0, 0.0, -np.inf)), SinkhornConfig())
    rows, status = whole(features, present, plan, RectifyConfig(keep_original=0.5, impute=True))
    assert status[:3] == ["rectified", "imputed", "passed_through"]
    np.testing.assert_allclose(rows[0], (3, 4), rtol=1e-6)
    assert not rows[1:].any()


@pytest.mark.parametrize("keep", [-0.1, 1.1])
def test_a_share_outside_the_unit_interval_is_named(keep: float) -> None:
    with pytest.raises(ValueError, match="keep_original"):
        RectifyConfig(keep_original=keep)

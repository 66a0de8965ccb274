"""Mixing, adaptive and constant: identity, lengths, statuses, who gives and who takes, against dense oracles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Plan, Trust
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.rectify import decide_status, rectify_rows
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sinkhorn import balance
from tests.support.core_samples import affinity_of, normals

ITEMS = 40


CONSTANT = RectifyConfig(mix="constant")
MIXES = [CONSTANT, RectifyConfig()]


def trust_of(identifiable: bool = True, probability: Float32 | None = None, seed: int = 0) -> Trust:
    """Probabilities at random, or as given; NaN everywhere where nothing can be told."""
    nothing = np.full(ITEMS, np.nan, np.float32)
    given = np.random.default_rng(seed).random(ITEMS).astype(np.float32) if probability is None else probability
    return Trust(
        modality="image",
        probability=given if identifiable else nothing,
        probability_upper=given if identifiable else nothing,
        behaviour=nothing,
        cross_modal=nothing,
        mismatch_rate=0.1 if identifiable else None,
        low=0.0 if identifiable else None,
        high=0.2 if identifiable else None,
        low_unlike=0.05 if identifiable else None,
        high_unlike=0.15 if identifiable else None,
        identifiable=identifiable,
        separation=0.8,
        reason="as the test says",
    )


def everyone(probability: float) -> Trust:
    return trust_of(probability=np.full(ITEMS, probability, np.float32))


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


def whole(
    features: Float32,
    present: Bool,
    plan: Plan,
    config: RectifyConfig,
    trust: Trust | None = None,
    placeholder: Bool | None = None,
) -> tuple[Float32, list[str]]:
    told = trust or trust_of()
    status = decide_status(present, plan, told, config, placeholder)
    rows = rectify_rows(features, slice(0, ITEMS), status, plan, told, config)
    return rows, [list(Status)[code].value for code in status]


def square(plan: Plan) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    matrix = np.zeros((ITEMS, ITEMS))
    matrix[np.repeat(np.arange(ITEMS), np.diff(plan.indptr)), plan.indices] = plan.weights
    return matrix


def oracle(
    features: Float32, present: Bool, plan: Plan, config: RectifyConfig
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The paper's formula item by item, at the input's lengths."""
    matrix, length, wanted = square(plan), np.linalg.norm(features, axis=1), features.astype(np.float64)
    for i in np.flatnonzero(matrix.any(axis=1)):
        if present[i]:
            mixed = config.keep_original * features[i] + (1 - config.keep_original) * (matrix[i] @ features)
            wanted[i] = mixed / np.linalg.norm(mixed) * length[i]
        elif config.impute:
            donated = matrix[i] @ features
            wanted[i] = donated / np.linalg.norm(donated) * (matrix[i] @ length)
    return wanted


def adaptive_oracle(
    features: Float32, present: Bool, plan: Plan, config: RectifyConfig, trust: Trust
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Adaptive mixing item by item and donor by donor."""
    matrix, length, wanted = square(plan), np.linalg.norm(features, axis=1), features.astype(np.float64)
    assert trust.mismatch_rate is not None
    for i in range(ITEMS):
        weights = np.zeros(ITEMS)
        for j in np.flatnonzero(matrix[i]):
            believed = trust.probability[j]
            weights[j] = 0.0 if i == j else matrix[i, j] * (1 - trust.mismatch_rate if np.isnan(believed) else believed)
        if not weights.any():
            continue
        donated = weights / weights.sum() @ features
        p = float(trust.probability[i])
        if present[i] and not np.isnan(p):
            keep = config.keep_trusted * p**config.sharpness
            mixed = keep * features[i] + (1 - keep) * donated
            wanted[i] = mixed / np.linalg.norm(mixed) * length[i]
        elif not present[i] and config.impute:
            wanted[i] = donated / np.linalg.norm(donated) * (weights / weights.sum() @ length)
    return wanted


@pytest.mark.parametrize("impute", [False, True])
@pytest.mark.parametrize("keep", [0.0, 0.6, 0.95])
def test_constant_mixing_equals_the_papers_formula(keep: float, impute: bool) -> None:
    features, present, plan = sample()
    config = RectifyConfig(mix="constant", keep_original=keep, impute=impute)
    rows, _ = whole(features, present, plan, config)
    np.testing.assert_allclose(rows, oracle(features, present, plan, config), rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("impute", [False, True])
@pytest.mark.parametrize(("trusted", "sharpness"), [(0.95, 2.0), (1.0, 0.5), (0.5, 1.0)])
def test_adaptive_mixing_equals_its_formula(trusted: float, sharpness: float, impute: bool) -> None:
    features, present, plan = sample(1)
    config = RectifyConfig(keep_trusted=trusted, sharpness=sharpness, impute=impute)
    probability = np.random.default_rng(3).random(ITEMS).astype(np.float32)
    probability[~present] = np.nan
    probability[::7] = np.nan
    trust = trust_of(probability=probability)
    rows, _ = whole(features, present, plan, config, trust)
    np.testing.assert_allclose(rows, adaptive_oracle(features, present, plan, config, trust), rtol=5e-4, atol=2e-4)


def equal_length(seed: int = 0) -> tuple[Float32, Bool, Plan]:
    """As ``sample``, with every feature of length 1 and present."""
    features = unit_rows(normals(np.random.default_rng(seed), ITEMS, 6))
    neighbours = np.stack([np.random.default_rng(seed + i).permutation(ITEMS)[:5] for i in range(ITEMS)])
    scores = np.random.default_rng(seed).standard_normal(neighbours.shape)
    return features, np.ones(ITEMS, np.bool_), balance(affinity_of(neighbours, scores), SinkhornConfig())


@given(seed=st.integers(0, 200), trusted=st.floats(0.5, 1.0))
@settings(max_examples=20, deadline=None)
def test_the_more_an_item_is_trusted_the_less_it_moves(seed: int, trusted: float) -> None:
    features, present, plan = equal_length(seed)
    config, kept = RectifyConfig(keep_trusted=trusted), []
    for p in (0.2, 0.5, 0.8, 1.0):
        rows, _ = whole(features, present, plan, config, everyone(p))
        kept.append(np.einsum("ij,ij->i", rows, features))
    assert (np.diff(kept, axis=0) > -1e-5).all()


def test_untrusted_donors_and_the_item_itself_give_nothing() -> None:
    """Item 0 asks itself, an untrusted donor and a trusted one; item 1 only itself and the untrusted one."""
    features, present = unit_rows(normals(np.random.default_rng(1), ITEMS, 6)), np.ones(ITEMS, np.bool_)
    neighbours = np.full((ITEMS, 3), -1)
    neighbours[0], neighbours[1] = (0, 2, 3), (1, 2, -1)
    plan = balance(affinity_of(neighbours, np.where(neighbours >= 0, 0.0, -np.inf)), SinkhornConfig(balance="row"))
    probability = np.ones(ITEMS, np.float32)
    probability[[0, 1, 2]] = 0
    rows, status = whole(features, present, plan, RectifyConfig(), trust_of(probability=probability))
    np.testing.assert_allclose(rows[0], features[3], atol=1e-6)
    assert rows[1].tobytes() == features[1].tobytes(), "nobody believed has anything to give"
    assert status[:3] == ["rectified", "rectified", "passed_through"]
    # A donor that nothing is known of is as good as the average one: 0.9 of a certain one here.
    probability[2] = np.nan
    rows, _ = whole(features, present, plan, RectifyConfig(), trust_of(probability=probability))
    np.testing.assert_allclose(rows[0], unit_rows((0.9 * features[2] + features[3])[None])[0], atol=1e-6)


@pytest.mark.parametrize("config", [CONSTANT, RectifyConfig(keep_trusted=1.0)], ids=["constant", "adaptive"])
def test_placeholders_pass_through_or_are_imputed_when_asked(config: RectifyConfig) -> None:
    features, present, plan = sample()
    placeholder = present & (np.arange(ITEMS) % 6 == 0)
    assert placeholder[: ITEMS - 5].sum() > 3
    rows, status = whole(features, present, plan, config, placeholder=placeholder)
    assert {x for x, held in zip(status, placeholder, strict=True) if held} == {"passed_through"}
    assert rows[placeholder].tobytes() == features[placeholder].tobytes()
    rows, status = whole(features, present, plan, replace(config, impute=True), placeholder=placeholder)
    anchored = np.arange(ITEMS) < ITEMS - 5
    assert (np.array(status)[placeholder & anchored] == "imputed").all()
    assert (np.array(status)[placeholder & ~anchored] == "passed_through").all()


def test_an_item_that_cannot_be_judged_passes_bit_for_bit_when_mixing_is_adaptive() -> None:
    features, present, plan = sample()
    probability = np.where(np.arange(ITEMS) % 2 == 0, np.float32(0.3), np.float32(np.nan))
    rows, status = whole(features, present, plan, RectifyConfig(), trust_of(probability=probability))
    assert rows[1::2].tobytes() == features[1::2].tobytes()
    assert "rectified" not in status[1::2] and "rectified" in status[::2]


@pytest.mark.parametrize("config", [RectifyConfig(mix="constant", keep_original=1.0), RectifyConfig(keep_trusted=1.0)])
def test_keeping_everything_returns_the_input(config: RectifyConfig) -> None:
    features, present, plan = sample()
    rows, status = whole(features, present, plan, config, everyone(1.0))
    np.testing.assert_allclose(rows, features, rtol=1e-5, atol=1e-5)
    if config.mix == "constant":
        assert rows.tobytes() == features.tobytes()
        assert set(status) == {"passed_through", "missing"}


@pytest.mark.parametrize("mix", ["constant", "adaptive"])
def test_where_nothing_can_be_told_features_pass_bit_for_bit(mix: Literal["constant", "adaptive"]) -> None:
    features, present, plan = sample()
    rows, status = whole(features, present, plan, RectifyConfig(mix=mix, impute=True), trust_of(identifiable=False))
    assert rows.tobytes() == features.tobytes()
    assert "imputed" not in status
    assert "rectified" not in status


@pytest.mark.parametrize("config", MIXES, ids=["constant", "adaptive"])
def test_lengths_are_restored_and_items_without_an_anchor_untouched(config: RectifyConfig) -> None:
    features, present, plan = sample()
    rows, status = whole(features, present, plan, config)
    np.testing.assert_allclose(
        np.linalg.norm(rows, axis=1)[present], np.linalg.norm(features, axis=1)[present], rtol=1e-5
    )
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


@given(block=st.integers(1, ITEMS), seed=st.integers(0, 1000), mix=st.sampled_from(["constant", "adaptive"]))
@settings(max_examples=30, deadline=None)
def test_block_size_changes_no_bit(block: int, seed: int, mix: Literal["constant", "adaptive"]) -> None:
    features, present, plan = sample(seed)
    config, trust = RectifyConfig(mix=mix, impute=True), trust_of(seed=seed)
    status = decide_status(present, plan, trust, config)
    parts = [
        rectify_rows(features, slice(at, min(at + block, ITEMS)), status, plan, trust, config)
        for at in range(0, ITEMS, block)
    ]
    assert (
        np.concatenate(parts).tobytes()
        == rectify_rows(features, slice(0, ITEMS), status, plan, trust, config).tobytes()
    )


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
    rows, _ = whole(features, np.asarray(features.any(axis=1)), plan, RectifyConfig(mix="constant", keep_original=0.5))
    assert rows[0].tolist() == [1, 0]


def test_donors_without_length_leave_nothing_that_is_not_a_number() -> None:
    """Item 0 asks a donor of zeros; item 1 lacks the feature and would be imputed from the same donor."""
    features = np.zeros((ITEMS, 2), np.float32)
    features[0] = (3, 4)
    present = np.arange(ITEMS) != 1
    neighbours = np.full((ITEMS, 1), -1)
    neighbours[:2] = 2
    plan = balance(affinity_of(neighbours, np.where(neighbours >= 0, 0.0, -np.inf)), SinkhornConfig())
    rows, status = whole(features, present, plan, RectifyConfig(mix="constant", keep_original=0.5, impute=True))
    assert status[:3] == ["rectified", "imputed", "passed_through"]
    np.testing.assert_allclose(rows[0], (3, 4), rtol=1e-6)
    assert not rows[1:].any()

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
from rectifier_core.base.numerics import row_lengths, unit_rows
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Plan, Trust
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.expected import ExpectedFeature, Views
from rectifier_core.rectify.rectify import Mixing, Model, RectifiedRows, decide_status, rectify_rows
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sinkhorn import balance
from tests.support.core_samples import affinity_of, normals, trust_of

ITEMS = 40


CONSTANT = RectifyConfig(mix="constant")
MIXES = [CONSTANT, RectifyConfig()]


def made_trust(identifiable: bool = True, probability: Float32 | None = None, seed: int = 0) -> Trust:
    """Probabilities at random, or as given; NaN everywhere where nothing can be told."""
    nothing = np.full(ITEMS, np.nan, np.float32)
    given = np.random.default_rng(seed).random(ITEMS).astype(np.float32) if probability is None else probability
    return trust_of(given, (0.1, 0.05, 0.2, 0.05, 0.15)) if identifiable else trust_of(nothing, None)


def everyone(probability: float) -> Trust:
    return made_trust(probability=np.full(ITEMS, probability, np.float32))


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


def model_of(features: Float32, present: Bool, seed: int = 0) -> Model:
    """An expected feature of made-up parts: two views an item, five folds."""
    rng = np.random.default_rng(seed)
    expected = ExpectedFeature(
        modality="image",
        mean=unit_rows(np.asarray(features[present])).mean(axis=0) * np.float32(0.9),
        maps=normals(rng, 5, 3, features.shape[1]) * np.float32(0.2),
        donor_weight=0.7,
    )
    views = Views(normals(rng, ITEMS, 2), [], [])
    return Model(expected=expected, views=views, folds=(np.arange(ITEMS) % 5).astype(np.int32))


def rectified(
    features: Float32,
    present: Bool,
    plan: Plan,
    config: RectifyConfig,
    trust: Trust | None = None,
    placeholder: Bool | None = None,
    model: Model | None = None,
) -> RectifiedRows:
    told = trust or made_trust()
    status = decide_status(present, plan, told, config, placeholder)
    mixing = Mixing(plan=plan, trust=told, lengths=row_lengths(features), config=config, model=model)
    return rectify_rows(features, present, slice(0, ITEMS), status, mixing)


def whole(
    features: Float32,
    present: Bool,
    plan: Plan,
    config: RectifyConfig,
    trust: Trust | None = None,
    placeholder: Bool | None = None,
) -> tuple[Float32, list[str]]:
    found = rectified(features, present, plan, config, trust, placeholder)
    return found.features, [list(Status)[code].value for code in found.status]


def square(plan: Plan) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    matrix = np.zeros((ITEMS, ITEMS))
    matrix[np.repeat(np.arange(ITEMS), np.diff(plan.indptr)), plan.indices] = plan.weights
    return matrix


def oracle(
    features: Float32, present: Bool, plan: Plan, config: RectifyConfig
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The paper's formula item by item, at the input's lengths. A row that would hardly move stays."""
    matrix, length, wanted = square(plan), np.linalg.norm(features, axis=1), features.astype(np.float64)
    for i in np.flatnonzero(matrix.any(axis=1)):
        if present[i]:
            mixed = config.keep_original * features[i] + (1 - config.keep_original) * (matrix[i] @ features)
            far = 1 - mixed @ features[i] / np.linalg.norm(mixed) / length[i]
            wanted[i] = mixed / np.linalg.norm(mixed) * length[i] if far >= 0.001 else features[i]
        elif config.impute:
            donated = matrix[i] @ features
            wanted[i] = donated / np.linalg.norm(donated) * (matrix[i] @ length)
    return wanted


def adaptive_oracle(
    features: Float32, present: Bool, plan: Plan, config: RectifyConfig, trust: Trust, model: Model
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Adaptive mixing item by item and donor by donor: mean + t * (p * own + (1 - p) * expected), t such that the length is right."""
    matrix, length, wanted = square(plan), np.linalg.norm(features, axis=1), features.astype(np.float64)
    mean, units = model.expected.mean.astype(np.float64), unit_rows(features).astype(np.float64)
    average = 1 - (trust.mismatch_rate or 0)
    for i in np.flatnonzero(matrix.any(axis=1)):
        weights = np.where(np.isnan(trust.probability), average, trust.probability) * matrix[i]
        weights[i] = 0
        donated, total = np.zeros(len(mean)), 0.0
        if weights.any():
            weights /= weights.sum()
            donated, total = weights @ units, weights.sum()
        seen = model.views.of(np.array([i]))[0].astype(np.float64) @ model.expected.maps[model.folds[i]]
        expected = model.expected.donor_weight * (donated - total * mean) + seen
        p = float(trust.probability[i])
        if present[i] and not np.isnan(p) and p < 0.99:
            moved, reach = p * (units[i] - mean) + (1 - p) * expected, length[i]
        elif not present[i] and config.impute:
            moved, reach = expected, weights @ length
        else:
            continue
        t = max(np.roots([moved @ moved, 2 * moved @ mean, mean @ mean - 1]).real)
        row = mean + t * moved
        if not present[i] or 1 - row @ units[i] >= 0.001:
            wanted[i] = row * reach
    return wanted


@pytest.mark.parametrize("impute", [False, True])
@pytest.mark.parametrize("keep", [0.0, 0.6, 0.95])
def test_constant_mixing_equals_the_papers_formula(keep: float, impute: bool) -> None:
    features, present, plan = sample()
    config = RectifyConfig(mix="constant", keep_original=keep, impute=impute)
    rows, _ = whole(features, present, plan, config)
    np.testing.assert_allclose(rows, oracle(features, present, plan, config), rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("impute", [False, True])
def test_adaptive_mixing_equals_its_formula(impute: bool) -> None:
    features, present, plan = sample(1)
    config = RectifyConfig(impute=impute)
    probability = np.random.default_rng(3).random(ITEMS).astype(np.float32)
    probability[~present] = np.nan
    probability[::7] = np.nan
    probability[3::11] = 0.97
    trust, model = made_trust(probability=probability), model_of(features, present)
    found = rectified(features, present, plan, config, trust, model=model)
    wanted = adaptive_oracle(features, present, plan, config, trust, model)
    np.testing.assert_allclose(found.features, wanted, rtol=2e-3, atol=1e-3 * np.abs(features).max())
    cosine = np.einsum("ij,ij->i", unit_rows(found.features), unit_rows(features))
    np.testing.assert_allclose(found.moved[present], 1 - cosine[present], atol=2e-6)
    assert np.isnan(found.moved[~present]).all()
    rectified_rows = found.status == Status.RECTIFIED.code
    assert (found.moved[rectified_rows] >= 0.001).all() and (found.moved[present & ~rectified_rows] == 0).all()
    assert (found.features != features).any(axis=1)[present].tolist() == rectified_rows[present].tolist()


def test_where_the_rate_may_be_zero_an_item_keeps_what_its_upper_bound_says() -> None:
    features, present, plan = equal_length()
    doubted = everyone(0.3)
    bounded = replace(doubted, probability_upper=np.full(ITEMS, 0.8, np.float32))
    sure, unsure = replace(bounded, low=0.01), replace(bounded, low=0.0)
    found = [rectified(features, present, plan, RectifyConfig(), x).features.tobytes() for x in (sure, unsure)]
    wanted = [rectified(features, present, plan, RectifyConfig(), x).features for x in (doubted, everyone(0.8))]
    assert found[0] == wanted[0].tobytes() and found[0] != found[1]
    # Equal trust in all donors cancels, so only the share that an item keeps differs.
    np.testing.assert_allclose(np.frombuffer(found[1], np.float32).reshape(ITEMS, -1), wanted[1], atol=1e-6)


def equal_length(seed: int = 0) -> tuple[Float32, Bool, Plan]:
    """As ``sample``, with every feature of length 1 and present."""
    features = unit_rows(normals(np.random.default_rng(seed), ITEMS, 6))
    neighbours = np.stack([np.random.default_rng(seed + i).permutation(ITEMS)[:5] for i in range(ITEMS)])
    scores = np.random.default_rng(seed).standard_normal(neighbours.shape)
    return features, np.ones(ITEMS, np.bool_), balance(affinity_of(neighbours, scores), SinkhornConfig())


@given(seed=st.integers(0, 200))
@settings(max_examples=20, deadline=None)
def test_the_more_an_item_is_trusted_the_less_it_moves(seed: int) -> None:
    features, present, plan = equal_length(seed)
    moved = [rectified(features, present, plan, RectifyConfig(), everyone(p)).moved for p in (0.2, 0.5, 0.8, 1.0)]
    assert (np.diff(moved, axis=0) < 1e-5).all() and not moved[-1].any()


def test_untrusted_donors_and_the_item_itself_give_nothing() -> None:
    """Item 0 asks itself, an untrusted donor and a trusted one; item 1 only itself and the untrusted one."""
    features, present = unit_rows(normals(np.random.default_rng(1), ITEMS, 6)), np.ones(ITEMS, np.bool_)
    neighbours = np.full((ITEMS, 3), -1)
    neighbours[0], neighbours[1] = (0, 2, 3), (1, 2, -1)
    plan = balance(affinity_of(neighbours, np.where(neighbours >= 0, 0.0, -np.inf)), SinkhornConfig(balance="row"))
    probability = np.ones(ITEMS, np.float32)
    probability[[0, 1, 2]] = 0
    rows, status = whole(features, present, plan, RectifyConfig(), made_trust(probability=probability))
    np.testing.assert_allclose(rows[0], features[3], atol=1e-6)
    assert rows[1].tobytes() == features[1].tobytes(), "nobody believed has anything to give"
    assert status[:3] == ["rectified", "passed_through", "passed_through"]
    # A donor that nothing is known of is as good as the average one: 0.9 of a certain one here.
    probability[2] = np.nan
    rows, _ = whole(features, present, plan, RectifyConfig(), made_trust(probability=probability))
    np.testing.assert_allclose(rows[0], unit_rows((0.9 * features[2] + features[3])[None])[0], atol=1e-6)


@pytest.mark.parametrize("config", MIXES, ids=["constant", "adaptive"])
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
    rows, status = whole(features, present, plan, RectifyConfig(), made_trust(probability=probability))
    assert rows[1::2].tobytes() == features[1::2].tobytes()
    assert "rectified" not in status[1::2] and "rectified" in status[::2]


@pytest.mark.parametrize("config", [RectifyConfig(mix="constant", keep_original=1.0), RectifyConfig()])
def test_keeping_everything_returns_the_input(config: RectifyConfig) -> None:
    features, present, plan = sample()
    rows, status = whole(features, present, plan, config, everyone(1.0))
    assert rows.tobytes() == features.tobytes()
    assert set(status) == {"passed_through", "missing"}


@pytest.mark.parametrize("mix", ["constant", "adaptive"])
def test_where_nothing_can_be_told_features_pass_bit_for_bit(mix: Literal["constant", "adaptive"]) -> None:
    features, present, plan = sample()
    rows, status = whole(features, present, plan, RectifyConfig(mix=mix, impute=True), made_trust(identifiable=False))
    assert rows.tobytes() == features.tobytes()
    assert "imputed" not in status
    assert "rectified" not in status


@pytest.mark.parametrize("config", MIXES, ids=["constant", "adaptive"])
def test_lengths_are_restored_and_items_without_an_anchor_untouched(config: RectifyConfig) -> None:
    features, present, plan = sample()
    rows, status = whole(features, present, plan, config, everyone(0.5))
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
    config, trust = RectifyConfig(mix=mix, impute=True), made_trust(seed=seed)
    status, model = decide_status(present, plan, trust, config), model_of(features, present)
    mixing = Mixing(
        plan=plan, trust=trust, lengths=row_lengths(features), config=config, model=None if mix == "constant" else model
    )
    rows = [slice(at, min(at + block, ITEMS)) for at in range(0, ITEMS, block)]
    parts = [rectify_rows(features, present, x, status, mixing) for x in rows]
    all_rows = rectify_rows(features, present, slice(0, ITEMS), status, mixing)
    for name in ("features", "status", "moved"):
        assert np.concatenate([getattr(x, name) for x in parts]).tobytes() == getattr(all_rows, name).tobytes()


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
    assert status[:3] == ["passed_through", "imputed", "passed_through"]
    np.testing.assert_allclose(rows[0], (3, 4), rtol=1e-6)
    assert not rows[1:].any()

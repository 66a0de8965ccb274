"""Owners: planted truth, calibration, the likelihood ratio against its closed form, search against brute force, one-to-one pairs."""

from __future__ import annotations

import numpy as np
import pytest

from rectifier_core.audit.config import OwnersConfig
from rectifier_core.audit.owners import (
    Suggestions,
    clear_owners,
    lost_prior,
    nearest_rows,
    pair_evidence,
    plan_weights,
    suggest,
)
from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Projection
from tests.support.core_samples import plan_of, projection_of, random_units, swapped


def planted(
    items: int = 1500, width: int = 16, *, noise: float = 0.35, share: float = 0.2, seed: int = 3
) -> tuple[Projection, Int64, Bool]:
    """A projection of anisotropic anchors through noise, whose feature each item carries, and which are wrong."""
    rng = np.random.default_rng(seed)
    scales = np.geomspace(2.0, 0.4, width)
    target = unit_rows((rng.standard_normal((items, width)) * scales).astype(np.float32))
    own = unit_rows((target + noise * rng.standard_normal((items, width)) / 2).astype(np.float32))
    source, wrong = swapped(rng, np.ones(items, np.bool_), share)
    projected = np.ascontiguousarray(own[source])
    return projection_of(projected, target, np.einsum("ij,ij->i", projected, target)), source.astype(np.int64), wrong


def truth_probability(wrong: Bool, doubt: float = 0.05) -> Float32:
    return np.where(wrong, doubt, 1 - doubt).astype(np.float32)


def test_true_owners_come_first_and_far_ahead_of_raw_cosine() -> None:
    projection, source, wrong = planted(noise=0.6)
    p, rows, config = truth_probability(wrong), np.flatnonzero(wrong), OwnersConfig()
    found = suggest("owners", pair_evidence(projection, p, config), projection, p, rows, config, seed=1)
    hit = (found.others == source[rows][:, None]).any(axis=1).mean()
    cosine = projection.projected[rows] @ projection.target.T
    cosine[np.arange(len(rows)), rows] = -np.inf
    raw = (np.argsort(-cosine, axis=1)[:, :10] == source[rows][:, None]).any(axis=1).mean()
    assert hit > raw + 0.2, (hit, raw)
    assert not (found.others == rows[:, None]).any()
    assert (np.diff(np.nan_to_num(found.probability), axis=1) <= 1e-6).all()


def test_the_probability_of_an_owner_is_how_often_it_is_the_one() -> None:
    rng = np.random.default_rng(4)
    r = np.linspace(0.95, 0.3, 8)
    y = rng.standard_normal((3000, 8)).astype(np.float32)
    x = (r * y + np.sqrt(1 - r**2) * rng.standard_normal((3000, 8))).astype(np.float32)
    source, wrong = swapped(rng, np.ones(3000, np.bool_), 0.2)
    projection, config = projection_of(np.ascontiguousarray(x[source]), y), OwnersConfig(ridge=1e-3)
    p, rows = truth_probability(wrong, 0.001), np.flatnonzero(wrong)
    found = suggest("owners", pair_evidence(projection, p, config), projection, p, rows, config, seed=1)
    right = found.others == source[rows][:, None]
    assert right.any(axis=1).mean() == pytest.approx(found.probability.sum() / len(rows), abs=0.03)
    sure = found.probability > 0.3
    assert sure.sum() > 50
    assert right[sure].mean() == pytest.approx(found.probability[sure].mean(), abs=0.06)


def test_lost_features_are_found_from_the_item_too_and_pairs_are_one_to_one() -> None:
    projection, source, wrong = planted(noise=0.2)
    p, rows, config = truth_probability(wrong), np.flatnonzero(wrong), OwnersConfig()
    evidence = pair_evidence(projection, p, config)
    owners = suggest("owners", evidence, projection, p, rows, config, seed=1)
    features = suggest("features", evidence, projection, p, rows, config, seed=1)
    # source[row] is the owner of the feature that row carries, so the item's own feature lies where source is the item.
    carrier = np.argsort(source)
    assert (features.others[:, 0] == carrier[rows]).mean() > 0.9
    clear = clear_owners(owners, features)
    said = clear[clear >= 0]
    assert len(said) > 0.7 * len(rows)
    assert len(set(said.tolist())) == len(said)
    assert (said == source[rows][clear >= 0]).mean() > 0.95


def test_nothing_is_clear_where_the_choice_is_not_mutual() -> None:
    def of(rows: list[int], others: list[int], p: list[float]) -> Suggestions:
        grid = np.array(p, np.float32)[:, None]
        return Suggestions(
            rows=np.array(rows), others=np.array(others)[:, None], evidence=grid, cosine=grid, probability=grid
        )

    owners = of([0, 1, 2, 3], [5, 5, 6, -1], [0.9, 0.8, 0.4, float("nan")])
    features = of([5, 6], [0, 2], [0.7, 0.9])
    assert clear_owners(owners, features).tolist() == [5, -1, -1, -1]
    assert clear_owners(owners, of([5, 6], [1, 2], [0.7, 0.9])).tolist() == [-1, 5, -1, -1]
    assert clear_owners(owners, of([5], [0], [0.5])).tolist() == [-1] * 4


def test_evidence_is_the_log_likelihood_ratio_of_correlated_normals() -> None:
    rng = np.random.default_rng(0)
    r, count = np.array([0.9, 0.6, 0.0]), 400_000
    y = rng.standard_normal((count, 3)).astype(np.float32)
    x = (r * y + np.sqrt(1 - r**2) * rng.standard_normal((count, 3))).astype(np.float32)
    evidence = pair_evidence(projection_of(x, y), np.ones(count, np.float32), OwnersConfig(ridge=1e-6))
    got = np.einsum("ij,ij->i", evidence.features[:200], evidence.items[:200])
    together = -0.5 * (((x - r * y) ** 2) / (1 - r**2)).sum(axis=1) - 0.5 * np.log(1 - r**2).sum()
    apart = -0.5 * (x**2).sum(axis=1)
    want = (together - apart)[:200]
    offset = -0.5 * np.log(1 - r**2).sum()
    np.testing.assert_allclose(got, want - offset, atol=0.15)


@pytest.mark.parametrize("exact", [12, 4000])
def test_the_weight_of_candidates_behind_the_best_is_estimated_from_a_sample(exact: int) -> None:
    projection, _, wrong = planted(items=3000, noise=1.0)
    p, rows = truth_probability(wrong), np.flatnonzero(wrong)[:200]
    config = OwnersConfig(exact=exact, sample=1000)
    evidence = pair_evidence(projection, p, config)
    found = suggest("owners", evidence, projection, p, rows, config, seed=1)
    weight = (evidence.features[rows] @ evidence.items.T).astype(np.float64) + np.log(
        lost_prior(p, evidence.has_feature, config)
    )
    weight[np.arange(len(rows)), rows] = -np.inf
    whole = np.exp(weight - weight.max(axis=1, keepdims=True))
    whole /= whole.sum(axis=1, keepdims=True)
    wanted = -np.sort(-whole, axis=1)[:, :10]
    np.testing.assert_allclose(found.probability, wanted, rtol=0.25 if exact == 12 else 1e-3)
    assert found.probability.sum() == pytest.approx(wanted.sum(), rel=0.02)


def test_items_without_feature_or_anchor_are_handled() -> None:
    projection, _, wrong = planted(items=600)
    projected, target = projection.projected.copy(), projection.target.copy()
    projected[:5], target[5:10] = 0, 0
    p = truth_probability(wrong)
    p[:10] = np.nan
    bare, config = projection_of(projected, target), OwnersConfig(count=4)
    evidence = pair_evidence(bare, p, config)
    owners = suggest("owners", evidence, bare, p, np.arange(12), config, seed=0)
    assert (owners.others[:5] == -1).all() and np.isnan(owners.probability[:5]).all()
    assert (owners.others[5:] >= 0).all() and not np.isin(owners.others, np.arange(5, 10)).any()
    features = suggest("features", evidence, bare, p, np.arange(12), config, seed=0)
    assert (features.others[5:10] == -1).all() and not np.isin(features.others, np.arange(5)).any()
    prior = lost_prior(p, evidence.has_feature, config)
    assert (prior[:5] == 1).all() and (prior[5:10] == 0.5).all()


def test_too_few_trusted_pairs_give_no_evidence() -> None:
    projection, _, wrong = planted(items=40)
    for p in (np.full(40, np.nan, np.float32), truth_probability(wrong)[:40] * np.float32(0.1)):
        evidence = pair_evidence(projection, p, OwnersConfig())
        assert not evidence.features.any() and not evidence.items.any()
        found = suggest("owners", evidence, projection, p, np.arange(3), OwnersConfig(), seed=0)
        assert (found.others == -1).all()


def test_nearest_rows_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(2)
    rows = random_units(rng, 80, 5)
    usable = rng.random(80) < 0.7
    rows[3] = 0
    asked = np.array([3, 0, 7, 79])
    found = nearest_rows(rows, rows, usable, asked, 6)
    assert (found[0] == -1).all()
    for place, row in enumerate(asked[1:].tolist(), start=1):
        scores = np.where(usable & (np.arange(80) != row), rows @ rows[row], -np.inf)
        assert found[place].tolist() == np.argsort(-scores)[:6].tolist()
    assert nearest_rows(rows, rows, np.zeros(80, np.bool_), asked, 2).tolist() == [[-1, -1]] * 4


def test_the_plans_weight_of_each_suggestion() -> None:
    plan = plan_of([0, 2, 3, 3], [1, 2, 0], [0.25, 0.75, 1.0])
    grid = np.zeros((2, 3), np.float32)
    others = np.array([[2, 1, -1], [1, 0, -1]])
    suggestions = Suggestions(rows=np.array([0, 2]), others=others, evidence=grid, cosine=grid, probability=grid)
    np.testing.assert_array_equal(
        plan_weights(plan, suggestions), np.array([[0.75, 0.25, np.nan], [0, 0, np.nan]], np.float32)
    )

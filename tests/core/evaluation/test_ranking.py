"""Ranking and what is measured on it, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.metrics import group_recall, item_coverage, pair_closeness, per_user_ranking
from rectifier_core.evaluation.ranking import rank_items
from rectifier_core.evaluation.trial import CHANCE, POPULARITY, baselines, popularity_bands
from tests.support.core_samples import log_of, normals


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Interactions, Interactions, int]:
    rng = np.random.Generator(np.random.PCG64(draw(st.integers(0, 2**32))))
    num_users, num_items = draw(st.integers(1, 7)), draw(st.integers(1, 12))
    # Few distinct values, so that ties are the rule.
    users, items = (rng.integers(0, n, (size, 2)).astype(np.float32) for n, size in ((2, num_users), (3, num_items)))
    cells = rng.permutation(num_users * num_items)
    cut = rng.integers(0, len(cells) + 1, 2)
    known, held = cells[: cut.min()], cells[cut.min() : cut.max()]
    split = [log_of(x // num_items, x % num_items, num_users, num_items) for x in (known, held)]
    return users, items, split[0], split[1], draw(st.integers(1, 14))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_ranking_and_its_measures_are_those_of_a_plain_loop(
    case: tuple[np.ndarray, np.ndarray, Interactions, Interactions, int],
) -> None:
    users, items, known, held_out, depth = case
    everyone = np.arange(len(users), dtype=np.int32)
    ranked = rank_items(torch.from_numpy(users), torch.from_numpy(items), everyone, known, depth=depth, block=3)
    measured = per_user_ranking(ranked, everyone, held_out, depths=(2, 5))
    seen = set(zip(known.users.tolist(), known.items.tolist(), strict=True))
    for user in range(len(users)):
        free = [i for i in range(len(items)) if (user, i) not in seen]
        best = sorted(free, key=lambda i: (-float(users[user] @ items[i]), i))[:depth]
        assert ranked[user].tolist() == best + [-1] * (depth - len(best))
        wanted = set(held_out.items[held_out.users == user].tolist())
        for k in (2, 5):
            recall, ndcg = measured.recall[k][user], measured.ndcg[k][user]
            if not wanted:
                assert np.isnan([recall, ndcg]).all()
                continue
            hits = [rank for rank, item in enumerate(best[:k]) if item in wanted]
            ideal = sum(1 / np.log2(rank + 2) for rank in range(min(k, len(wanted), depth)))
            assert recall == pytest.approx(len(hits) / len(wanted))
            assert ndcg == pytest.approx(sum(1 / np.log2(rank + 2) for rank in hits) / ideal)


def test_recall_by_group_counts_the_pairs_of_judged_users_only() -> None:
    held_out = log_of([0, 0, 1, 2], [0, 1, 2, 0], 3, 4)
    ranked = np.array([[0, 3], [3, 2]], np.int32)
    groups = np.array([0, 0, 1, -1], np.int32)
    assert group_recall(ranked, np.array([0, 1], np.int32), held_out, groups, depth=2) == {0: 0.5, 1: 1.0}
    assert group_recall(ranked, np.array([0, 1], np.int32), held_out, groups, depth=1) == {0: 0.5, 1: 0.0}


def test_coverage_counts_each_item_once() -> None:
    assert item_coverage(np.array([[0, 1, -1], [1, 0, 2]], np.int32), 6) == pytest.approx(0.5)


def test_popularity_bands_hold_a_third_of_the_pairs_each() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    items = np.minimum(rng.geometric(0.02, 30_000), 300) - 1
    known = log_of(np.zeros(len(items)), items, 1, 300)
    bands = popularity_bands(known)
    held = np.bincount(bands[known.items], minlength=3) / len(items)
    assert np.abs(held - 1 / 3).max() < 0.03
    degree = np.bincount(known.items, minlength=300)
    assert degree[bands == 0].max() <= degree[bands == 1].min() <= degree[bands == 1].max() <= degree[bands == 2].min()


def test_closeness_is_high_for_features_that_follow_the_users_and_a_half_for_others() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(60) % 3
    users, items = np.nonzero((np.arange(90)[:, None] % 3 == group[None, :]) & (rng.random((90, 60)) < 0.5))
    held = rng.random(len(users)) < 0.3
    logs = [log_of(users[at], items[at], 90, 60) for at in (~held, held)]
    follow = (np.eye(3)[group] + 0.1 * rng.standard_normal((60, 3))).astype(np.float32)
    assert pair_closeness(follow, *logs, seed=0, draws=5000) > 0.75
    assert pair_closeness(normals(rng, 60, 3), *logs, seed=0, draws=5000) == pytest.approx(0.5, abs=0.08)
    assert pair_closeness(np.ones((60, 3), np.float32), *logs, seed=0, draws=500) == 0.5


def test_chance_and_popularity_equal_brute_force() -> None:
    rng = np.random.default_rng(4)
    users, items = 30, 60
    keys = rng.choice(users * items, 400, replace=False)
    known, test = (log_of(x // items, x % items, users, items) for x in (keys[:300], keys[300:]))
    asked = np.intersect1d(known.users, test.users).astype(np.int32)
    found = baselines(asked, test, known)
    count = np.bincount(known.items, minlength=items)

    def recall(order: np.ndarray, user: int) -> float:
        fresh = [x for x in order if x not in known.items[known.users == user]][:20]
        wanted = test.items[test.users == user]
        return float(np.isin(wanted, fresh).mean())

    popular = np.argsort(-count, kind="stable")
    assert found[POPULARITY] == pytest.approx(np.mean([recall(popular, x) for x in asked]))
    orders = [rng.permutation(items) for _ in range(400)]
    assert found[CHANCE] == pytest.approx(np.mean([recall(o, x) for o in orders for x in asked]), abs=0.01)

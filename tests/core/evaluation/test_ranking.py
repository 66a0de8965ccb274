"""Ranking and what is measured on it, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.metrics import group_recall, item_coverage, per_user_ranking
from rectifier_core.evaluation.ranking import rank_items
from rectifier_core.evaluation.trial import popularity_bands


def pairs(users: list[int], items: list[int], num_users: int, num_items: int) -> Interactions:
    return Interactions(
        users=np.array(users, np.int32),
        items=np.array(items, np.int32),
        times=None,
        num_users=num_users,
        num_items=num_items,
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Interactions, Interactions, int]:
    rng = np.random.Generator(np.random.PCG64(draw(st.integers(0, 2**32))))
    num_users, num_items = draw(st.integers(1, 7)), draw(st.integers(1, 12))
    # Few distinct values, so that ties are the rule.
    users, items = (
        rng.integers(0, 2, (num_users, 2)).astype(np.float32),
        rng.integers(0, 3, (num_items, 2)).astype(np.float32),
    )
    cells = rng.permutation(num_users * num_items)
    cut = rng.integers(0, len(cells) + 1, 2)
    known, held = cells[: cut.min()], cells[cut.min() : cut.max()]
    split = [pairs((x // num_items).tolist(), (x % num_items).tolist(), num_users, num_items) for x in (known, held)]
    return users, items, split[0], split[1], draw(st.integers(1, 14))


@settings(max_examples=200, deadline=None)
@given(cases())
def test_the_list_is_a_stable_sort_without_the_known_items(
    case: tuple[np.ndarray, np.ndarray, Interactions, Interactions, int],
) -> None:
    users, items, known, _, depth = case
    everyone = np.arange(len(users), dtype=np.int32)
    ranked = rank_items(torch.from_numpy(users), torch.from_numpy(items), everyone, known, depth=depth, block=3)
    seen = set(zip(known.users.tolist(), known.items.tolist(), strict=True))
    for user in range(len(users)):
        free = [i for i in range(len(items)) if (user, i) not in seen]
        wanted = sorted(free, key=lambda i: (-float(users[user] @ items[i]), i))[:depth]
        assert ranked[user].tolist() == wanted + [-1] * (depth - len(wanted))


@settings(max_examples=200, deadline=None)
@given(cases())
def test_recall_and_ndcg_are_what_a_loop_says(
    case: tuple[np.ndarray, np.ndarray, Interactions, Interactions, int],
) -> None:
    users, items, known, held_out, depth = case
    everyone = np.arange(len(users), dtype=np.int32)
    ranked = rank_items(torch.from_numpy(users), torch.from_numpy(items), everyone, known, depth=depth)
    found = per_user_ranking(ranked, everyone, held_out, depths=(2, 5))
    for user in range(len(users)):
        wanted = set(held_out.items[held_out.users == user].tolist())
        for k in (2, 5):
            if not wanted:
                assert np.isnan(found.recall[k][user])
                assert np.isnan(found.ndcg[k][user])
                continue
            hits = [rank for rank, item in enumerate(ranked[user, :k].tolist()) if item in wanted]
            ideal = sum(1 / np.log2(rank + 2) for rank in range(min(k, len(wanted), depth)))
            assert found.recall[k][user] == pytest.approx(len(hits) / len(wanted))
            assert found.ndcg[k][user] == pytest.approx(sum(1 / np.log2(rank + 2) for rank in hits) / ideal)


def test_the_best_list_has_an_ndcg_of_one_however_many_are_held_out() -> None:
    held_out = pairs([0] * 30, list(range(30)), 1, 40)
    ranked = np.arange(20, dtype=np.int32)[None, :]
    found = per_user_ranking(ranked, np.zeros(1, np.int32), held_out)
    assert found.ndcg[10][0] == pytest.approx(1)
    assert found.ndcg[20][0] == pytest.approx(1)
    assert found.recall[20][0] == pytest.approx(20 / 30)


def test_recall_by_group_counts_the_pairs_of_judged_users_only() -> None:
    held_out = pairs([0, 0, 1, 2], [0, 1, 2, 0], 3, 4)
    ranked = np.array([[0, 3], [3, 2]], np.int32)
    groups = np.array([0, 0, 1, -1], np.int32)
    assert group_recall(ranked, np.array([0, 1], np.int32), held_out, groups, depth=2) == {0: 0.5, 1: 1.0}
    assert group_recall(ranked, np.array([0, 1], np.int32), held_out, groups, depth=1) == {0: 0.5, 1: 0.0}


def test_coverage_counts_items_not_places() -> None:
    assert item_coverage(np.array([[0, 1, -1], [1, 0, 2]], np.int32), 6) == pytest.approx(0.5)


def test_popularity_bands_hold_a_third_of_the_pairs_each() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    items = np.minimum(rng.geometric(0.02, 30_000), 300) - 1
    known = pairs([0] * len(items), items.tolist(), 1, 300)
    bands = popularity_bands(known)
    held = np.bincount(bands[known.items], minlength=3) / len(items)
    assert np.abs(held - 1 / 3).max() < 0.03
    degree = np.bincount(known.items, minlength=300)
    assert degree[bands == 0].max() <= degree[bands == 1].min() <= degree[bands == 1].max() <= degree[bands == 2].min()

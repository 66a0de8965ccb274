"""Measures against held-out truth: closeness, Recall, NDCG and coverage."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rectifier_core.anchors.interaction_sampling import PairSet
from rectifier_core.base.arrays import Float32, Float64, Int32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.pairs import pair_keys
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator


def pair_closeness(
    features: Float32, training: Interactions, held_out: Interactions, *, seed: int, draws: int = 40_000
) -> float:
    """The chance that a held-out item lies closer to one of its user's training items than a held-out item of another pair does.

    Per draw: a held-out (user, item t), one of the user's training items a, the item n of another held-out pair (so popularity is
    matched); the share of draws with cosine(a, t) > cosine(a, n) on centred features, ties half. 0.5 is chance.
    """
    rng = generator(seed, "metrics", "closeness")
    centred = unit_rows((features - features.mean(axis=0)).astype(np.float32))
    order = np.argsort(training.users, kind="stable")
    first = np.searchsorted(training.users[order], np.arange(training.num_users + 1))
    usable = np.flatnonzero(np.diff(first)[held_out.users] > 0)
    drawn, other = rng.choice(usable, draws), rng.choice(usable, draws)
    users = held_out.users[drawn]
    own = training.items[order][first[users] + (rng.random(draws) * (first[users + 1] - first[users])).astype(np.int64)]
    near, far = (np.einsum("ij,ij->i", centred[own], centred[held_out.items[at]]) for at in (drawn, other))
    return float((near > far).mean() + 0.5 * (near == far).mean())


class UserRanking(NamedTuple):
    """Per user [N] float64 and by depth k: ``recall[k]`` and ``ndcg[k]``. Users without a held-out item are NaN."""

    recall: dict[int, Float64]
    ndcg: dict[int, Float64]


def per_user_ranking(
    ranked: Int32, users: Int32, held_out: Interactions, *, depths: tuple[int, ...] = (10, 20)
) -> UserRanking:
    """Recall@k, hits over the user's held-out items, and NDCG@k with binary gain 1 / log2(rank + 1), the ideal over min(held out, k).

    ``ranked`` [N, K] are item numbers, best first (-1: none), of ``users`` [N].
    """
    hits = PairSet(held_out).contains(users[:, None], ranked) & (ranked >= 0)
    distinct = np.unique(pair_keys(held_out)) // held_out.num_items
    wanted = np.bincount(distinct, minlength=held_out.num_users)[users].astype(np.float64)
    wanted[wanted == 0] = np.nan
    gain = 1 / np.log2(np.arange(2, ranked.shape[1] + 2))
    ideal = np.cumsum(gain)
    ranking = UserRanking({}, {})
    for k in depths:
        ranking.recall[k] = hits[:, :k].sum(axis=1) / wanted
        best = ideal[np.nan_to_num(np.minimum(wanted, min(k, len(ideal))), nan=1).astype(np.int64) - 1]
        ranking.ndcg[k] = np.where(np.isnan(wanted), np.nan, (hits[:, :k] * gain[:k]).sum(axis=1) / best)
    return ranking


def group_recall(
    ranked: Int32, users: Int32, held_out: Interactions, groups: Int32, *, depth: int = 20
) -> dict[int, float]:
    """By group of ``groups`` [I] (negative: none): the share of the held-out pairs with an item of it that are among the first ``depth``.

    Only pairs of ``users`` [N] count; a group without any is left out.
    """
    row = np.full(held_out.num_users, -1)
    row[users] = np.arange(len(users))
    _, distinct = np.unique(pair_keys(held_out), return_index=True)
    judged = distinct[(row[held_out.users[distinct]] >= 0) & (groups[held_out.items[distinct]] >= 0)]
    items, group = held_out.items[judged], groups[held_out.items[judged]]
    hit = (ranked[row[held_out.users[judged]], :depth] == items[:, None]).any(axis=1)
    return {int(g): float(hit[group == g].mean()) for g in np.unique(group)}


def item_coverage(ranked: Int32, num_items: int) -> float:
    """The share of the catalog that is in at least one user's list of ``ranked`` [N, K]."""
    return len(np.setdiff1d(ranked, [-1])) / num_items

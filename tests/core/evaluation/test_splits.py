"""Divisions of a log: every pair in one part, the right numbers held out, and never the future in training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.splits import Split, split_time, split_users
from tests.support.core_samples import log_of


def random_log(seed: int, *, users: int, items: int, density: float, moments: int | None = None) -> Interactions:
    """Distinct pairs in random order, users of every size among them; with ``moments``, each at one of so many times."""
    rng = np.random.default_rng(seed)
    taking, taken = np.nonzero(rng.random((users, items)) < density * 2 * rng.random((users, 1)))
    order = rng.permutation(len(taking))
    times = None if moments is None else rng.integers(0, moments, len(order)) * 86_400
    return timed(taking[order], taken[order], times, users, items)


def timed(
    users: np.ndarray, items: np.ndarray, times: np.ndarray | None, num_users: int, num_items: int
) -> Interactions:
    return Interactions(
        users=users.astype(np.int32),
        items=items.astype(np.int32),
        times=times,
        num_users=num_users,
        num_items=num_items,
    )


def keys(pairs: Interactions) -> list[tuple[int, int, int]]:
    times = np.zeros(len(pairs.users)) if pairs.times is None else pairs.times
    return list(zip(pairs.users.tolist(), pairs.items.tolist(), times.tolist(), strict=True))


def counts(pairs: Interactions) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.bincount(pairs.users, minlength=pairs.num_users)


def parts(split: Split) -> tuple[Interactions, Interactions, Interactions]:
    return split.training, split.validation, split.test


@given(seed=st.integers(0, 500), density=st.floats(0.01, 0.7), with_times=st.booleans())
@settings(max_examples=30, deadline=None)
def test_every_pair_is_in_one_part_and_keeps_its_order_and_time(seed: int, density: float, with_times: bool) -> None:
    log = random_log(seed, users=30, items=40, density=density, moments=50 if with_times else None)
    split = split_users(log, seed=seed)
    assert sorted(x for part in parts(split) for x in keys(part)) == sorted(keys(log))
    place = {pair: at for at, pair in enumerate(keys(log))}
    for part in parts(split):
        assert (part.times is None) == (not with_times)
        at = [place[pair] for pair in keys(part)]
        assert at == sorted(at)


@given(seed=st.integers(0, 500), validation=st.sampled_from([0.1, 0.2]), test=st.sampled_from([0.1, 0.3]))
@settings(max_examples=30, deadline=None)
def test_users_give_as_many_pairs_as_the_protocol_wants(seed: int, validation: float, test: float) -> None:
    log = random_log(seed, users=40, items=60, density=0.3)
    split = split_users(log, seed=seed, validation=validation, test=test)
    share = round(10 * (validation + test))
    for n, kept, checked, tested in zip(counts(log), *(counts(part) for part in parts(split)), strict=True):
        held = 0 if n < 3 else 2 if n < 10 else share * n // 10
        assert kept == n - held and checked + tested == held
        if n < 10 or validation == test:
            assert checked == held // 2


def test_an_item_leaves_training_only_where_its_users_can_spare_nothing_else() -> None:
    # Ten users share items 0 to 9; user u alone takes the items 10 + 2u and 11 + 2u, user 10 takes only items of its own.
    users = np.concatenate([np.repeat(np.arange(10), 12), np.full(4, 10)])
    own = [np.append(np.arange(10), [10 + 2 * u, 11 + 2 * u]) for u in range(10)]
    log = log_of(users, np.concatenate([*own, np.arange(30, 34)]), 11, 34)
    for seed in range(20):
        split = split_users(log, seed=seed, validation=0.1, test=0.2)
        assert set(range(30)) <= set(split.training.items.tolist())
        assert counts(split.test)[10] == counts(split.validation)[10] == 1


def test_held_out_pairs_are_drawn_by_the_seed_and_follow_popularity() -> None:
    taking, taken = np.nonzero(np.random.default_rng(0).random((400, 40)) < np.linspace(0.05, 0.9, 40))
    log = log_of(taking, taken, 400, 40)
    first, again, other = (split_users(log, seed=seed).test for seed in (1, 1, 2))
    assert keys(first) == keys(again) != keys(other)
    popularity, tested = (np.bincount(x.items, minlength=40) / len(x.items) for x in (log, first))
    np.testing.assert_allclose(tested, popularity, atol=0.015)


@given(
    seed=st.integers(0, 500), moments=st.integers(3, 400), validation=st.floats(0.05, 0.3), test=st.floats(0.05, 0.3)
)
@settings(max_examples=40, deadline=None)
def test_a_cut_in_time_never_trains_on_later_pairs(seed: int, moments: int, validation: float, test: float) -> None:
    log = random_log(seed, users=40, items=50, density=0.3, moments=moments)
    training, checked, tested = parts(split_time(log, validation=validation, test=test))
    assert training.times is not None and checked.times is not None and tested.times is not None
    known = set(training.users.tolist())
    assert {*checked.users.tolist(), *tested.users.tolist()} <= known
    kept = {x for part in (training, checked, tested) for x in keys(part)}
    assert len(kept) == sum(len(part.users) for part in (training, checked, tested))
    assert all(user not in known and time > training.times.max() for user, _, time in set(keys(log)) - kept)
    if len(checked.times) and len(tested.times):
        assert training.times.max() < checked.times.min() and checked.times.max() < tested.times.min()


def test_later_parts_lose_unknown_users_and_keep_new_items() -> None:
    users = np.array([0, 0, 0, 1, 1, 1, 0, 2, 0, 2])
    split = split_time(timed(users, np.arange(10), np.arange(10), 3, 10), validation=0.2, test=0.2)
    assert split.training.users.tolist() == [0, 0, 0, 1, 1, 1]
    assert (split.validation.items.tolist(), split.test.items.tolist()) == ([6], [8])


@pytest.mark.parametrize("times", [None, [], [5], [5, 5, 5, 5], [5, 5, 6, 6]])
def test_a_log_with_too_few_moments_is_refused(times: list[int] | None) -> None:
    size = 3 if times is None else len(times)
    at = None if times is None else np.array(times, np.int64)
    with pytest.raises(ValueError, match="times: wanted"):
        split_time(timed(np.zeros(size), np.arange(size), at, 1, 9))

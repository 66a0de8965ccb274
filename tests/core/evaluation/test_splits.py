"""Divisions of a log: nothing lost, nothing twice, the promised numbers held out, and never the future in training."""

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
    return Interactions(
        users=taking[order].astype(np.int32),
        items=taken[order].astype(np.int32),
        times=times,
        num_users=users,
        num_items=items,
    )


def keys(pairs: Interactions) -> list[tuple[int, int, int]]:
    times = np.zeros(len(pairs.users)) if pairs.times is None else pairs.times
    return list(zip(pairs.users.tolist(), pairs.items.tolist(), times.tolist(), strict=True))


def counts(pairs: Interactions) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.bincount(pairs.users, minlength=pairs.num_users)


def parts(split: Split) -> tuple[Interactions, Interactions, Interactions]:
    return split.training, split.validation, split.test


@given(seed=st.integers(0, 500), density=st.floats(0.01, 0.7), timed=st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_pair_is_in_one_part_and_keeps_its_order_and_time(seed: int, density: float, timed: bool) -> None:
    log = random_log(seed, users=30, items=40, density=density, moments=50 if timed else None)
    split = split_users(log, seed=seed)
    assert sorted(x for part in parts(split) for x in keys(part)) == sorted(keys(log))
    place = {pair: at for at, pair in enumerate(keys(log))}
    for part in parts(split):
        assert (part.times is None) == (not timed)
        at = [place[pair] for pair in keys(part)]
        assert at == sorted(at)


@given(seed=st.integers(0, 500), validation=st.sampled_from([0.0, 0.1, 0.2]), test=st.sampled_from([0.0, 0.1, 0.3]))
@settings(max_examples=40, deadline=None)
def test_users_give_up_as_many_pairs_as_the_protocol_says(seed: int, validation: float, test: float) -> None:
    log = random_log(seed, users=40, items=60, density=0.3)
    split = split_users(log, seed=seed, validation=validation, test=test)
    share, both = round(10 * (validation + test)), int(validation > 0) + int(test > 0)
    for n, kept, checked, tested in zip(counts(log), *(counts(part) for part in parts(split)), strict=True):
        held = 0 if n < 3 else both if n < 10 else share * n // 10
        assert kept == n - held
        assert checked + tested == held
        if n >= 10 and validation == test:
            assert checked == held // 2
        elif 3 <= n < 10:
            assert (checked, tested) == (int(validation > 0), int(test > 0))


def test_an_item_leaves_training_only_where_its_users_have_nothing_else_to_give() -> None:
    # Ten users share items 0 to 9; user u alone takes the items 10 + 2u and 11 + 2u, user 10 takes only items of its own.
    users = np.concatenate([np.repeat(np.arange(10), 12), np.full(4, 10)])
    own = [np.append(np.arange(10), [10 + 2 * u, 11 + 2 * u]) for u in range(10)]
    log = log_of(users, np.concatenate([*own, np.arange(30, 34)]), 11, 34)
    for seed in range(20):
        split = split_users(log, seed=seed, validation=0.1, test=0.2)
        kept = np.unique(split.training.items)
        assert set(range(30)) <= set(kept.tolist()), "every item somebody could spare a pair of stays known"
        assert counts(split.test)[10] == counts(split.validation)[10] == 1, (
            "and a user with nothing to spare is tested all the same"
        )


def test_what_is_held_out_is_drawn_at_random_and_by_the_seed() -> None:
    log = random_log(3, users=300, items=50, density=0.4)
    first, again, other = (split_users(log, seed=seed) for seed in (1, 1, 2))
    assert keys(first.test) == keys(again.test)
    assert keys(first.test) != keys(other.test)
    taking, taken = np.nonzero(np.random.default_rng(0).random((400, 40)) < np.linspace(0.05, 0.9, 40))
    skewed = log_of(taking, taken, 400, 40)
    popularity, tested = (
        np.bincount(x.items, minlength=40) / len(x.items) for x in (skewed, split_users(skewed, seed=1).test)
    )
    np.testing.assert_allclose(
        tested, popularity, atol=0.015, err_msg="items are tested about as often as they are taken"
    )


@given(
    seed=st.integers(0, 500), moments=st.integers(3, 400), validation=st.floats(0.05, 0.3), test=st.floats(0.05, 0.3)
)
@settings(max_examples=60, deadline=None)
def test_a_cut_in_time_never_trains_on_what_comes_later(
    seed: int, moments: int, validation: float, test: float
) -> None:
    log = random_log(seed, users=40, items=50, density=0.3, moments=moments)
    assert log.times is not None
    split = split_time(log, validation=validation, test=test)
    training, checked, tested = parts(split)
    assert training.times is not None and checked.times is not None and tested.times is not None
    known = set(training.users.tolist())
    assert {*checked.users.tolist(), *tested.users.tolist()} <= known
    kept = {x for part in parts(split) for x in keys(part)}
    assert len(kept) == sum(len(part.users) for part in parts(split))
    assert all(user not in known and time > training.times.max() for user, _, time in set(keys(log)) - kept)
    if len(checked.times) and len(tested.times):
        assert training.times.max() < checked.times.min() and checked.times.max() < tested.times.min()


def test_users_that_training_does_not_know_are_dropped_and_new_items_are_not() -> None:
    times = np.arange(10, dtype=np.int64)
    users = np.array([0, 0, 0, 1, 1, 1, 0, 2, 0, 2], np.int32)
    log = Interactions(users=users, items=np.arange(10, dtype=np.int32), times=times, num_users=3, num_items=10)
    split = split_time(log, validation=0.2, test=0.2)
    assert split.training.users.tolist() == [0, 0, 0, 1, 1, 1]
    assert (split.validation.items.tolist(), split.test.items.tolist()) == ([6], [8])


def test_what_cannot_be_cut_in_time_is_refused() -> None:
    with pytest.raises(ValueError, match="times: wanted a time for every pair"):
        split_time(log_of([0, 0, 0], [0, 1, 2], 1, 3))
    for times in ([], [5], [5, 5, 5, 5], [5, 5, 6, 6]):
        size = len(times)
        log = Interactions(
            users=np.zeros(size, np.int32),
            items=np.arange(size, dtype=np.int32),
            times=np.array(times, np.int64),
            num_users=1,
            num_items=9,
        )
        with pytest.raises(ValueError, match="times: wanted enough different ones"):
            split_time(log)
    assert [len(x.users) for x in parts(split_time(log, validation=0.0, test=0.5))] == [2, 0, 2]


@pytest.mark.parametrize(
    ("validation", "test", "said"), [(-0.1, 0.1, "validation"), (0.1, 1.0, "test"), (0.5, 0.5, r"validation \+ test")]
)
def test_shares_that_make_no_sense_are_refused(validation: float, test: float, said: str) -> None:
    log = random_log(0, users=5, items=9, density=0.5, moments=9)
    with pytest.raises(ValueError, match=f"^{said}: wanted"):
        split_users(log, seed=0, validation=validation, test=test)
    with pytest.raises(ValueError, match=f"^{said}: wanted"):
        split_time(log, validation=validation, test=test)

"""Split-half reliability: one where behaviour says the same twice, nothing where it says nothing."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.anchors.reliability import split_half_reliability
from rectifier_core.base.arrays import Float32
from rectifier_core.base.records import Interactions
from tests.support.core_samples import block_log, log_of


def reliability(log: Interactions, seed: int = 0, size: int = 4) -> Float32:
    return split_half_reliability(log, size, 2, np.random.default_rng(seed))


def test_a_log_that_says_everything_many_times_is_reliable() -> None:
    """Each pair often enough that either half holds it: both halves are the same graph up to the weights."""
    once = block_log(blocks=4, users=80, items=60, seed=0)
    users, items = (np.tile(side, 40) for side in (once.users, once.items))
    found = reliability(log_of(users, items, 80, 60))
    assert found.dtype == np.float32 and found.shape == (60,)
    assert found.min() > 0.97


def test_a_random_log_is_not() -> None:
    rng = np.random.default_rng(0)
    found = reliability(log_of(rng.integers(0, 400, 4000), rng.integers(0, 200, 4000), 400, 200), size=16)
    # The leading axis is popularity, which the halves share whatever is bought; the other fifteen are noise.
    assert abs(np.median(found)) < 0.6
    ordered = reliability(block_log(blocks=4, users=400, items=200, seed=0), size=4)
    assert np.median(ordered) > 0.9


def test_items_with_more_behind_them_are_more_reliable() -> None:
    """Half the items of every block keep all their takers, the other half two each."""
    full = block_log(blocks=3, users=300, items=90, seed=1)
    order = np.random.default_rng(0).permutation(len(full.users))
    seen = np.zeros(90, int)
    kept = []
    for pair in order:
        item = full.items[pair]
        seen[item] += 1
        if item < 45 or seen[item] <= 2:
            kept.append(pair)
    found = reliability(log_of(full.users[kept], full.items[kept], 300, 90), size=3)
    assert found[:45].mean() > found[45:].mean() + 0.1


def test_an_item_that_a_half_lacks_has_none() -> None:
    log = block_log(blocks=2, users=60, items=40, seed=0)
    left = (log.items != 7) & (log.items != 8)
    users, items = np.append(log.users[left], 3), np.append(log.items[left], 8)
    found = reliability(log_of(users, items, 60, 40))
    assert found[7] == 0, "never taken"
    assert found[8] == 0, "taken once: one half lacks it"
    once = reliability(log_of(users, items, 60, 40), size=30)
    assert once[7] == once[8] == 0, "nor with more axes than the log has"
    assert (np.delete(found, [7, 8]) > 0).all()


@given(
    pairs=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)), min_size=2, max_size=60), seed=st.integers(0, 99)
)
@settings(max_examples=30, deadline=None)
def test_it_is_a_cosine_whatever_the_log(pairs: list[tuple[int, int]], seed: int) -> None:
    log = log_of([user for user, _ in pairs], [item for _, item in pairs], 8, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = reliability(log, seed)
    assert np.isfinite(found).all() and (np.abs(found) <= 1).all()
    assert not found[np.bincount(log.items, minlength=10) < 2].any()
    assert found.tobytes() == reliability(log, seed).tobytes()


@pytest.mark.parametrize("count", [0, 1])
def test_next_to_no_pairs_are_no_error(count: int) -> None:
    assert not reliability(log_of([0] * count, [2] * count, 3, 5)).any()

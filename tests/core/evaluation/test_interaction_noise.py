"""Clicks that mean nothing, added to a log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.config import ClickKind
from rectifier_core.evaluation.interaction_noise import CLICK_KINDS, inject_clicks
from tests.support.core_samples import block_log, log_of


def keys(log: Interactions) -> list[int]:
    return [int(x) for x in log.users.astype(np.int64) * log.num_items + log.items]


@given(seed=st.integers(0, 300), share=st.floats(0, 0.5), kind=st.sampled_from(CLICK_KINDS))
@settings(max_examples=40, deadline=None)
def test_injected_pairs_are_new_different_and_as_many_as_asked(seed: int, share: float, kind: ClickKind) -> None:
    log = block_log(blocks=4, users=40, items=30, seed=seed)
    noisy = inject_clicks(log, kind, share, seed=seed)
    assert noisy.injected.sum() == round(share * len(log.users))
    assert not noisy.injected[: len(log.users)].any()
    np.testing.assert_array_equal(noisy.interactions.users[~noisy.injected], log.users)
    np.testing.assert_array_equal(noisy.interactions.items[~noisy.injected], log.items)
    assert len(set(keys(noisy.interactions))) == len(noisy.interactions.users)


def test_popular_clicks_follow_popularity_and_random_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.random((400, 60)) < np.linspace(0.02, 0.4, 60)
    wanted[0] = True
    log = log_of(*np.nonzero(wanted), 400, 60)
    popularity = np.bincount(log.items, minlength=60)
    by_kind = {}
    for kind in CLICK_KINDS:
        noisy = inject_clicks(log, kind, 0.3, seed=0)
        by_kind[kind] = np.corrcoef(np.bincount(noisy.interactions.items[noisy.injected], minlength=60), popularity)[
            0, 1
        ]
    assert by_kind["popular"] > 0.8
    # Popular items have fewer absent pairs, so even clicks lean a little the other way.
    assert by_kind["random"] < 0.1


def test_who_and_what_is_not_in_the_log_gets_no_clicks_and_times_are_the_logs_own() -> None:
    block = block_log(blocks=4, users=40, items=30, seed=0)
    times = np.arange(len(block.users), dtype=np.int64) % 7 + 100
    log = replace(log_of(block.users, block.items, 50, 35), times=times)
    noisy = inject_clicks(log, "random", 0.5, seed=0)
    assert noisy.interactions.users.max() < 40 and noisy.interactions.items.max() < 30
    assert noisy.interactions.times is not None
    assert set(noisy.interactions.times[noisy.injected].tolist()) <= set(range(100, 107))


def test_impossible_wishes_are_named() -> None:
    log = block_log(blocks=1, users=10, items=10, seed=0)
    with pytest.raises(ValueError, match=r"share: wanted at most half"):
        inject_clicks(log, "random", 0.9, seed=0)
    with pytest.raises(ValueError, match="share"):
        inject_clicks(log, "random", -0.1, seed=0)
    with pytest.raises(ValueError, match="kind"):
        inject_clicks(log, "loud", 0.1, seed=0)  # type: ignore[arg-type]
    # One item that everybody took holds nearly all clicks, and has no room for more.
    hoarded = log_of(np.r_[np.tile(np.arange(60), 50), 0], np.r_[np.zeros(3000, np.int32), 1], 60, 2)
    with pytest.raises(ValueError, match="popular items have room for"):
        inject_clicks(hoarded, "popular", 0.3, seed=0)
    assert inject_clicks(hoarded, "random", 0.3, seed=0).injected.sum() == 18

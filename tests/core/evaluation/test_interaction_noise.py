"""False clicks added to a log."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.pairs import pair_keys
from rectifier_core.evaluation.config import ClickKind
from rectifier_core.evaluation.interaction_noise import inject_clicks
from tests.support.core_samples import block_log, log_of

KINDS: tuple[ClickKind, ...] = get_args(ClickKind)


@given(seed=st.integers(0, 300), share=st.floats(0, 0.5), kind=st.sampled_from(KINDS))
@settings(max_examples=30, deadline=None)
def test_injected_pairs_are_new_and_distinct(seed: int, share: float, kind: ClickKind) -> None:
    log = block_log(blocks=4, users=40, items=30, seed=seed)
    noisy, injected = inject_clicks(log, kind, share, seed=seed)
    assert injected.sum() == round(share * len(log.users))
    np.testing.assert_array_equal(pair_keys(noisy)[: len(log.users)], pair_keys(log))
    assert not injected[: len(log.users)].any()
    assert len(np.unique(pair_keys(noisy))) == len(noisy.users)


def test_only_popular_clicks_follow_popularity() -> None:
    wanted = np.random.default_rng(0).random((400, 60)) < np.linspace(0.02, 0.4, 60)
    log = log_of(*np.nonzero(wanted), 400, 60)
    popularity, correlation = np.bincount(log.items, minlength=60), {}
    for kind in KINDS:
        noisy, injected = inject_clicks(log, kind, 0.3, seed=0)
        clicks = np.bincount(noisy.items[injected], minlength=60)
        correlation[kind] = np.corrcoef(clicks, popularity)[0, 1]
    # Popular items have fewer absent pairs, so even clicks lean a little the other way.
    assert correlation["popular"] > 0.8 and correlation["random"] < 0.1


def test_clicks_have_users_items_and_times_of_the_log() -> None:
    block = block_log(blocks=4, users=40, items=30, seed=0)
    times = np.arange(len(block.users), dtype=np.int64) % 7 + 100
    log = replace(log_of(block.users, block.items, 50, 35), times=times)
    noisy, injected = inject_clicks(log, "random", 0.5, seed=0)
    assert noisy.users.max() < 40 and noisy.items.max() < 30
    assert noisy.times is not None
    assert set(noisy.times[injected].tolist()) <= set(range(100, 107))


def test_a_share_without_enough_absent_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="share: too few random pairs are absent"):
        inject_clicks(block_log(blocks=1, users=10, items=10, seed=0), "random", 0.9, seed=0)
    # One item that everybody took gets nearly all clicks, and nobody is left who can take it.
    full = log_of(np.r_[np.tile(np.arange(60), 50), 0], np.r_[np.zeros(3000, np.int32), 1], 60, 2)
    with pytest.raises(ValueError, match="share: too few popular pairs are absent"):
        inject_clicks(full, "popular", 0.3, seed=0)
    assert inject_clicks(full, "random", 0.3, seed=0)[1].sum() == 18

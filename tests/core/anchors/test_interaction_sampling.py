"""Held-out pairs, membership and negatives, against sets and by their distribution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rectifier_core.anchors.interaction_sampling import NegativeSampler, PairSet, hold_out
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator
from tests.support.core_samples import block_log, log_of

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)), min_size=1, max_size=50, unique=True)


@pytest.fixture(scope="module")
def log() -> Interactions:
    return block_log(blocks=4, users=120, items=80, seed=0)


def pairs_of(log: Interactions) -> set[tuple[int, int]]:
    return set(zip(log.users.tolist(), log.items.tolist(), strict=True))


def log_from(pairs: list[tuple[int, int]]) -> Interactions:
    return log_of([user for user, _ in pairs], [item for _, item in pairs], 8, 10)


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS, share=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_holding_out_splits_the_pairs_and_leaves_everyone_one(
    pairs: list[tuple[int, int]], share: float, seed: int
) -> None:
    log = log_from(pairs)
    training, held = hold_out(log, share, generator(seed, "test"))
    assert pairs_of(training) | pairs_of(held) == set(pairs) and not pairs_of(training) & pairs_of(held)
    assert set(training.users.tolist()) == set(log.users.tolist())
    assert set(training.items.tolist()) == set(log.items.tolist())
    assert len(held.users) <= share * len(pairs)


def test_the_share_held_out_is_the_share_asked_for(log: Interactions) -> None:
    for share in (0.1, 0.3):
        assert len(hold_out(log, share, generator(0, "test"))[1].users) == int(share * len(log.users))


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS)
def test_a_pair_set_holds_its_pairs_and_no_other(pairs: list[tuple[int, int]]) -> None:
    held = PairSet(log_from(pairs + pairs[:2]))
    found = held.contains(np.arange(8, dtype=np.int32)[:, None], np.arange(10, dtype=np.int32)[None, :])
    assert {(int(u), int(i)) for u, i in zip(*np.nonzero(found), strict=True)} == set(pairs)


def test_negatives_are_uniform_over_what_the_user_did_not_take() -> None:
    """Items 20 to 29 are in nobody's log, so they are no candidates; user 1 has taken everything there is."""
    log = log_of([0] * 8 + [1] * 20 + [2], [*range(8), *range(20), 19], 3, 30)
    drawn = NegativeSampler(log)(np.repeat(np.array([0, 1, 2], np.int32), 12_000), generator(0, "test")).reshape(3, -1)
    counts = [np.bincount(row, minlength=30) for row in drawn]
    assert drawn.dtype == np.int32
    assert not counts[0][:8].any() and not counts[0][20:].any() and not counts[2][19:].any()
    assert chisquare(counts[0][8:20]).pvalue > 1e-3 and chisquare(counts[2][:19]).pvalue > 1e-3
    assert counts[1][:20].sum() == 12_000


def test_every_pair_is_as_likely_to_be_held_out() -> None:
    log = log_of([0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 3] * 2, 2, 4)
    times = np.zeros((2, 4))
    for seed in range(400):
        held = hold_out(log, 0.25, generator(seed, "test"))[1]
        times[held.users, held.items] += 1
    assert times.sum() == 800 and chisquare(times.ravel()).pvalue > 1e-3

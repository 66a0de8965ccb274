"""Paired tests, intervals and the correction for many comparisons."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rectifier_core.base.arrays import Float64
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.significance import (
    common_means,
    holm,
    interval,
    paired_bootstrap,
    ratio,
    relative_change,
    resampled_means,
    wilcoxon_paired,
)


def users_and_seeds(name: str, *, seeds: int = 5, users: int = 80) -> Float64:
    rng = generator(3, name)
    hard = rng.random(users)
    return 0.2 + 0.2 * hard + rng.normal(scale=0.01, size=(seeds, 1)) + rng.normal(scale=0.05, size=(seeds, users))


@pytest.mark.parametrize("seeds", [1, 2, 5, 8])
def test_wilcoxon_cannot_go_below_what_its_pairs_allow(seeds: int) -> None:
    below = np.arange(seeds, dtype=float)
    found = wilcoxon_paired(below + 1 + below / 10, below)
    assert found.p == found.smallest == 2.0 ** (1 - seeds)
    assert found.pairs == seeds


def test_five_seeds_never_reach_the_usual_level() -> None:
    assert wilcoxon_paired([9.0, 8.0, 7.5, 9.9, 11.0], np.zeros(5)).p == 0.0625


def test_wilcoxon_agrees_with_the_enumerated_signs() -> None:
    change = np.array([0.5, -0.1, 0.8, 0.3, -0.2, 0.9])
    ranks = np.argsort(np.argsort(np.abs(change))) + 1
    signs = np.array(np.meshgrid(*[[0, 1]] * 6)).reshape(6, -1).T
    sums = signs @ ranks
    seen = ranks[change > 0].sum()
    expected = min(1.0, 2 * min((sums >= seen).mean(), (sums <= seen).mean()))
    assert wilcoxon_paired(change, np.zeros(6)).p == pytest.approx(expected)


def test_wilcoxon_drops_pairs_without_a_difference() -> None:
    assert wilcoxon_paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).p == 1.0
    assert wilcoxon_paired([1.0, 2.0, 3.0, 4.1], [1.0, 1.5, 2.2, 3.0]).p == 0.25
    nothing = wilcoxon_paired([], [])
    assert nothing.pairs == 0 and np.isnan(nothing.p)


def test_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"two series of one length, got shapes \(2,\) and \(3,\)"):
        wilcoxon_paired([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"\(seeds, users\) of one shape, got \(5, 80\) and \(4, 80\)"):
        paired_bootstrap(users_and_seeds("a"), users_and_seeds("a")[:4], seed=0)
    with pytest.raises(ValueError, match=r"got \(5, 80\)"):
        resampled_means(users_and_seeds("a"), seed=0)
    with pytest.raises(ValueError, match="a seed without"):
        resampled_means(np.array([[[np.nan, 1.0], [1.0, 1.0]], [[1.0, np.nan], [1.0, 1.0]]]), seed=0)


def test_a_planted_gain_is_found_and_an_equal_pair_is_not() -> None:
    low, high = users_and_seeds("low"), users_and_seeds("low") + 0.02 + 0.02 * users_and_seeds("own")
    found = paired_bootstrap(high, low, seed=1, resamples=2000)
    assert found.mean == pytest.approx(float((high - low).mean()))
    assert 0 < found.low < found.mean < found.high
    assert found.p == 1 / 2001
    same = paired_bootstrap(low, low.copy(), seed=1, resamples=500)
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    back = paired_bootstrap(low, high, seed=1, resamples=2000)
    assert (back.mean, back.low, back.high, back.p) == pytest.approx((-found.mean, -found.high, -found.low, found.p))


def test_what_both_share_cancels() -> None:
    low = users_and_seeds("low")
    found = paired_bootstrap(low + 0.01, low, seed=1, resamples=500)
    assert found.high - found.low < 1e-12
    # Without the pairing the spread of the users alone would be far wider.
    alone = resampled_means(low[None], seed=1, resamples=500)[:, 0]
    assert np.ptp(alone) > 0.01


def test_the_replicates_spread_as_a_mean_over_seeds_does() -> None:
    """Each seed its own effect and users all alike: the interval of five values is Student's, not the normal one, 30 % narrower."""
    effects = generator(1, "effects").normal(size=5)
    replicates = resampled_means(np.repeat(effects[:, None], 30, axis=1)[None], seed=0, resamples=20_000)[:, 0]
    half = np.subtract(*np.quantile(replicates, [0.975, 0.025])) / 2
    assert half == pytest.approx(scipy.stats.t.ppf(0.975, 4) * effects.std(ddof=1) / np.sqrt(5), rel=0.1)
    assert np.median(replicates) == pytest.approx(effects.mean(), abs=0.05)


def test_the_replicates_spread_as_a_mean_over_users_does() -> None:
    values = np.repeat(generator(5, "users").normal(size=(1, 200)), 3, axis=0)
    replicates = resampled_means(values[None], seed=0, resamples=20_000)[:, 0]
    assert replicates.std() == pytest.approx(values[0].std() / np.sqrt(200), rel=0.03)


@pytest.mark.parametrize(("of_users", "least"), [(0.0, 0.02), (0.1, 0.0)])
@pytest.mark.parametrize("seeds", [2, 5])
def test_chance_alone_is_seldom_called_a_finding(seeds: int, of_users: float, least: float) -> None:
    """400 pairs without any difference: as often as the level says where seeds alone differ, less where users do too."""
    found = []
    for draw in range(400):
        rng = generator(draw, "null")
        a, b = (
            rng.normal(scale=0.02, size=(seeds, 1)) + rng.normal(scale=of_users, size=(seeds, 20)) for _ in range(2)
        )
        found.append(paired_bootstrap(a, b, seed=draw, resamples=200).p < 0.05)
    assert least <= np.mean(found) <= 0.085


def test_five_seeds_that_agree_are_no_proof_by_themselves() -> None:
    """Differences all above zero but far from each other: the plain bootstrap, which never crosses zero here, would give 1 / 10,001."""
    change = np.repeat(np.array([0.1, 0.9, 0.2, 1.8, 0.4])[:, None], 20, axis=1)
    assert 0.05 < paired_bootstrap(change, np.zeros_like(change), seed=0).p < 0.2


def test_users_that_one_lacks_count_for_none() -> None:
    a, b = users_and_seeds("a"), users_and_seeds("b")
    held, gone = a.copy(), b.copy()
    held[:, :10], gone[2, 40:] = np.nan, np.nan
    known = np.isfinite(held) & np.isfinite(gone)
    by_seed = [(held - gone)[s][known[s]].mean() for s in range(5)]
    found = paired_bootstrap(held, gone, seed=0, resamples=400)
    assert found.mean == pytest.approx(np.mean(by_seed))
    assert np.isfinite([found.low, found.high, found.p]).all()
    assert common_means(np.stack([held, gone]))[0] == pytest.approx(
        np.mean([held[s][known[s]].mean() for s in range(5)])
    )


def test_one_seed_speaks_of_the_users_alone() -> None:
    a, b = users_and_seeds("a", seeds=1), users_and_seeds("b", seeds=1)
    found = paired_bootstrap(a, b, seed=0, resamples=2000)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * (a - b).std() / np.sqrt(80), rel=0.1)


def test_relative_change_and_its_interval() -> None:
    low = users_and_seeds("low")
    found = relative_change(1.5 * low, low, seed=0, resamples=300)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    nothing = relative_change(low, np.zeros_like(low), seed=0, resamples=50)
    assert all(np.isnan(x) for x in (nothing.mean, nothing.low, nothing.high, nothing.p))
    assert np.array_equal(ratio([1.0, 2.0], [2.0, 0.0]), [0.5, np.nan], equal_nan=True)


def test_interval_of_known_replicates() -> None:
    replicates = np.arange(1001, dtype=float)
    found = interval(500.0, replicates)
    assert (found.low, found.high) == pytest.approx((25, 975))
    assert found.p == 3 / 1002  # 0 and 1000 lie as far off as zero does.
    assert interval(500.0, np.append(replicates, np.nan)) == found


def test_same_seed_same_replicates() -> None:
    values = np.stack([users_and_seeds("a"), users_and_seeds("b")])
    first, again, other = (resampled_means(values, seed=seed, resamples=100) for seed in (4, 4, 5))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_blocks_of_draws_cover_every_replicate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rectifier_core.evaluation.significance.BLOCK_DRAWS", 80 * 7)
    values = users_and_seeds("a")[None]
    replicates = resampled_means(values, seed=0, resamples=100)[:, 0]
    assert np.abs(np.median(replicates) - values.mean()) < 0.01 and len(np.unique(replicates)) == 100


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert np.array_equal(holm([0.02, np.nan, 0.01]), [0.02, np.nan, 0.02], equal_nan=True)
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_holm_keeps_order_and_never_lowers(p: list[float], order: object) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.asarray(p)).all() and (adjusted <= 1).all()
    ranked = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[ranked]) >= 0).all()
    shuffled = list(range(len(p)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert holm([p[at] for at in shuffled]) == pytest.approx(adjusted[shuffled])
    assert adjusted.min() == pytest.approx(min(1.0, len(p) * min(p)))


def test_without_student_the_draws_are_not_stretched() -> None:
    a, b = users_and_seeds("a", seeds=3), users_and_seeds("b", seeds=3)
    plain, stretched = (relative_change(a, b, seed=0, resamples=2000, student=student) for student in (False, True))
    assert plain.mean == stretched.mean
    assert plain.high - plain.low < 0.8 * (stretched.high - stretched.low)

"""Trust: the rate of planted mixtures, silence where nothing can be told, monotone in the score."""

from __future__ import annotations

import numpy as np
import pytest
from core_samples import normals, projection_of

from rectifier_core.numerics import separation
from rectifier_core.records import Float32, Projection
from rectifier_core.trust import TrustConfig, judge_trust, mismatch_rate


def scored(alignment: Float32, null: Float32) -> Projection:
    empty = np.zeros((len(alignment), 2), np.float32)
    return projection_of(empty, empty, alignment=alignment, null=null)


def mixture(
    seed: int, rate: float, *, items: int = 4000, gap: float = 4.0
) -> tuple[Float32, Float32, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Scores of which ``rate`` follow the null, the null itself, and which those are."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(items) < rate
    scores = (0.1 * normals(rng, items) + np.where(wrong, 0, 0.1 * gap)).astype(np.float32)
    return scores, (0.1 * normals(rng, 20_000)).astype(np.float32), wrong


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.3, 0.5])
def test_the_planted_rate_is_found_and_lies_in_its_interval(rate: float) -> None:
    inside = 0
    for seed in range(5):
        scores, null, wrong = mixture(seed, rate)
        trust = judge_trust(scored(scores, null), TrustConfig(), seed=seed)
        assert trust.identifiable
        assert trust.mismatch_rate == pytest.approx(wrong.mean(), abs=0.05)
        assert trust.low is not None
        assert trust.high is not None
        inside += trust.low - 0.02 <= wrong.mean() <= trust.high + 0.02
    assert inside >= 4


def test_no_mismatch_reads_as_about_none() -> None:
    scores, null, _ = mixture(1, 0.0)
    assert judge_trust(scored(scores, null), TrustConfig(), seed=0).mismatch_rate == pytest.approx(0, abs=0.005)


def test_the_interval_holds_as_wide_as_resampling_items_makes_it() -> None:
    scores, null, _ = mixture(2, 0.3, items=600)
    trust = judge_trust(scored(scores, null), TrustConfig(resamples=2000), seed=0)
    rng = np.random.default_rng(0)
    draws = [mismatch_rate(rng.choice(scores.astype(np.float64), len(scores)), null.astype(np.float64)) for _ in range(1000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    assert trust.low == pytest.approx(low, abs=0.01)
    assert trust.high == pytest.approx(high, abs=0.01)


def test_weak_alignment_gives_no_lower_bound() -> None:
    scores, null, _ = mixture(3, 0.0, gap=0.8)
    trust = judge_trust(scored(scores, null), TrustConfig(), seed=0)
    assert trust.identifiable
    assert trust.low == 0
    assert trust.high is not None
    assert trust.high > 0.1
    assert "too weakly" in trust.reason


def test_noise_is_not_identifiable_and_nothing_is_claimed() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        alignment, null = (0.1 * normals(rng, n) for n in (3000, 20_000))
        trust = judge_trust(scored(alignment.astype(np.float32), null.astype(np.float32)), TrustConfig(), seed=seed)
        assert not trust.identifiable
        assert trust.mismatch_rate is None
        assert trust.low is None
        assert trust.high is None
        assert np.isnan(trust.probability).all()
        assert "min_separation" in trust.reason


def test_too_few_items_are_not_judged() -> None:
    scores, null, _ = mixture(0, 0.1, items=60)
    trust = judge_trust(scored(scores, null), TrustConfig(), seed=0)
    assert not trust.identifiable
    assert "min_items" in trust.reason


def test_no_pair_at_all_is_no_error() -> None:
    nothing = np.full(5, np.nan, np.float32)
    assert not judge_trust(scored(nothing, np.zeros(0, np.float32)), TrustConfig(), seed=0).identifiable


def test_probability_rises_with_the_score_and_items_without_one_have_none() -> None:
    scores, null, wrong = mixture(4, 0.2)
    scores[:7] = np.nan
    trust = judge_trust(scored(scores, null), TrustConfig(), seed=0)
    assert np.isnan(trust.probability[:7]).all()
    order = np.argsort(scores[7:])
    assert (np.diff(trust.probability[7:][order]) >= 0).all()
    assert separation(trust.probability[7:][~wrong[7:]], trust.probability[7:][wrong[7:]]) > 0.95


@pytest.mark.parametrize(("field", "value"), [("min_items", 1), ("resamples", 1), ("min_separation", 0.4), ("sharp_separation", 1.0)])
def test_bad_settings_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        TrustConfig(**{field: value})  # type: ignore[arg-type]

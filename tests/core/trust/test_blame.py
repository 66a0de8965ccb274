"""The joint posterior of the modalities, against brute force and planted truth."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from rectifier_core.trust.blame import LEAST_RATE, assign_blame

ITEMS = 4000


def planted(rates: dict[str, float], seed: int, shift: float = 1.0, agreement: float = 3.0):
    """Log likelihood ratios of normal scores N(shift, 1) where right and N(0, 1) where wrong; and which features are wrong."""
    rng = np.random.default_rng(seed)
    wrong = {m: rng.random(ITEMS) < rate for m, rate in rates.items()}

    def ratio(right: np.ndarray, by: float) -> np.ndarray:
        return by * (rng.standard_normal(ITEMS) + by * right) - by**2 / 2

    behaviour = {m: ratio(~bad, shift) for m, bad in wrong.items()}
    names = list(rates)
    pairs = {(a, b): ratio(~wrong[a] & ~wrong[b], agreement) for i, a in enumerate(names) for b in names[i + 1 :]}
    return behaviour, pairs, wrong


@pytest.mark.parametrize("rates", [{"image": 0.1, "text": 0.3}, {"a": 0.05, "b": 0.2, "c": 0.4}, {"a": 0.0, "b": 0.25}])
@pytest.mark.parametrize("seed", range(3))
def test_planted_rates_are_found_and_lie_in_their_intervals(rates: dict[str, float], seed: int) -> None:
    behaviour, pairs, wrong = planted(rates, seed)
    found = assign_blame(behaviour, pairs)
    assert found is not None
    for m, bad in wrong.items():
        assert found.rate[m] == pytest.approx(bad.mean(), abs=0.03)
        assert found.low[m] - 0.01 <= bad.mean() <= found.high[m] + 0.01
        # Calibrated: of the items that are right with such a chance, so many are.
        likely = found.right[m] > 0.8
        assert (~bad[likely]).mean() == pytest.approx(found.right[m][likely].mean(), abs=0.03)


def test_a_right_feature_is_not_blamed_for_its_neighbour() -> None:
    """Behaviour says clearly that the text is right and the image wrong; the two do not fit each other."""
    behaviour, pairs, _ = planted({"image": 0.2, "text": 0.2}, 1)
    behaviour["image"][0], behaviour["text"][0], pairs["image", "text"][0] = -6.0, 6.0, -8.0
    found = assign_blame(behaviour, pairs)
    assert found is not None
    assert found.right["text"][0] > 0.98 and found.right["image"][0] < 0.01


def test_the_posterior_is_that_of_every_state_counted_out() -> None:
    behaviour, pairs, _ = planted({"a": 0.1, "b": 0.2, "c": 0.3}, 5)
    behaviour["a"][:50] = np.nan
    pairs["a", "b"][:20] = np.nan
    found = assign_blame(behaviour, pairs)
    assert found is not None
    names = ["a", "b", "c"]
    for item in range(0, 60, 7):
        total, right = 0.0, dict.fromkeys(names, 0.0)
        for state in product((0, 1), repeat=3):
            at = dict(zip(names, state, strict=True))
            weight = np.prod([1 - found.rate[m] if at[m] else found.rate[m] for m in names])
            weight *= np.exp(sum(np.nan_to_num(behaviour[m][item]) * at[m] for m in names))
            weight *= np.exp(sum(np.nan_to_num(x[item]) * at[p] * at[q] for (p, q), x in pairs.items()))
            total += weight
            for m in names:
                right[m] += weight * at[m]
        for m in names:
            assert found.right[m][item] == pytest.approx(right[m] / total, rel=1e-9)


def test_without_evidence_nothing_is_said() -> None:
    behaviour, pairs, _ = planted({"image": 0.1, "text": 0.1}, 2)
    pairs["image", "text"][:5] = np.nan
    found = assign_blame(behaviour, pairs)
    assert (
        found is not None and np.isnan(found.right["image"][:5]).all() and not np.isnan(found.right["image"][5:]).any()
    )
    assert assign_blame(behaviour, {}) is None
    clean = assign_blame({}, {("image", "text"): np.full(100, 8.0)})
    assert clean is not None and clean.rate["image"] == pytest.approx(LEAST_RATE, abs=1e-4) and clean.low["image"] == 0

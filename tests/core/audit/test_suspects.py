"""The list of suspects: its declared share of innocents, nesting, ties, and what it does not hide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rectifier_core.audit.suspects import suspects_at_fdr, worst
from rectifier_core.base.arrays import Float32

# Few distinct values, so that ties abound; NaN where an item cannot be judged.
PROBABILITIES = st.lists(st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.5, 0.9, 1.0, float("nan")]), max_size=60)


def array(values: list[float]) -> Float32:
    return np.array(values, np.float32)


@given(PROBABILITIES, st.floats(0, 1))
def test_the_list_is_the_longest_whose_mean_keeps_to_the_share(values: list[float], fdr: float) -> None:
    p = array(values)
    found = suspects_at_fdr(p, fdr)
    judged = np.sort(p[~np.isnan(p)]).astype(np.float64)
    assert found.judged == len(judged)
    # Oracle: every cut between different values, by brute force.
    cuts = [n for n in range(1, len(judged) + 1) if n == len(judged) or judged[n] > judged[n - 1]]
    assert len(found.rows) == max((n for n in cuts if judged[:n].mean() <= fdr), default=0)
    assert sorted(p[found.rows].tolist()) == judged[: len(found.rows)].tolist()
    if len(found.rows):
        assert p[found.rows].mean(dtype=np.float64) <= fdr
        np.testing.assert_allclose(found.innocent_share[-1], judged[: len(found.rows)].mean())


@given(PROBABILITIES, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_only_adds(values: list[float], one: float, other: float) -> None:
    p = array(values)
    short, long = (suspects_at_fdr(p, x).rows.tolist() for x in sorted((one, other)))
    assert long[: len(short)] == short


@given(PROBABILITIES, st.floats(0, 1))
def test_the_list_does_not_depend_on_the_order_of_the_catalog(values: list[float], fdr: float) -> None:
    p = array(values)
    order = np.random.Generator(np.random.PCG64(len(values))).permutation(len(p))
    listed = set(order[suspects_at_fdr(p[order], fdr).rows].tolist())
    assert listed == set(suspects_at_fdr(p, fdr).rows.tolist())


def test_ties_stand_together_or_not_at_all() -> None:
    p = array([0.2, 0.0, 0.2, 0.2])
    assert suspects_at_fdr(p, 0.1).rows.tolist() == [1]
    assert suspects_at_fdr(p, 0.151).rows.tolist() == [1, 0, 2, 3]


def test_the_worst_come_first_and_nothing_unjudged_is_listed() -> None:
    p = array([0.9, float("nan"), 0.1, 0.4])
    found = worst(p, 2)
    assert found.rows.tolist() == [2, 3]
    np.testing.assert_allclose(found.innocent_share, [0.1, 0.25], atol=1e-6)
    assert worst(p, 99).rows.tolist() == [2, 3, 0]
    assert len(worst(p, 0).rows) == len(suspects_at_fdr(array([float("nan")] * 3), 1.0).rows) == 0


def test_realised_innocents_match_what_was_declared_when_probabilities_are_calibrated() -> None:
    rng = np.random.Generator(np.random.PCG64(4))
    p = rng.beta(0.4, 0.3, 60_000).astype(np.float32)
    own = rng.random(len(p)) < p
    for fdr in (0.05, 0.1, 0.2):
        rows = suspects_at_fdr(p, fdr).rows
        assert own[rows].mean() == pytest.approx(fdr, abs=0.01)


@pytest.mark.parametrize("fdr", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_share(fdr: float) -> None:
    with pytest.raises(ValueError, match="fdr"):
        suspects_at_fdr(array([0.5]), fdr)
    with pytest.raises(ValueError, match="top"):
        worst(array([0.5]), -1)

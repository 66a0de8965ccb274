"""The report's summaries against plain definitions: concentration, thinned curves, histograms, use of features, numbers in phrases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rectifier_core.base.records import Affinity
from tasks.report import phrases
from tasks.report.summaries import (
    Array,
    concentration,
    curve,
    histogram,
    paired_histograms,
    tidy,
    top_k_use,
)
from tasks.store.saved_records import save_record
from tasks.store.store import StageStore

COUNTS = hnp.arrays(np.float64, st.integers(1, 400), elements=st.integers(0, 50).map(float))
SERIES = hnp.arrays(np.float64, st.integers(0, 900), elements=st.floats(-1e6, 1e6))


@given(COUNTS)
def test_concentration_is_what_its_definitions_say(use: Array) -> None:
    found = concentration(use)
    if use.sum() == 0:
        assert found is None
        return
    assert found is not None
    pairwise = np.abs(use[:, None] - use[None, :]).sum() / (2 * len(use) * use.sum())
    assert found["gini"] == pytest.approx(pairwise, abs=1e-5)
    assert found["max_over_mean"] == pytest.approx(use.max() / use.mean(), rel=1e-5)
    top = -(-len(use) // 100)
    assert found["top_share"] == pytest.approx(np.sort(use)[-top:].sum() / use.sum(), rel=1e-5)
    assert found["never_used"] == (use == 0).sum()
    assert found["features"] == len(use)
    rank, height = found["curve"]["rank"], found["curve"]["use"]
    assert rank[0] == 1
    assert rank[-1] == len(use)
    assert len(rank) <= 200
    assert (np.diff(height) <= 0).all()


@given(SERIES)
@settings(max_examples=60)
def test_thinned_curves_keep_their_ends_and_extremes(values: Array) -> None:
    found = curve(values, start=1)
    assert len(found["x"]) == len(found["y"]) <= 200
    assert found["length"] == len(values)
    if len(values):
        assert found["x"][0] == 1
        assert found["x"][-1] == len(values)
        assert (min(found["y"]), max(found["y"])) == (tidy(values.min()), tidy(values.max()))
        assert found["y"] == [tidy(values[x - 1]) for x in found["x"]]


@given(SERIES, SERIES)
@settings(max_examples=60)
def test_paired_histograms_share_bins_and_lose_nothing(one: Array, other: Array) -> None:
    matched, null = paired_histograms(one, other)
    assert matched["edges"] == null["edges"]
    assert sorted(matched["edges"]) == matched["edges"]
    assert (sum(matched["counts"]), sum(null["counts"])) == (matched["total"], null["total"]) == (len(one), len(other))


def test_histogram_leaves_out_what_is_not_finite() -> None:
    found = histogram(np.array([np.nan, 0.0, 0.49, 0.5, 1.0, np.inf], np.float32), 0.0, 1.0, bins=2)
    assert found == {"edges": [0.0, 0.5, 1.0], "counts": [2, 2], "total": 4}


def test_use_of_features_counts_picks_and_softmax_weights(tmp_path: Path) -> None:
    neighbours = np.array([[0, 1], [1, -1], [-1, -1], [1, 3]], np.int32)
    scores = np.array([[2, 1], [5, -np.inf], [-np.inf, -np.inf], [0, 0]], np.float32)
    affinity = Affinity(modality="image", neighbours=neighbours, scores=scores, recall=1.0, index="flat")
    ref = StageStore(tmp_path).once("affinity", (), lambda writer: save_record(writer, affinity))
    picked, softmax, rows = top_k_use(ref)
    first = np.e / (1 + np.e)
    np.testing.assert_allclose(picked, [0.5, 1.5, 0, 0.5])
    np.testing.assert_allclose(softmax, [first, (1 - first) + 1 + 0.5, 0, 0.5], rtol=1e-6)
    assert rows == 3


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (phrases.percent(0.208), "21 %"),
        (phrases.percent(0.0004), "< 0.1 %"),
        (phrases.percent(0.9996), "> 99.9 %"),
        (phrases.percent(1.0), "100 %"),
        (phrases.percent(None), "–"),
        (phrases.share_of(587, 1682, "items"), "587 of 1,682 items (35 %)"),
        (phrases.number(1_000_003.0), "1,000,003"),
        (phrases.number(1234.5), "1,234"),
        (phrases.number(float("nan")), "–"),
        (phrases.compared(0.000661101, 0.25), "0.0006611"),
        (phrases.compared(0.9000001, 0.9), "0.9000001"),
        (phrases.compared(0.9, 0.90000000001), "0.90000000000000002"),
        (phrases.compared(None, 0.9), "–"),
        (phrases.duration(0.417), "0.42 s"),
        (phrases.duration(187), "3 min 07 s"),
        (phrases.duration(7499), "2 h 05 min"),
        (phrases.size(812 << 20), "812 MiB"),
        (phrases.trust(0.0004), "< 0.001"),
    ],
)
def test_numbers_as_text(text: str, wanted: str) -> None:
    assert text.replace("\u00a0", " ") == wanted

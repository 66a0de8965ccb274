"""The report's summaries against plain definitions: concentration, thinned curves, histograms, use of features, numbers in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rectifier_core.base.records import Affinity
from tasks.report import phrases as words
from tasks.report.summaries import (
    Array,
    concentration,
    count_codes,
    curve,
    histogram,
    paired_histograms,
    stream,
    tidy,
    top_k_use,
)
from tasks.store.saved_records import save_record
from tasks.store.store import StageStore, StageWriter

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


def test_streaming_covers_every_row_once_whatever_the_block(tmp_path: Path) -> None:
    rows = np.arange(77 * 3, dtype=np.float32).reshape(77, 3)
    codes = np.arange(77, dtype=np.int8) % 4

    def build(writer: StageWriter) -> None:
        writer.array("rows", rows)
        writer.array("codes", codes)
        writer.meta({})

    ref = StageStore(tmp_path).once("rows", (), build)
    for block_bytes in (1, 100, 1 << 20):
        blocks = list(stream(ref, "rows", block_bytes=block_bytes))
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), rows)
        assert [block.start for block, _ in blocks] == [0, *[block.stop for block, _ in blocks][:-1]]
    np.testing.assert_array_equal(count_codes(ref, "codes", size=5), np.bincount(codes, minlength=5))


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (words.percent(0.208), "21 %"),
        (words.percent(0.042), "4.2 %"),
        (words.percent(0.0004), "< 0.1 %"),
        (words.percent(0.9996), "> 99.9 %"),
        (words.percent(1.0), "100 %"),
        (words.percent(None), "–"),
        (words.share_of(587, 1682, "items"), "587 of 1,682 items (35 %)"),
        (words.share_of(0, 0, "items"), "0 of 0 items"),
        (words.number(1_000_003.0), "1,000,003"),
        (words.number(0.62134, 6), "0.62134"),
        (words.number(1234.5), "1,234"),
        (words.number(float("nan")), "–"),
        (words.compared(0.000661101, 0.25), "0.0006611"),
        (words.compared(0.9000001, 0.9), "0.9000001"),
        (words.compared(0.9, 0.90000000001), "0.90000000000000002"),
        (words.compared(5.0, 5.0), "5"),
        (words.compared(None, 0.9), "–"),
        (words.duration(0.417), "0.42 s"),
        (words.duration(187), "3 min 07 s"),
        (words.duration(7499), "2 h 05 min"),
        (words.size(812 << 20), "812 MiB"),
        (words.size(1536), "1.5 KiB"),
        (words.trust(0.0004), "< 0.001"),
        (words.trust(0.0), "0.000"),
    ],
)
def test_numbers_in_words(said: str, wanted: str) -> None:
    assert said.replace("\u00a0", " ") == wanted

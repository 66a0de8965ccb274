"""Segments: planted wrong ones are found and mended, right ones stay, and nothing is judged without evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.arrays import Bool, Float32, Float64, Int64
from rectifier_core.base.numerics import separation, unit_rows
from rectifier_core.base.records import Anchors
from rectifier_core.base.sequence_records import Segments
from rectifier_core.sequences.config import SegmentsConfig
from rectifier_core.sequences.consensus import leave_one_out
from rectifier_core.sequences.segment_pooling import mend_segments, pool_segments
from rectifier_core.sequences.segments import judge_segments
from tests.support.core_samples import anchors_of, normals, random_units

CONFIG = SegmentsConfig(ridge_grid=(0.1, 1.0), min_items=50)


@dataclass(frozen=True)
class Sequences:
    anchors: Anchors
    segments: Float32
    offsets: Int64
    wrong: Bool
    clean: Float32

    @property
    def item(self) -> Int64:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def pooled(self, segments: Float32) -> Float32:
        mean = np.zeros((len(self.offsets) - 1, segments.shape[1]), np.float32)
        for i in np.flatnonzero(np.diff(self.offsets)):
            mean[i] = segments[self.offsets[i] : self.offsets[i + 1]].mean(axis=0, dtype=np.float64)
        return mean


def sequences(seed: int, *, items: int = 500, share: float = 0.3) -> Sequences:
    """Items of 0 to 12 segments that see anchor, own look and noise; a run of up to two fifths of ``share`` of them is another's."""
    rng = np.random.default_rng(seed)
    units = random_units(rng, items, 8)
    counts = rng.integers(1, 13, items)
    counts[:5] = 0
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    item = np.repeat(np.arange(items), counts)
    base = units @ normals(rng, 8, 24) + 0.6 * normals(rng, items, 24) + 0.5
    clean = (base[item] + 0.8 * normals(rng, len(item), 24)).astype(np.float32) * 3
    source = np.arange(len(item))
    spliced = rng.permutation(np.flatnonzero(counts >= 3))[: round(share * items)]
    for i, other in zip(spliced, np.roll(spliced, 1), strict=True):
        run = rng.integers(1, 1 + int(0.4 * counts[i]))
        at = offsets[i] + rng.integers(0, counts[i] - run + 1)
        source[at : at + run] = offsets[other] + np.arange(run) % counts[other]
    trained = np.ones(items, np.bool_)
    trained[-20:] = False
    return Sequences(
        anchors=anchors_of(units, trained),
        segments=clean[source],
        offsets=offsets,
        wrong=source != np.arange(len(item)),
        clean=clean,
    )


def judge(world: Sequences, config: SegmentsConfig = CONFIG, seed: int = 0) -> Segments:
    return judge_segments("video", world.segments, world.offsets, world.anchors, config, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_planted_segments_are_found_and_the_probabilities_hold(seed: int) -> None:
    world = sequences(seed)
    found = judge(world, seed=seed)
    known = ~np.isnan(found.probability)
    assert found.identifiable
    assert separation(found.probability[known & ~world.wrong], found.probability[known & world.wrong]) > 0.95
    assert found.wrong_rate == pytest.approx(world.wrong.mean(), abs=0.03)
    doubt = 1 - found.probability[known]
    bins = np.minimum((doubt * 5).astype(int), 4)
    error = sum(
        abs(doubt[bins == k].mean() - world.wrong[known][bins == k].mean()) * (bins == k).mean()
        for k in np.unique(bins)
    )
    assert error < 0.03


def test_companions_find_more_than_the_anchor_alone() -> None:
    world = sequences(1)
    found = judge(world)
    both = ~np.isnan(found.alignment) & ~np.isnan(found.consensus)
    auc = {
        name: separation(value[both & ~world.wrong], value[both & world.wrong])
        for name, value in (
            ("anchor", found.alignment),
            ("companions", found.consensus),
            ("together", found.probability),
        )
    }
    assert auc["companions"] > auc["anchor"] > 0.7
    assert auc["together"] >= auc["companions"]


@pytest.mark.parametrize("seed", range(3))
def test_clean_sequences_are_left_alone(seed: int) -> None:
    world = sequences(seed, share=0.0)
    found = judge(world, seed=seed)
    assert found.wrong_rate is not None
    assert found.wrong_rate < 0.01
    assert (found.probability < CONFIG.doubtful).mean() < 0.005


@pytest.mark.parametrize("seed", range(3))
def test_without_behaviour_nothing_is_claimed_and_nothing_changes(seed: int) -> None:
    world = sequences(seed)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(world.anchors.trained))
    dealt = world.anchors.items.copy()
    dealt[np.sort(order)] = dealt[order]
    found = judge(replace(world, anchors=replace(world.anchors, items=dealt)), seed=seed)
    assert (found.identifiable, found.wrong_rate) == (False, None)
    assert np.isnan(found.probability).all()
    assert "min_separation" in found.reason
    plain, everyone = world.pooled(world.segments), slice(0, len(world.offsets) - 1)
    pooled = pool_segments(plain, world.segments, world.offsets, found.probability, everyone, 0.5)
    mended = mend_segments(pooled, world.segments, world.offsets, found.probability, everyone, 0.5)
    assert pooled.tobytes() == plain.tobytes()
    assert mended.tobytes() == world.segments.tobytes()


def test_few_items_are_not_judged() -> None:
    world = sequences(0, items=60)
    found = judge(world, SegmentsConfig())
    assert not found.identifiable
    assert "fewer than min_items = 100" in found.reason


def test_only_segments_without_any_score_are_nan() -> None:
    world = sequences(3)
    found = judge(world)
    counts, trained = np.diff(world.offsets)[world.item], world.anchors.trained[world.item]
    assert np.array_equal(np.isnan(found.alignment), ~trained)
    assert np.array_equal(np.isnan(found.consensus), counts == 1)
    assert np.array_equal(np.isnan(found.probability), ~trained & (counts == 1))
    assert np.isnan(found.probability).any()


@pytest.mark.parametrize("block_rows", [1, 37])
def test_block_size_does_not_matter(block_rows: int) -> None:
    world = sequences(0, items=150)
    whole, cut = judge(world), judge(world, replace(CONFIG, block_rows=block_rows))
    np.testing.assert_allclose(cut.probability, whole.probability, atol=2e-3)
    np.testing.assert_allclose(cut.consensus, whole.consensus, atol=1e-3)
    assert cut.ridge == whole.ridge


def test_the_same_again_and_another_seed() -> None:
    world = sequences(0, items=150)
    first, again, other = judge(world), judge(world), judge(world, seed=1)
    assert first.probability.tobytes() == again.probability.tobytes()
    assert first.probability.tobytes() != other.probability.tobytes()


def test_a_sample_serves_for_the_fits() -> None:
    world = sequences(1, items=900)
    whole, sampled = judge(world), judge(world, replace(CONFIG, sample=1500))
    assert len(world.segments) > 3 * 1500
    for found in (whole, sampled):
        assert separation(found.evidence[~world.wrong & ~np.isnan(found.evidence)], found.evidence[world.wrong]) > 0.93


def test_pooling_and_mending_come_nearer_to_the_clean_sequence() -> None:
    world = sequences(2)
    found, everyone = judge(world), slice(0, len(world.offsets) - 1)
    plain, clean = world.pooled(world.segments), world.pooled(world.clean)
    pooled = pool_segments(plain, world.segments, world.offsets, found.probability, everyone, CONFIG.doubtful)
    mended = mend_segments(pooled, world.segments, world.offsets, found.probability, everyone, CONFIG.doubtful)
    hit = np.unique(world.item[world.wrong])

    def far(left: Float32, right: Float32) -> float:
        return float(1 - np.einsum("ij,ij->i", unit_rows(left), unit_rows(right)).mean())

    assert far(pooled[hit], clean[hit]) < 0.6 * far(plain[hit], clean[hit])
    assert far(mended[world.wrong], world.clean[world.wrong]) < far(
        world.segments[world.wrong], world.clean[world.wrong]
    )
    doubtful = found.probability < CONFIG.doubtful
    touched = np.zeros(len(clean), np.bool_)
    touched[world.item[doubtful]] = True
    assert pooled[~touched].tobytes() == plain[~touched].tobytes()
    assert mended[~doubtful].tobytes() == world.segments[~doubtful].tobytes()
    np.testing.assert_allclose(np.linalg.norm(mended, axis=1), np.linalg.norm(world.segments, axis=1), rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_pooling_and_mending_in_any_runs_of_items(seed: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    segments, probability = normals(rng, int(offsets[-1]), 3), rng.random(int(offsets[-1]), dtype=np.float32)
    probability[rng.random(len(probability)) < 0.2] = np.nan
    features, everyone = normals(rng, len(counts), 3), slice(0, len(counts))
    pooled = pool_segments(features, segments, offsets, probability, everyone, 0.5)
    mended = mend_segments(pooled, segments, offsets, probability, everyone, 0.5)
    pieces = [slice(i, i + 1) for i in range(len(counts))]
    assert (
        np.concatenate([pool_segments(features, segments, offsets, probability, x, 0.5) for x in pieces]).tobytes()
        == pooled.tobytes()
    )
    assert (
        np.concatenate([mend_segments(pooled, segments, offsets, probability, x, 0.5) for x in pieces]).tobytes()
        == mended.tobytes()
    )
    for i, count in enumerate(counts):
        own = slice(int(offsets[i]), int(offsets[i + 1]))
        doubt = probability[own] < 0.5
        if doubt.all() or not doubt.any():
            assert pooled[i].tobytes() == features[i].tobytes()
            assert mended[own].tobytes() == segments[own].tobytes()
        elif count:
            np.testing.assert_allclose(pooled[i], segments[own][~doubt].mean(axis=0), atol=1e-6)


def test_a_rectified_feature_mends_an_item_without_any_trusted_segment() -> None:
    segments = np.array([[2, 0], [0, 3], [4, 0]], np.float32)
    offsets, probability = np.array([0, 2, 3], np.int64), np.array([0.25, 0.0, 0.9], np.float32)
    pooled, both = np.array([[0, 5], [1, 1]], np.float32), slice(0, 2)
    untouched = mend_segments(pooled, segments, offsets, probability, both, 0.5)
    mended = mend_segments(pooled, segments, offsets, probability, both, 0.5, known=np.array([True, False]))
    assert untouched.tobytes() == segments.tobytes()
    np.testing.assert_allclose(mended[0], 2 * np.array([0.25, 0.75]) / np.hypot(0.25, 0.75), rtol=1e-6)
    np.testing.assert_allclose(mended[1:], [[0, 3], [4, 0]], rtol=1e-6)


def test_a_sequence_that_is_swapped_whole_hides_no_splice() -> None:
    world = sequences(3)
    counts, items = np.diff(world.offsets), len(world.offsets) - 1
    moved = np.random.default_rng(0).permutation(np.flatnonzero(counts))[: items // 5]
    source = np.arange(items)
    source[moved] = np.roll(moved, 1)
    rows = np.concatenate([np.arange(world.offsets[i], world.offsets[i + 1]) for i in source])
    offsets = np.concatenate([[0], np.cumsum(counts[source])]).astype(np.int64)
    dealt = replace(world, segments=world.segments[rows], offsets=offsets, wrong=world.wrong[rows])
    found = judge(dealt)
    known = ~np.isnan(found.probability)
    assert separation(found.probability[known & ~dealt.wrong], found.probability[known & dealt.wrong]) > 0.93
    assert found.wrong_rate == pytest.approx(dealt.wrong.mean(), abs=0.04)


def test_leave_one_out_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    offsets = np.array([0, 1, 5, 8, 8], np.int64)
    rows, stand_ins, places = random_units(rng, 8, 4), random_units(rng, 3, 4), np.array([0, 2, 7])
    found = leave_one_out(rows, offsets, np.zeros(8), places, stand_ins, None, 0, 100)
    assert np.isnan(found.score[0]) and np.isnan(found.null[0])
    for s in range(1, 8):
        own = range(1, 5) if s < 5 else range(5, 8)
        centre = unit_rows(np.sum([rows[j] for j in own if j != s], axis=0)[None])[0]
        assert found.score[s] == pytest.approx(float(rows[s] @ centre), abs=1e-5)
        assert found.companions[s] == len(own) - 1
        if s in (2, 7):
            assert found.null[places.tolist().index(s)] == pytest.approx(
                float(stand_ins[places.tolist().index(s)] @ centre), abs=1e-5
            )


def test_companions_weights_do_not_depend_on_the_segment_itself() -> None:
    rng = np.random.default_rng(1)
    rows, offsets = random_units(rng, 6, 4), np.array([0, 6], np.int64)
    other = rows.copy()
    other[2] = random_units(rng, 1, 4)[0]

    def weigh(prior: Float64, consensus: Float64, companions: Float64) -> Float64:
        weight: Float64 = 1 / (1 + np.exp(-4 * np.nan_to_num(consensus) - prior))
        return weight

    place = np.array([2])
    here = leave_one_out(rows, offsets, np.zeros(6), place, other[place], weigh, 3, 100)
    there = leave_one_out(other, offsets, np.zeros(6), place, rows[place], weigh, 3, 100)
    # The stand-in scores in a place exactly what it scores when it really stands there.
    assert here.null[0] == pytest.approx(there.score[2], abs=1e-6)
    assert there.null[0] == pytest.approx(here.score[2], abs=1e-6)
    assert here.score[1] != pytest.approx(there.score[1], abs=1e-3)


def test_arrays_that_do_not_fit_are_rejected() -> None:
    world = sequences(0, items=60)
    wide: Any = world.segments.astype(np.float64)
    for broken, message in (
        (replace(world, offsets=world.offsets[:-1]), "offsets: wanted int64"),
        (replace(world, offsets=world.offsets + 1), "wanted to rise from 0"),
        (replace(world, segments=wide), "segments: wanted float32"),
    ):
        with pytest.raises(ValueError, match=message):
            judge(broken)

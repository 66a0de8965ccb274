"""Trust on planted worlds: who is mixed up and how many, what a second modality adds, and silence where nothing can be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.base.arrays import Int32
from rectifier_core.base.numerics import separation
from rectifier_core.base.records import Projection, Trust
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.corruption import damage_features
from rectifier_core.pipeline import Judged, judge_catalog, rectify_catalog
from rectifier_core.projection.config import CrossModalConfig, ProjectionConfig
from rectifier_core.trust.config import TrustConfig
from rectifier_core.trust.trust import estimate_trust
from tests.support.core_samples import Scene, anchors_of, log_of, planted_scene

CONFIG = PipelineConfig(
    projection=ProjectionConfig(ridge_grid=(0.1, 1.0, 10.0)),
    affinity=AffinityConfig(num_neighbours=10),
    trust=TrustConfig(null_pairs=4000, resamples=20),
)
ALONE = replace(CONFIG, cross_modal=CrossModalConfig(enabled=False))
TWO = {"image": 1.0, "text": 1.0}


def judge(scene: Scene, config: PipelineConfig = CONFIG, seed: int = 0, category: Int32 | None = None) -> Judged:
    return judge_catalog(scene.catalog, scene.anchors, config, seed=seed, category=category)


def detection(scene: Scene, trust: Trust) -> float:
    """AUC of probability, own features against swapped ones, over the judged items."""
    judged, wrong = ~np.isnan(trust.probability), scene.wrong[trust.modality]
    return separation(trust.probability[judged & ~wrong], trust.probability[judged & wrong])


def row_shuffled(scene: Scene, *names: str) -> Scene:
    """The features of these modalities dealt out at random among the items that have one."""
    features = dict(scene.catalog.features)
    for at, name in enumerate(names):
        rows, rng = np.flatnonzero(scene.catalog.present[name]), np.random.default_rng(900 + at)
        features[name] = features[name].copy()
        features[name][rows] = features[name][rng.permutation(rows)]
    return replace(scene, catalog=replace(scene.catalog, features=features))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.4])
def test_the_planted_rate_is_found_in_both_modalities(share: float) -> None:
    for seed in range(2):
        scene = planted_scene(seed, TWO, share=share)
        for m, found in judge(scene, seed=seed).trusts.items():
            truth = float(scene.wrong[m].mean())
            assert (
                found.identifiable
                and found.mismatch_rate is not None
                and found.low is not None
                and found.high is not None
            )
            assert found.mismatch_rate == pytest.approx(truth, abs=0.06)
            assert found.low - 0.005 <= truth <= found.high
            assert found.mismatch_rate < 0.04 or share > 0, "no mix-up reads as about none"
            assert share == 0 or detection(scene, found) > 0.95


def test_cross_modal_evidence_helps_where_behaviour_is_weak() -> None:
    gain = []
    for seed in range(3):
        scene = planted_scene(seed, TWO, anchor_noise=2.0)
        alone, both = (judge(scene, config, seed).trusts for config in (ALONE, CONFIG))
        gain += [detection(scene, both[m]) - detection(scene, alone[m]) for m in TWO]
        for m in TWO:
            assert np.array_equal(alone[m].behaviour, both[m].behaviour)
            judged = ~np.isnan(both[m].cross_modal)
            assert (
                separation(both[m].cross_modal[judged & ~scene.wrong[m]], both[m].cross_modal[judged & scene.wrong[m]])
                > 0.6
            )
    assert np.mean(gain) > 0.07 and np.min(gain) > 0.03


def test_cross_modal_evidence_of_noise_does_no_harm() -> None:
    scene = row_shuffled(planted_scene(2, TWO), "text")
    found, alone = judge(scene).trusts, judge(scene, ALONE).trusts
    assert not found["text"].identifiable
    assert detection(scene, found["image"]) > detection(scene, alone["image"]) - 0.02
    assert found["image"].mismatch_rate == pytest.approx(0.2, abs=0.06)


def test_probability_is_calibrated() -> None:
    """The expected calibration error over ten bins, pooled over worlds in which the evidence is good, fair and weak."""
    said, own = [], []
    for seed in range(6):
        scene = planted_scene(seed, TWO, share=(0.1, 0.3)[seed % 2], anchor_noise=(0.3, 1.0, 2.0)[seed % 3])
        for m, found in judge(scene, seed=seed).trusts.items():
            said.append(found.probability)
            own.append(~scene.wrong[m])
    p, truth = np.concatenate(said), np.concatenate(own)
    bins = np.clip((10 * p).astype(int), 0, 9)
    error = sum(
        abs(p[bins == b].mean() - truth[bins == b].mean()) * (bins == b).mean() for b in range(10) if (bins == b).any()
    )
    assert error < 0.05


def test_features_dealt_at_random_are_never_judged_and_pass_bit_for_bit() -> None:
    for seed in range(10):
        scene = row_shuffled(planted_scene(seed, TWO, share=0.0, items=400), "text")
        outcome = rectify_catalog(scene.catalog, log_of([], [], 1, 400), CONFIG, seed=seed, anchors=scene.anchors)
        found = outcome.judged.trusts["text"]
        assert not found.identifiable and "min_separation" in found.reason
        assert (found.mismatch_rate, found.low, found.high, found.low_unlike, found.high_unlike) == (None,) * 5
        assert np.isnan(found.probability).all() and np.isnan(found.probability_upper).all()
        assert outcome.rectified.features["text"].tobytes() == scene.catalog.features["text"].tobytes()
        assert outcome.judged.trusts["image"].identifiable


def test_with_anchors_dealt_at_random_nothing_is_told_though_the_modalities_agree() -> None:
    """Two modalities that disagree about an item do not say which of them is wrong, and that they agree is no word from behaviour."""
    for seed in range(4):
        scene = planted_scene(seed, TWO)
        items = scene.anchors.items[np.random.default_rng(seed + 70).permutation(500)]
        found = judge(replace(scene, anchors=anchors_of(items)), seed=seed)
        between = found.cross_modal["image", "text"]
        assert separation(between.alignment, between.null_alignment) > 0.7
        for trust in found.trusts.values():
            assert (
                not trust.identifiable
                and trust.mismatch_rate is None
                and np.isnan(trust.probability).all()
                and trust.reason
            )


def test_rows_that_moved_as_a_whole_are_not_cleared_by_one_another() -> None:
    for seed in range(3):
        scene = planted_scene(seed, TWO, share=0.0, items=800)
        moved = np.random.default_rng(seed).permutation(800)[:160]
        rows = np.arange(800)
        rows[moved] = np.roll(moved, 1)
        features = {m: np.ascontiguousarray(x[rows]) for m, x in scene.catalog.features.items()}
        wrong = dict.fromkeys(features, rows != np.arange(800))
        whole = replace(scene, catalog=replace(scene.catalog, features=features), wrong=wrong)
        for trust in judge(whole, seed=seed).trusts.values():
            assert trust.low is not None and trust.high is not None
            assert trust.low <= 0.2 <= trust.high
            assert "look mismatched together" in trust.reason
            assert detection(whole, trust) > 0.85


def test_items_without_an_anchor_are_judged_by_the_other_modality_where_both_can_be_told() -> None:
    scene = planted_scene(4, TWO, items=600, untrained=100)
    cold = np.arange(600) >= 500
    for m, found in judge(scene).trusts.items():
        p, wrong = found.probability, scene.wrong[m]
        assert (
            not np.isnan(p[cold]).any()
            and np.isnan(found.behaviour[cold]).all()
            and not np.isnan(found.cross_modal[cold]).any()
        )
        assert (found.probability_upper[cold] >= p[cold]).all()
        # Which of the two is wrong stays open, so an item in doubt is in doubt by half.
        assert separation(p[cold & ~wrong], p[cold & wrong]) > 0.7
        assert abs(p[cold].mean() - (~wrong)[cold].mean()) < 0.1
    for m, found in judge(row_shuffled(scene, "text")).trusts.items():
        assert np.isnan(found.probability[cold]).all(), m
    for found in judge(scene, ALONE).trusts.values():
        assert np.isnan(found.probability[cold]).all() and not np.isnan(found.probability[~cold]).any()


@pytest.mark.parametrize("kind", ["few", "fine", "partly unknown", "unknown"])
def test_a_category_widens_the_interval_and_moves_nothing_else(kind: str) -> None:
    scene = planted_scene(5, TWO)
    rng = np.random.default_rng(0)
    category = {
        "few": (scene.anchors.items[:, 0] > 0).astype(np.int32),
        "fine": rng.integers(0, 100, 500).astype(np.int32),
        "partly unknown": np.where(rng.random(500) < 0.5, -1, rng.integers(0, 4, 500)).astype(np.int32),
        "unknown": np.full(500, -1, np.int32),
    }[kind]
    plain, told = judge(scene).trusts, judge(scene, category=category).trusts
    for m in TWO:
        before, after = plain[m], told[m]
        assert before.low is not None and before.high is not None and after.low is not None and after.high is not None
        assert after.low <= before.low and before.high <= after.high
        assert (after.mismatch_rate, after.low_unlike, after.high_unlike) == (
            before.mismatch_rate,
            before.low_unlike,
            before.high_unlike,
        )
        for field in ("probability", "probability_upper", "behaviour", "cross_modal"):
            assert getattr(after, field).tobytes() == getattr(before, field).tobytes()
        assert ("of one category" in after.reason) == (kind != "unknown")
        assert "one category" not in before.reason


def test_the_intervals_are_nested_and_alike_items_stretch_the_outer_one() -> None:
    wider = 0
    for seed in range(3):
        for found in judge(planted_scene(seed, TWO)).trusts.values():
            assert found.mismatch_rate is not None and found.low is not None and found.high is not None
            assert found.low_unlike is not None and found.high_unlike is not None
            assert 0 <= found.low <= found.low_unlike <= found.mismatch_rate <= found.high_unlike <= found.high <= 1
            wider += found.high > found.high_unlike
    assert wider >= 3


def test_swaps_within_groups_that_behaviour_shows_lie_in_the_stretched_interval() -> None:
    """What re-pairing anywhere counts low, for a swap among alike items is hard to see, the interval has to allow for."""
    inside = []
    for seed in range(4):
        scene = planted_scene(seed, TWO, share=0.0, items=800)
        groups = ((scene.anchors.items[:, :3] > 0) @ np.array([1, 2, 4])).astype(np.int32)
        features, wrong = dict(scene.catalog.features), dict(scene.wrong)
        for m in TWO:
            features[m], wrong[m] = damage_features(
                features[m], scene.catalog.present[m], "within", 0.2, seed=seed, name=m, groups=groups
            )
        damaged = replace(scene, catalog=replace(scene.catalog, features=features), wrong=wrong)
        for m, found in judge(damaged, seed=seed, category=groups).trusts.items():
            assert found.low is not None and found.high is not None
            inside.append(found.low <= wrong[m].mean() <= found.high)
    assert np.mean(inside) >= 7 / 8


@given(seed=st.integers(0, 1000), share=st.floats(0, 0.5), noise=st.floats(0.5, 6), items=st.integers(90, 400))
@settings(max_examples=12, deadline=None)
def test_whatever_the_world_the_record_is_whole(seed: int, share: float, noise: float, items: int) -> None:
    scene = planted_scene(seed, {"image": noise, "text": 1.0}, share=share, items=items, untrained=7, missing=0.1)
    for m, found in judge(scene, seed=seed).trusts.items():
        p = found.probability
        assert np.isnan(p[~scene.catalog.present[m]]).all()
        assert found.identifiable == (found.mismatch_rate is not None) == (~np.isnan(p)).any()
        assert np.array_equal(np.isnan(p), np.isnan(found.probability_upper))
        known = ~np.isnan(p)
        assert (found.probability_upper[known] >= p[known]).all()
        assert found.reason
        if found.identifiable:
            bounds = [found.low, found.low_unlike, found.mismatch_rate, found.high_unlike, found.high]
            assert bounds == sorted(bounds, key=lambda x: -1.0 if x is None else x)


def test_too_few_items_are_not_judged_and_the_reason_names_the_setting() -> None:
    scene = planted_scene(0, TWO, items=130)
    for found in judge(scene, replace(CONFIG, trust=replace(CONFIG.trust, min_items=131))).trusts.values():
        assert not found.identifiable and np.isnan(found.separation)
        assert "only 130 items" in found.reason and "min_items = 131" in found.reason
    assert all(found.identifiable for found in judge(scene).trusts.values())


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    scene = planted_scene(7, TWO, items=300)
    first, again, other = (judge(scene, seed=s).trusts["image"] for s in (1, 1, 2))
    assert first.probability.tobytes() == again.probability.tobytes() and first.low == again.low
    assert first.probability.tobytes() != other.probability.tobytes()


def test_the_order_of_the_modalities_changes_no_bit() -> None:
    scene = planted_scene(8, {**TWO, "audio": 1.0}, items=300, untrained=20)
    judged = judge(scene)
    turned: dict[str, Projection] = dict(reversed(judged.projections.items()))
    found = estimate_trust(turned, dict(reversed(judged.cross_modal.items())), scene.anchors, CONFIG.trust, seed=0)
    for m, trust in judged.trusts.items():
        np.testing.assert_allclose(found[m].probability, trust.probability, atol=1e-6)
        assert found[m].mismatch_rate == pytest.approx(trust.mismatch_rate, abs=1e-6)

"""The features that a recommender reads: each control does what its name says, at the strength of the rectification."""

from __future__ import annotations

import numpy as np
import pytest

from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.records import Anchors
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.variants import VARIANTS, Variant, make_features
from tests.support.core_samples import World, taste_world


@pytest.fixture(scope="module")
def world() -> World:
    return taste_world(share=0.3)


@pytest.fixture(scope="module")
def anchors(world: World) -> Anchors:
    return train_anchors(world.log, AnchorsConfig(embedding_size=16, epochs=5), seed=0)


@pytest.fixture(scope="module")
def variants(world: World, anchors: Anchors) -> dict[str, Variant]:
    return {name: make_features(name, world.catalog, world.log, anchors, PipelineConfig(), seed=0) for name in VARIANTS}


CONTROLS = ("shuffled_anchors", "smoothed", "smoothed_by_anchors")


@pytest.mark.parametrize("name", ["rectified", *CONTROLS])
def test_lengths_missing_rows_and_modalities_of_noise_stay(
    name: str, world: World, variants: dict[str, Variant]
) -> None:
    for m, raw in world.catalog.features.items():
        made = variants[name].features[m]
        np.testing.assert_allclose(np.linalg.norm(made, axis=1), np.linalg.norm(raw, axis=1), rtol=1e-4)
        assert not made[~world.catalog.present[m]].any()
    np.testing.assert_allclose(variants[name].features["noise"], world.catalog.features["noise"], atol=1e-5)


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_have_the_strength_of_the_rectification(name: str, variants: dict[str, Variant], world: World) -> None:
    for m in ("image", "Klang α"):
        strength = variants["rectified"].facts[f"strength_{m}"]
        assert strength > 0.05 and variants[name].facts[f"strength_{m}"] == pytest.approx(strength)
        assert (variants[name].features[m] != world.catalog.features[m]).any(axis=1).mean() > 0.5


def test_only_real_anchors_bring_wrong_features_nearer_to_their_own(
    world: World, anchors: Anchors, variants: dict[str, Variant]
) -> None:
    pristine = taste_world(share=0.0).catalog.features["Klang α"]
    wrong = world.wrong["Klang α"] & anchors.trained

    def nearness(name: str) -> float:
        made = variants[name].features["Klang α"]
        own, now = (x[wrong] / np.linalg.norm(x[wrong], axis=1, keepdims=True) for x in (pristine, made))
        return float((own * now).sum(axis=1).mean())

    assert nearness("rectified") > nearness("raw") + 0.2
    assert nearness("shuffled_anchors") < nearness("rectified") - 0.2


def test_appended_anchors_stand_behind_the_feature_at_its_length(
    world: World, anchors: Anchors, variants: dict[str, Variant]
) -> None:
    m = "image"
    raw, made, there = world.catalog.features[m], variants["anchors_appended"].features[m], world.catalog.present[m]
    np.testing.assert_array_equal(made[:, : raw.shape[1]], raw)
    assert made.shape[1] == raw.shape[1] + anchors.items.shape[1]
    behind = np.linalg.norm(made[:, raw.shape[1] :], axis=1)
    known = there & anchors.trained
    np.testing.assert_allclose(behind[known], np.linalg.norm(raw[there], axis=1).mean(), rtol=1e-4)
    assert not behind[~known].any()

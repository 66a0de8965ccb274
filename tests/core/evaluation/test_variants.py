"""What a recommender is handed: the controls do what their names say, at the strength of the rectification, and nothing more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.records import Anchors
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.variants import VARIANTS, Variant, make_features
from rectifier_core.rectify.config import RectifyConfig
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


@pytest.mark.parametrize("name", ["rectified", "shuffled_anchors", "smoothed", "smoothed_by_anchors"])
def test_lengths_and_missing_rows_stay_as_they_are(name: str, world: World, variants: dict[str, Variant]) -> None:
    for m, raw in world.catalog.features.items():
        made = variants[name].features[m]
        np.testing.assert_allclose(np.linalg.norm(made, axis=1), np.linalg.norm(raw, axis=1), rtol=1e-4)
        assert not made[~world.catalog.present[m]].any()


@pytest.mark.parametrize("name", ["shuffled_anchors", "smoothed", "smoothed_by_anchors"])
def test_controls_act_at_the_strength_of_the_rectification(
    name: str, variants: dict[str, Variant], world: World
) -> None:
    for m in ("image", "Klang α"):
        strength = variants["rectified"].facts[f"strength_{m}"]
        assert strength > 0.05
        assert variants[name].facts[f"strength_{m}"] == pytest.approx(strength)
        assert (variants[name].features[m] != world.catalog.features[m]).any(axis=1).mean() > 0.5


def test_where_nothing_can_be_told_no_control_acts(variants: dict[str, Variant], world: World) -> None:
    for name in ("rectified", "shuffled_anchors", "smoothed", "smoothed_by_anchors"):
        np.testing.assert_allclose(variants[name].features["noise"], world.catalog.features["noise"], atol=1e-5)


def test_rectification_brings_wrong_features_nearer_to_their_own_and_the_shuffled_control_does_not(
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


def test_a_config_that_keeps_everything_leaves_every_variant_of_it_alone(world: World, anchors: Anchors) -> None:
    config = replace(PipelineConfig(), rectify=RectifyConfig(mix="constant", keep_original=1.0))
    made = make_features("rectified", world.catalog, world.log, anchors, config, seed=0)
    for m, raw in world.catalog.features.items():
        np.testing.assert_array_equal(made.features[m], raw)
        assert made.facts[f"strength_{m}"] == 0

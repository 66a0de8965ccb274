"""The demo's world: popularity follows Zipf's law, taste can be learned, and swaps can be detected."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import separation, unit_rows
from tasks.demo.config import MODALITIES, DemoConfig
from tasks.demo.features import Features
from tasks.demo.truth import plant
from tasks.demo.world import DemoWorld, Events, build_world, draw_events

CONFIG = DemoConfig(items=3000, users=4800, interactions=120_000, seed=3, sequences=True, time_offset=2)


@pytest.fixture(scope="module")
def world() -> DemoWorld:
    return build_world(CONFIG)


@pytest.fixture(scope="module")
def events(world: DemoWorld) -> Events:
    return draw_events(world, CONFIG.num_interactions, np.random.default_rng(1))


@pytest.mark.parametrize("modality", ["image", "text", "video", "audio"])
def test_a_feature_is_the_same_in_any_block(world: DemoWorld, modality: str) -> None:
    features, items = Features(CONFIG, modality, world.taste), np.array([5, 2999, 0, 5, 1234])
    together = features.rows(items)
    for row, item in zip(together, items, strict=True):
        assert features.rows(np.array([item])).tobytes() == row.tobytes()


def test_scales_are_those_of_real_features(world: DemoWorld) -> None:
    image, text = (Features(CONFIG, m, world.taste).rows(np.arange(CONFIG.items)) for m in MODALITIES)
    low, high = np.percentile(np.linalg.norm(image, axis=1), [5, 95])
    assert 10 < low < high < 30
    assert image.min() == 0
    assert abs(np.linalg.norm(text, axis=1).mean() - 1) < 0.1


def test_popularity_is_zipf(events: Events) -> None:
    counts = np.sort(np.bincount(events.items, minlength=CONFIG.items))[::-1]
    assert 0.1 < counts[: CONFIG.items // 100].sum() / counts.sum() < 0.4
    ranks = np.arange(20, 1000)
    assert -1.4 < np.polyfit(np.log(ranks + 1), np.log(counts[ranks]), 1)[0] < -0.7


def test_users_keep_to_few_categories_and_rate_by_taste(world: DemoWorld, events: Events) -> None:
    pairs, counts = np.unique(events.users * 40 + world.category[events.items], return_counts=True)
    usual = sum(np.sort(counts[pairs // 40 == user])[-3:].sum() for user in range(200))
    activity = np.bincount(events.users, minlength=CONFIG.num_users)
    assert usual > 0.8 * activity[:200].sum()
    assert np.percentile(activity, 95) > 2 * np.median(activity)
    fit = np.einsum("ed,ed->e", world.taste[events.items], world.user_taste[events.users])
    chance = np.einsum("ed,ed->e", world.taste[events.items], world.user_taste[np.roll(events.users, 1)])
    assert fit.mean() > chance.mean() + 1
    assert fit[events.ratings >= 4].mean() > fit[events.ratings < 4].mean() + 0.5


def behaviour(events: Events) -> tuple[Float32, Bool]:
    """Unit item vectors from a truncated SVD of the positive interactions, and which items have any."""
    liked = np.unique(events.users[events.ratings >= 4] * CONFIG.items + events.items[events.ratings >= 4])
    shape = (CONFIG.num_users, CONFIG.items)
    matrix = csr_matrix((np.ones(len(liked)), (liked // CONFIG.items, liked % CONFIG.items)), shape=shape)
    seen = np.asarray(matrix.sum(axis=0)).ravel()
    rows = diags(np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1) ** -0.5)
    _, values, vectors = svds(rows @ matrix @ diags(np.maximum(seen, 1) ** -0.5), k=49, v0=np.ones(CONFIG.items))
    order = np.argsort(-values)[1:]
    return unit_rows((vectors[order].T * values[order]).astype(np.float32)), seen > 0


def out_of_fold(features: Float32, target: Float32) -> Float32:
    """Cosine of each target with its ridge prediction from a map fitted on the other folds, both centred. [N] float32."""
    fold, predicted = np.arange(len(features)) % 4, np.zeros_like(target)
    target = unit_rows(target - target.mean(axis=0))
    for number in range(4):
        fit, kept = fold != number, fold == number
        centre = features[fit].mean(axis=0)
        gram = (features[fit] - centre).T @ (features[fit] - centre)
        ridge = np.trace(gram) / len(gram) * np.eye(len(gram))
        weight = np.linalg.solve(gram + ridge, (features[fit] - centre).T @ target[fit])
        predicted[kept] = (features[kept] - centre) @ weight
    scores: Float32 = np.einsum("id,id->i", unit_rows(predicted), target)
    return scores


def test_swaps_can_be_detected_in_text_better_than_in_images(world: DemoWorld, events: Events) -> None:
    anchors, trained = behaviour(events)
    truth, auc = plant(CONFIG), {}
    for m in MODALITIES:
        kept = np.flatnonzero(trained & (truth.owner[m] >= 0))
        owner = truth.owner[m][kept]
        scores = out_of_fold(Features(CONFIG, m, world.taste).rows(owner), anchors[kept])
        wrong = owner != kept
        auc[m] = separation(scores[~wrong], scores[wrong])
    assert auc["text"] > 0.93
    assert 0.8 < auc["image"] < 0.93


@pytest.mark.parametrize(("shift", "related"), [(2, True), (-2, False)])
def test_audio_shows_the_course_of_the_video_later(world: DemoWorld, shift: int, related: bool) -> None:
    items, times, courses = np.repeat(np.arange(400), 6), np.tile(np.arange(6), 400), []
    for m, later in (("video", 0), ("audio", shift)):
        rows = Features(CONFIG, m, world.taste).segments(items, times + 4 + later).reshape(400, 6, -1)
        courses.append((rows - rows.mean(axis=1, keepdims=True)).reshape(2400, -1))
    video, audio = courses
    predicted = video[1200:] @ np.linalg.lstsq(video[:1200], audio[:1200], rcond=None)[0]
    held_out = (predicted * audio[1200:]).sum() / np.linalg.norm(predicted) / np.linalg.norm(audio[1200:])
    assert (held_out > 0.15) == related

"""The demo's generator: draws do not depend on the block, popularity is Zipf's, taste can be learnt, and memory stays flat."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import separation, unit_rows
from tasks.demo.config import DemoConfig
from tasks.demo.counter_random import gumbel, normals, permuted, uniforms
from tasks.demo.features import Features
from tasks.demo.truth import plant
from tasks.demo.world import DemoWorld, Events, build_world, draw_events

CONFIG = DemoConfig(items=3000, users=4800, interactions=120_000, seed=3)


@pytest.fixture(scope="module")
def world() -> DemoWorld:
    return build_world(CONFIG)


@pytest.fixture(scope="module")
def events(world: DemoWorld) -> Events:
    return draw_events(world, np.arange(CONFIG.num_interactions))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**63 - 1))
def test_permuted_is_a_permutation(size: int, key: int) -> None:
    assert np.array_equal(np.sort(permuted(key, size, np.arange(size))), np.arange(size))


def test_permuted_hides_the_order() -> None:
    order = permuted(5, 100_000, np.arange(100_000))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.02


def test_draws_have_the_laws_they_claim() -> None:
    values = normals(1, np.arange(20_000), 8).astype(np.float64)
    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1) < 0.01
    assert abs(np.mean(values > 1.0) - 0.16) < 0.01
    assert np.abs(np.corrcoef(values.T) - np.eye(8)).max() < 0.03
    flat = uniforms(2, np.arange(100_000))
    assert np.abs(np.histogram(flat, 10, (0, 1))[0] / 1e4 - 1).max() < 0.05
    luck = gumbel(3, np.arange(100_000)).astype(np.float64)
    assert abs(luck.mean() - np.euler_gamma) < 0.02
    assert abs(luck.var() - np.pi**2 / 6) < 0.05


@settings(max_examples=40, deadline=None)
@given(
    items=st.lists(st.integers(0, CONFIG.items - 1), min_size=1, max_size=40),
    modality=st.sampled_from(sorted(CONFIG.widths)),
)
def test_a_feature_is_the_same_in_any_block(world: DemoWorld, items: list[int], modality: str) -> None:
    features = Features(CONFIG.seed, modality, CONFIG.widths[modality], world.taste)
    together = features.rows(np.array(items))
    for row, item in enumerate(items):
        assert features.rows(np.array([item])).tobytes() == together[row].tobytes()


def test_an_event_is_the_same_in_any_block(world: DemoWorld, events: Events) -> None:
    some = np.array([5, 77_777, 6, 119_999])
    again = draw_events(world, some)
    for name in ("users", "items", "ratings"):
        assert np.array_equal(getattr(again, name), getattr(events, name)[some])


def test_popularity_is_zipf(events: Events) -> None:
    counts = np.sort(np.bincount(events.items, minlength=CONFIG.items))[::-1]
    share = counts[: CONFIG.items // 100].sum() / counts.sum()
    assert 0.1 < share < 0.4, f"the top 1 % hold {share:.2f}"
    ranks = np.arange(20, 1000)
    slope = np.polyfit(np.log(ranks + 1), np.log(counts[ranks]), 1)[0]
    assert -1.4 < slope < -0.7


def test_users_keep_to_few_categories_and_differ_in_activity(world: DemoWorld, events: Events) -> None:
    pairs, counts = np.unique(events.users * 40 + world.category[events.items], return_counts=True)
    usual = np.array([np.sort(counts[pairs // 40 == user])[::-1][:3].sum() for user in range(200)])
    activity = np.bincount(events.users, minlength=CONFIG.num_users)
    assert usual.sum() > 0.8 * activity[:200].sum()
    assert activity.mean() == 25
    assert np.percentile(activity, 95) > 2 * np.median(activity)


def test_liked_matches_are_better_matches(world: DemoWorld, events: Events) -> None:
    match = np.einsum("ed,ed->e", world.taste[events.items], world.user_taste[events.users])
    chance = np.einsum("ed,ed->e", world.taste[events.items], world.user_taste[np.roll(events.users, 1)])
    assert match.mean() > chance.mean() + 1
    assert match[events.ratings >= 4].mean() > match[events.ratings < 4].mean() + 0.5


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


def test_taste_is_learnable_and_swaps_are_found(world: DemoWorld, events: Events) -> None:
    """The two modalities are as hard as they are meant to be: text nearly plain, images a good deal less so."""
    anchors, trained = behaviour(events)
    planted, found = plant(CONFIG), {}
    for m in CONFIG.widths:
        owner = planted.owner[m].astype(np.int64)
        kept = np.flatnonzero(trained & (owner >= 0))
        features = Features(CONFIG.seed, m, CONFIG.widths[m], world.taste).rows(owner[kept])
        wrong = owner[kept] != kept
        scores = out_of_fold(features, anchors[kept])
        control = out_of_fold(features, anchors[kept][np.random.default_rng(0).permutation(len(kept))])
        assert scores.mean() > control.mean() + 0.1
        assert 0.4 < separation(control[~wrong], control[wrong]) < 0.6
        found[m] = separation(scores[~wrong], scores[wrong])
    assert found["text"] > 0.93
    assert 0.8 < found["image"] < 0.93


SCRIPT = """
import resource, sys
from pathlib import Path
from tasks.demo.catalog import DemoConfig, write_demo
items, interactions = int(sys.argv[2]), int(sys.argv[3])
write_demo(Path(sys.argv[1]), DemoConfig(items=items, users=5000, interactions=interactions, days=2))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_mib(folder: Path, items: int, interactions: int) -> float:
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(items), str(interactions)],
        check=True, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    return int(run.stdout) / 1024


def test_memory_does_not_grow_with_features_or_events(tmp_path: Path) -> None:
    """40,000 more items have 59 MiB of features and 400,000 more events 11 MiB of columns: neither may be held."""
    small = peak_mib(tmp_path / "small", 20_000, 200_000)
    large = peak_mib(tmp_path / "large", 60_000, 600_000)
    assert large - small < 30, f"{small:.0f} -> {large:.0f} MiB"

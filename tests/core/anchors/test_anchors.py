"""Anchors: the training loop, early stopping, starts, and the spectral embedding's choice against the whole grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import TRAINED_PAIRS, AnchorsConfig
from rectifier_core.anchors.held_out_recall import HeldOutRecall
from rectifier_core.anchors.interaction_sampling import hold_out
from rectifier_core.anchors.propagation import (
    InteractionGraph,
    layer_mean_rows,
    leading_singular_vectors,
    normalised_bipartite,
)
from rectifier_core.anchors.spectral import regularised
from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator
from tests.support.core_samples import block_log, log_of, normals

CONFIG = AnchorsConfig(embedding_size=8, num_layers=2, epochs=6, learning_rate=0.02)


@pytest.fixture(scope="module")
def log() -> Interactions:
    return block_log(blocks=4, users=120, items=80, seed=0)


def within_and_across(items: Float32, blocks: int) -> tuple[float, float]:
    cosine, block = items @ items.T, np.arange(len(items)) % blocks
    same = block[:, None] == block
    return float(cosine[same & ~np.eye(len(items), dtype=np.bool_)].mean()), float(cosine[~same].mean())


def test_the_output_is_the_layer_mean_over_all_pairs(log: Interactions) -> None:
    """With no epoch and a warm start that knows every item, each step after the start is plain algebra."""
    previous = normals(np.random.default_rng(0), log.num_items, 8)
    found = train_anchors(log, replace(CONFIG, epochs=0), seed=0, previous=previous)
    training, _ = hold_out(log, CONFIG.held_out, generator(0, "anchors", "hold-out"))
    seen = normalised_bipartite(training.users, training.items, log.num_users, log.num_items)
    ego = np.concatenate([seen @ previous, previous])
    everything = InteractionGraph.of(log)
    assert np.array_equal(found.ego, previous)
    assert np.allclose(found.items, unit_rows(layer_mean_rows(everything, ego, 2)[log.num_users :]), atol=1e-6)
    assert len(found.losses) == 0 and len(found.recalls) == 1


@pytest.mark.parametrize("start", ["spectral", "random"])
def test_items_taken_by_the_same_users_lie_together(log: Interactions, start: Literal["spectral", "random"]) -> None:
    found = train_anchors(log, replace(CONFIG, epochs=15, start=start), seed=0)
    within, across = within_and_across(found.items, 4)
    assert within > across + 0.5
    assert np.allclose(np.linalg.norm(found.items, axis=1), 1, atol=1e-5)
    assert found.losses.min() < found.losses[0] and found.recalls.max() > 0.5


def test_items_without_interactions_have_no_anchor(log: Interactions) -> None:
    wider = replace(log, num_items=log.num_items + 3)
    found = train_anchors(wider, CONFIG, seed=0)
    assert found.trained.sum() == log.num_items and not found.trained[-3:].any()
    assert not found.items[-3:].any() and not found.ego[-3:].any()


def test_threads_change_no_byte() -> None:
    pairs = np.unique(np.random.default_rng(0).integers(0, 6000, (40_000, 2)), axis=0).astype(np.int32).T
    large, config = log_of(pairs[0].copy(), pairs[1].copy(), 6000, 6000), AnchorsConfig(embedding_size=16, epochs=1)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(train_anchors(large, config, seed=0).items.tobytes())
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(log: Interactions) -> None:
    first, again, other = (train_anchors(log, CONFIG, seed=seed) for seed in (1, 1, 2))
    for field in ("items", "ego", "trained", "losses", "recalls"):
        assert getattr(first, field).tobytes() == getattr(again, field).tobytes()
    assert first.items.tobytes() != other.items.tobytes()


def test_relabelled_items_have_the_same_geometry(log: Interactions) -> None:
    """The spectral start, to the accuracy of the randomised SVD: four blocks, four singular vectors that stand clear of the rest."""
    config = replace(CONFIG, epochs=0, embedding_size=4)
    new = np.random.default_rng(0).permutation(log.num_items).astype(np.int32)
    plain, moved = train_anchors(log, config, seed=0), train_anchors(replace(log, items=new[log.items]), config, seed=0)
    items = moved.items[new]
    assert np.allclose(plain.items @ plain.items.T, items @ items.T, atol=2e-3)
    assert np.abs(plain.items - moved.items).max() > 0.1


def test_an_epoch_is_reported_as_it_ends(log: Interactions) -> None:
    calls: list[tuple[str, int, int]] = []
    found = train_anchors(log, CONFIG, seed=0, progress=lambda *call: calls.append(call))
    assert [call[1:] for call in calls] == [(epoch + 1, CONFIG.epochs) for epoch in range(len(found.losses))]
    assert all(f"loss {loss:.4f}" in call[0] for call, loss in zip(calls, found.losses, strict=True))


def test_early_stopping_returns_the_best_epoch(log: Interactions) -> None:
    """Too high a learning rate from a random start: recall rises, then falls; the anchors must be those of its peak."""
    config = replace(CONFIG, start="random", epochs=60, patience=4, learning_rate=0.1, weight_decay=0.3)
    found = train_anchors(log, config, seed=0)
    best = int(found.recalls.argmax())
    assert 0 < best < len(found.losses) < 60
    assert len(found.losses) == best + 4 and len(found.recalls) == len(found.losses) + 1
    short = train_anchors(log, replace(config, epochs=best), seed=0)
    assert short.items.tobytes() == found.items.tobytes() and short.ego.tobytes() == found.ego.tobytes()
    assert train_anchors(log, replace(config, epochs=best - 1), seed=0).items.tobytes() != found.items.tobytes()


def test_gains_too_small_to_matter_do_not_keep_it_going(log: Interactions) -> None:
    """Recall still rises; that it does not double means nothing more is waited for, and the best epoch so far is what comes back."""
    config = replace(CONFIG, start="random", epochs=60, patience=4)
    long, short = (train_anchors(log, replace(config, least_gain=gain), seed=0) for gain in (0.0, 1e9))
    assert len(short.losses) == 4 < len(long.losses)
    assert short.recalls[-1] > short.recalls[0]
    best = train_anchors(log, replace(config, epochs=int(short.recalls.argmax())), seed=0)
    assert short.items.tobytes() == best.items.tobytes()


def test_epochs_that_only_harm_leave_the_start(log: Interactions) -> None:
    config = replace(CONFIG, learning_rate=50.0, patience=2)
    found = train_anchors(log, config, seed=0)
    assert len(found.losses) == 2 and found.recalls.argmax() == 0
    assert found.items.tobytes() == train_anchors(log, replace(config, epochs=0), seed=0).items.tobytes()


def test_a_warm_start_begins_where_the_last_run_ended(log: Interactions) -> None:
    trained = train_anchors(log, replace(CONFIG, epochs=15, start="random"), seed=0)
    previous = trained.ego.copy()
    previous[::7] = np.nan
    given = previous.copy()
    warm = train_anchors(log, replace(CONFIG, epochs=0), seed=0, previous=previous)
    cold = train_anchors(log, replace(CONFIG, epochs=0, start="random"), seed=0)
    known = ~np.isnan(previous[:, 0])
    assert np.array_equal(previous, given, equal_nan=True), "the caller's rows are not written to"
    assert np.array_equal(warm.ego[known], previous[known])
    assert np.abs(warm.ego[~known]).max(axis=1).min() > 0 and warm.trained.all()
    within, across = within_and_across(warm.items, 4)
    assert within > across + 0.4
    assert warm.recalls[0] > cold.recalls[0] + 0.1


def test_previous_rows_of_another_shape_are_refused(log: Interactions) -> None:
    with pytest.raises(ValueError, match=r"previous: wanted shape \(80, 8\), got \(80, 9\)"):
        train_anchors(log, CONFIG, seed=0, previous=np.zeros((80, 9), np.float32))


@pytest.mark.parametrize("start", ["spectral", "random"])
@pytest.mark.parametrize(
    ("users", "items", "num_users", "num_items"),
    [
        ([0], [0], 1, 1),
        ([0, 1, 2], [0, 1, 2], 4, 5),
        ([0, 0, 0], [0, 1, 2], 1, 3),
        ([], [], 3, 4),
        ([], [], 0, 2),
    ],
)
def test_tiny_logs_train(
    start: Literal["spectral", "random"], users: list[int], items: list[int], num_users: int, num_items: int
) -> None:
    found = train_anchors(log_of(users, items, num_users, num_items), replace(CONFIG, start=start), seed=0)
    assert found.items.shape == (num_items, 8) and np.isfinite(found.items).all()
    assert set(np.flatnonzero(found.trained)) == set(items)


def test_reliability_comes_with_the_anchors_and_is_none_where_nothing_was_learned(log: Interactions) -> None:
    left = log.items < 70
    found = train_anchors(log_of(log.users[left], log.items[left], 120, 80), CONFIG, seed=0)
    assert not found.trained[70:].any() and not found.reliability[70:].any()
    assert np.median(found.reliability[:70]) > 0.7


@pytest.fixture(scope="module")
def skewed() -> Interactions:
    """Blocks, and in each of them items from sought-after to hardly taken."""
    whole = block_log(blocks=4, users=300, items=120, seed=1)
    kept = np.random.default_rng(0).random(len(whole.users)) < 0.6 / (1 + whole.items // 4)
    return log_of(whole.users[kept], whole.items[kept], 300, 120)


def test_the_spectral_method_takes_the_best_weights_and_trains_nothing(skewed: Interactions) -> None:
    """Every pair of exponents by hand, over plain SciPy layers; the search goes along one axis, then the other."""
    config = AnchorsConfig(method="spectral", embedding_size=8, num_layers=2, held_out=0.3)
    found = train_anchors(skewed, config, seed=2)
    training, held = hold_out(skewed, 0.3, generator(2, "anchors", "hold-out"))
    judge = HeldOutRecall(training, held, generator(2, "anchors", "judge"))
    u, s, v = leading_singular_vectors(regularised(InteractionGraph.of(training)), 8, generator(2, "anchors", "start"))
    matrix = normalised_bipartite(training.users, training.items, skewed.num_users, skewed.num_items)
    degrees = np.maximum(np.bincount(training.items, minlength=skewed.num_items), 1)[:, None]

    def recall(power: float, popularity: float) -> float:
        layers = [(u * s**power, v * s**power * degrees**popularity)]
        for _ in range(2):
            layers.append((matrix @ layers[-1][1], matrix.T @ layers[-1][0]))
        final = np.concatenate([np.mean(side, axis=0) for side in zip(*layers, strict=True)])
        return judge(torch.from_numpy(final.astype(np.float32)))

    powers = {power: recall(power, 0.1) for power in (1.0, 0.5, 0.25)}
    best = max(powers, key=lambda power: powers[power])
    wanted = max(recall(best, popularity) for popularity in (0.0, 0.1, 0.2))
    assert found.recalls.tolist() == pytest.approx([wanted], abs=1e-9)
    assert wanted > recall(1.0, 0.0)
    assert len(found.losses) == 0 and found.method == "spectral"


def test_the_spectral_method_places_together_what_the_same_users_take(log: Interactions) -> None:
    config = replace(CONFIG, method="spectral")
    found, again = (train_anchors(log, config, seed=0) for _ in range(2))
    within, across = within_and_across(found.items, 4)
    assert within > across + 0.5
    assert found.items.tobytes() == again.items.tobytes()
    assert train_anchors(log, CONFIG, seed=0).method == "lightgcn"


def test_small_logs_are_trained_and_large_ones_are_not_unless_the_config_says_so() -> None:
    auto = AnchorsConfig()
    assert [auto.method_for(pairs) for pairs in (10, TRAINED_PAIRS, TRAINED_PAIRS + 1)] == ["lightgcn"] * 2 + [
        "spectral"
    ]
    assert AnchorsConfig(method="lightgcn").method_for(10**9) == "lightgcn"
    assert AnchorsConfig(method="spectral").method_for(10) == "spectral"
    assert AnchorsConfig(warm_start=True).method_for(10**9) == "lightgcn", "only what is trained starts from something"


def test_a_spectral_embedding_cannot_start_warm() -> None:
    with pytest.raises(ValueError, match="warm_start: wanted false where method is spectral"):
        AnchorsConfig(method="spectral", warm_start=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_reaches_the_recall_of_the_cpu() -> None:
    log = block_log(blocks=6, users=240, items=150, seed=2)
    config = AnchorsConfig(embedding_size=16, epochs=12, batch_size=500)
    here, there = (train_anchors(log, config, seed=0, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there.losses[:3], here.losses[:3], rtol=1e-4)
    assert there.recalls.max() == pytest.approx(here.recalls.max(), abs=0.01)
    assert there.reliability.tobytes() == here.reliability.tobytes()

"""Training by torch against the compiled one: losses, rows, recall.

Where there is no CUDA, the device is the CPU, named so that torch's path is taken.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rectifier_core.anchors import held_out_recall
from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.bpr import LightGCNTraining
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.anchors.device_training import DeviceTraining, layer_mean_on_device
from rectifier_core.anchors.held_out_recall import HeldOutRecall
from rectifier_core.anchors.interaction_sampling import hold_out
from rectifier_core.anchors.propagation import InteractionGraph, layer_mean
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator
from tests.support.core_samples import block_log, log_of, normals

DEVICE = "cuda" if torch.cuda.is_available() else "cpu:0"


@pytest.fixture(scope="module")
def log() -> Interactions:
    return block_log(blocks=3, users=90, items=60, seed=0)


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
def test_steps_are_those_of_the_compiled_training(log: Interactions, num_layers: int) -> None:
    graph, rng = InteractionGraph.of(log), np.random.default_rng(1)
    start = 0.3 * normals(rng, graph.num_nodes, 20)
    ours = LightGCNTraining(graph, start.copy(), num_layers, learning_rate=0.01, weight_decay=0.05)
    theirs = DeviceTraining(graph, start, num_layers, learning_rate=0.01, weight_decay=0.05, device=DEVICE)
    for _ in range(5):
        at = rng.integers(len(log.users), size=400)
        batch = log.users[at], log.items[at], rng.integers(log.num_items, size=400).astype(np.int32)
        assert float(theirs.step(*batch)) == pytest.approx(ours.step(*batch), rel=1e-6)
    # Adam's first steps are the gradient's sign: an entry whose gradient is rounding may go either way.
    assert np.mean(np.abs(theirs.ego - ours.ego) > 1e-5) < 1e-3
    assert np.abs(theirs.ego - start).max() > 0.03
    np.testing.assert_allclose(theirs.final().cpu().numpy(), ours.final(), atol=1e-3)


def test_extreme_gaps_give_finite_losses(log: Interactions) -> None:
    graph = InteractionGraph.of(log)
    ego = np.full((graph.num_nodes, 4), 30.0, np.float32)
    ego[: log.num_users] *= -1
    ego[-1] = 300
    model = DeviceTraining(graph, ego, 0, learning_rate=0.01, weight_decay=0.0, device=DEVICE)
    negatives = np.full(len(log.users), log.num_items - 1, np.int32)
    losses = [float(model.step(log.users, *pair)) for pair in ((log.items, negatives), (negatives, log.items))]
    assert np.isfinite(losses).all() and max(losses) > 1e3
    assert np.isfinite(model.ego).all()


def test_what_is_handed_in_and_out_stays_as_it_was(log: Interactions) -> None:
    graph = InteractionGraph.of(log)
    start = normals(np.random.default_rng(2), graph.num_nodes, 6)
    model, before = DeviceTraining(graph, start, 2, learning_rate=0.1, weight_decay=0.0, device=DEVICE), start.copy()
    handed_out = model.ego
    model.step(log.users, log.items, log.items[::-1].copy())
    assert start.tobytes() == before.tobytes() == handed_out.tobytes() != model.ego.tobytes()


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_the_layer_mean(num_layers: int) -> None:
    """Users and items without a pair among the nodes."""
    log = log_of([0, 0, 1, 4], [0, 2, 2, 3], 6, 5)
    graph = InteractionGraph.of(log)
    ego = normals(np.random.default_rng(3), graph.num_nodes, 7)
    np.testing.assert_allclose(
        layer_mean_on_device(graph, ego, num_layers, DEVICE), layer_mean(graph, ego, num_layers), atol=1e-6
    )


@pytest.mark.parametrize("places", [1, 5_000, 2**26])
def test_a_device_judges_alike(log: Interactions, places: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out_recall, "DEVICE_PLACES", places)
    training, held = hold_out(log, 0.3, generator(0, "test"))
    judge = HeldOutRecall(training, held, generator(0, "judge"))
    for final in (
        normals(np.random.default_rng(8), log.num_users + log.num_items, 8),
        np.full((150, 3), np.nan, np.float32),
    ):
        assert judge(torch.from_numpy(final).to(DEVICE)) == judge(final)
    for item in (20, 21):
        tied = HeldOutRecall(log_of([0], [0], 1, 40), log_of([0], [item], 1, 40), generator(0, "judge"))
        assert tied(torch.ones(41, 3, device=DEVICE)) == (item == 20)


def test_anchors_are_trained_to_the_same_recall() -> None:
    log = block_log(blocks=6, users=240, items=150, seed=2)
    config = AnchorsConfig(embedding_size=16, epochs=12, batch_size=500)
    here, there = (train_anchors(log, config, seed=0, device=device) for device in ("cpu", DEVICE))
    np.testing.assert_allclose(there.losses[:3], here.losses[:3], rtol=1e-4)
    np.testing.assert_allclose(there.recalls[0], here.recalls[0], atol=1e-9)
    assert there.recalls.max() == pytest.approx(here.recalls.max(), abs=0.01)
    assert there.reliability.tobytes() == here.reliability.tobytes()
    both = here.trained & there.trained
    assert both.all() and np.median(np.einsum("ij,ij->i", here.items, there.items)) > 0.99

"""A training step against autograd and torch's Adam in float64, and that its bytes depend on nothing but its inputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from rectifier_core.anchors import bpr
from rectifier_core.anchors.bpr import LightGCNTraining
from rectifier_core.anchors.propagation import USERS, InteractionGraph, layer_mean, symmetric_adjacency
from rectifier_core.base.arrays import Float32, Int32
from rectifier_core.base.records import Interactions
from tests.support.core_samples import block_log, normals


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def log() -> Interactions:
    return block_log(blocks=3, users=90, items=60, seed=0)


def triples(log: Interactions, size: int, seed: int) -> tuple[Int32, Int32, Int32]:
    """Drawn with repeats, so that a row's gradient has several terms; negatives may be positives, which the loss does not mind."""
    rng = np.random.default_rng(seed)
    at = rng.integers(len(log.users), size=size)
    return log.users[at], log.items[at], rng.integers(log.num_items, size=size).astype(np.int32)


def trained(log: Interactions, ego: Float32, num_layers: int, steps: int) -> tuple[Float32, list[float]]:
    model = LightGCNTraining(InteractionGraph.of(log), ego.copy(), num_layers, learning_rate=0.01, weight_decay=0.05)
    losses = [model.step(*triples(log, 400, seed)) for seed in range(steps)]
    return model.ego, losses


@pytest.mark.parametrize("width", [5, 64])
@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
def test_a_step_is_autograds_and_torchs_adam(log: Interactions, num_layers: int, width: int) -> None:
    ego = 0.3 * normals(np.random.default_rng(1), log.num_users + log.num_items, width)
    adjacency = torch.from_numpy(symmetric_adjacency(InteractionGraph.of(log).towards[USERS]).toarray()).double()
    dense = torch.from_numpy(ego).double().requires_grad_()
    optimiser, wanted = torch.optim.Adam([dense], lr=0.01), []
    for seed in range(5):
        users, positives, negatives = (torch.from_numpy(x.astype(np.int64)) for x in triples(log, 400, seed))
        rows = [users, positives + log.num_users, negatives + log.num_users]
        layer = total = dense
        for _ in range(num_layers):
            layer = adjacency @ layer
            total = total + layer
        user, positive, negative = (total[at] / (num_layers + 1) for at in rows)
        length = sum((dense[at] ** 2).sum() for at in rows)
        loss = -torch.log(torch.sigmoid((user * (positive - negative)).sum(dim=1))).mean() + 0.05 * 0.5 * length / 400
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        wanted.append(loss.item())
    found, losses = trained(log, ego, num_layers, 5)
    assert losses == pytest.approx(wanted, rel=2e-6)
    # Adam's first steps are the gradient's sign: an entry whose gradient is rounding may go either way, by the learning rate.
    assert np.mean(np.abs(found - dense.detach().numpy()) > 1e-5) < 1e-3
    assert np.abs(found - ego).max() > 0.03


def test_extreme_gaps_give_finite_losses(log: Interactions) -> None:
    ego = np.full((log.num_users + log.num_items, 4), 30.0, np.float32)
    ego[: log.num_users] *= -1
    ego[-1] = 300
    losses = trained(log, ego, 0, 3)[1]
    assert np.isfinite(losses).all() and max(losses) > 1e3


@pytest.mark.usefixtures("threads")
def test_threads_and_blocks_change_no_byte(log: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    ego = 0.3 * normals(np.random.default_rng(1), log.num_users + log.num_items, 20)
    torch.set_num_threads(1)
    wanted, losses = trained(log, ego, 2, 3)
    torch.set_num_threads(3)
    monkeypatch.setattr(bpr, "num_shards", lambda work: 7)
    assert trained(log, ego, 2, 3)[0].tobytes() == wanted.tobytes()
    monkeypatch.setattr(bpr, "BLOCK", 16)
    found, other = trained(log, ego, 2, 3)
    assert found.tobytes() == wanted.tobytes() and other == pytest.approx(losses, rel=1e-6)


def test_the_final_rows_are_the_layer_mean(log: Interactions) -> None:
    graph = InteractionGraph.of(log)
    model = LightGCNTraining(
        graph, normals(np.random.default_rng(1), graph.num_nodes, 6), 3, learning_rate=0.1, weight_decay=0.0
    )
    model.step(*triples(log, 50, 0))
    assert model.final().tobytes() == layer_mean(graph, model.ego, 3).tobytes()

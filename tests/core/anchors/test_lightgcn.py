"""A training step against autograd and torch's Adam in float64. With CUDA, on the GPU too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rectifier_core.anchors.lightgcn import LightGCNTraining
from rectifier_core.anchors.propagation import (
    InteractionGraph,
    layer_mean_rows,
    normalised_bipartite,
    symmetric_adjacency,
)
from rectifier_core.base.arrays import Float32, Int32
from rectifier_core.base.records import Interactions
from tests.support.core_samples import block_log, normals

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


@pytest.fixture(scope="module")
def log() -> Interactions:
    return block_log(blocks=3, users=90, items=60, seed=0)


def triples(log: Interactions, size: int, seed: int) -> tuple[Int32, Int32, Int32]:
    """Drawn with repeats, so that a row's gradient has several terms. Negatives may be positives."""
    rng = np.random.default_rng(seed)
    at = rng.integers(len(log.users), size=size)
    return log.users[at], log.items[at], rng.integers(log.num_items, size=size).astype(np.int32)


def trained(
    log: Interactions, ego: Float32, num_layers: int, steps: int, device: str = "cpu"
) -> tuple[LightGCNTraining, list[float]]:
    graph = InteractionGraph.of(log).to(device)
    model = LightGCNTraining(graph, ego, num_layers, learning_rate=0.01, weight_decay=0.05)
    return model, [float(model.step(*triples(log, 400, seed))) for seed in range(steps)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("num_layers", "width"), [(0, 5), (1, 64), (2, 5), (3, 64)])
def test_a_step_is_autograds_and_torchs_adam(log: Interactions, num_layers: int, width: int, device: str) -> None:
    ego = 0.3 * normals(np.random.default_rng(1), log.num_users + log.num_items, width)
    bipartite = normalised_bipartite(log.users, log.items, log.num_users, log.num_items)
    adjacency = torch.from_numpy(symmetric_adjacency(bipartite).toarray()).double()
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
    model, losses = trained(log, ego, num_layers, 5, device)
    assert losses == pytest.approx(wanted, rel=2e-6)
    # Adam's first steps are the gradient's sign: an entry whose gradient is rounding may go either way, by the learning rate.
    assert np.mean(np.abs(model.ego - dense.detach().numpy()) > 1e-5) < 1e-3
    assert np.abs(model.ego - ego).max() > 0.03
    graph = InteractionGraph.of(log)
    np.testing.assert_allclose(model.final().cpu().numpy(), layer_mean_rows(graph, model.ego, num_layers), atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_extreme_gaps_give_finite_losses(log: Interactions, device: str) -> None:
    ego = np.full((log.num_users + log.num_items, 4), 30.0, np.float32)
    ego[: log.num_users] *= -1
    ego[-1] = 300
    model, losses = trained(log, ego, 0, 3, device)
    assert np.isfinite(losses).all() and max(losses) > 1e3 and np.isfinite(model.ego).all()


def test_a_repeat_gives_the_same_bytes_and_leaves_the_start_alone(log: Interactions) -> None:
    start = normals(np.random.default_rng(2), log.num_users + log.num_items, 20)
    before = start.copy()
    (first, losses), (again, repeated) = (trained(log, start, 2, 3) for _ in range(2))
    assert first.ego.tobytes() == again.ego.tobytes() and losses == repeated
    assert start.tobytes() == before.tobytes() != first.ego.tobytes()

"""The parts of the recommenders: sparse products, batch rows, the contrastive loss, item graphs and pruning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rectifier_core.base.seeding import torch_generator
from rectifier_core.evaluation.backbones.config import (
    FREEDOMConfig,
    LATTICEConfig,
    SMOREConfig,
    VBPRConfig,
)
from rectifier_core.evaluation.backbones.freedom import (
    FREEDOM,
    degree_sensitive_sample,
    distinct_edges,
    item_graph,
    modality_shares,
)
from rectifier_core.evaluation.backbones.lattice import LATTICE
from rectifier_core.evaluation.backbones.protocol import Batch, TrainingSet
from rectifier_core.evaluation.backbones.side_views import info_nce
from rectifier_core.evaluation.backbones.smore import SMORE
from rectifier_core.evaluation.backbones.vbpr import VBPR
from tests.support.core_samples import log_of, normals

USERS, ITEMS = 30, 40


@pytest.mark.parametrize("count", [3, 130])
def test_info_nce_counts_repetitions_as_the_plain_sum_does(count: int) -> None:
    source = torch_generator(3, "contrast")
    one, other = (torch.randn(count, 6, generator=source, dtype=torch.float64).requires_grad_() for _ in range(2))
    counts = torch.randint(1, 5, (count,), generator=source)
    at = torch.arange(count).repeat_interleave(counts)
    first, second = (torch.nn.functional.normalize(view)[at] for view in (one, other))
    scores = first @ second.T / 0.2
    plain = -(scores.diag() - scores.logsumexp(dim=1)).mean()
    ours = info_nce(one, other, counts.double(), 0.2)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-9)
    gradients = (torch.autograd.grad(x, (one, other)) for x in (ours, plain))
    torch.testing.assert_close(*gradients)


def sample(modalities: int, *, missing: int = 0) -> tuple[TrainingSet, Batch]:
    rng = np.random.default_rng(7)
    pairs = np.argwhere(rng.random((USERS, ITEMS)) < 0.2)
    log = log_of(pairs[:, 0], pairs[:, 1], USERS, ITEMS)
    features = {f"m.{m}": normals(rng, ITEMS, 5 + m).astype(np.float32) for m in range(modalities)}
    present = {name: np.arange(ITEMS) >= missing for name in features}
    for name, there in present.items():
        features[name][~there] = 0
    picked = rng.integers(len(pairs), size=64)
    drawn = (pairs[picked, 0], pairs[picked, 1], rng.integers(ITEMS, size=64))
    return TrainingSet.plain(log, features, present), Batch(*(torch.from_numpy(x.astype(np.int64)) for x in drawn))


def test_lattice_learns_its_graph_only_in_the_first_batch_of_an_epoch() -> None:
    data, batch = sample(2)
    model = LATTICE(data, LATTICEConfig(embedding_size=8, num_neighbours=5), seed=1)
    for epoch in range(2):
        model.begin_epoch(np.random.default_rng(epoch))
        losses = []
        for step in range(2):
            model.zero_grad(set_to_none=True)
            losses.append(model.loss(batch))
            torch.autograd.backward(losses[-1])
            reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
            assert ("modal_weight" in reached, "features.0" in reached, "maps.1.weight" in reached) == (step == 0,) * 3
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)


def test_dropout_depends_on_the_seed_and_does_not_change_the_scores() -> None:
    data, batch = sample(2)
    config = SMOREConfig(embedding_size=8, num_neighbours=5, dropout=0.5)
    first, again = (SMORE(data, config, seed=1) for _ in range(2))
    one, two = first.loss(batch).item(), first.loss(batch).item()
    assert one != two and (one, two) == (again.loss(batch).item(), again.loss(batch).item())
    scored = first.represent()[0]
    first.eval()
    assert torch.equal(scored, first.represent()[0])
    assert first.loss(batch).item() == first.loss(batch).item()


def test_vbpr_reads_the_mean_where_a_feature_is_missing() -> None:
    data, _ = sample(1, missing=3)
    model = VBPR(data, VBPRConfig(embedding_size=4), seed=0)
    _, items = model.represent()
    torch.testing.assert_close(items[0, 4:], items[3:, 4:].mean(dim=0))


def test_freedom_trains_on_the_pruned_graph_and_ranks_on_the_whole_one() -> None:
    data, batch = sample(1)
    model = FREEDOM(data, FREEDOMConfig(dropout=0.7, num_neighbours=4), seed=0)
    before, whole = model.represent()[1], model.loss(batch).item()
    losses = []
    for epoch in (1, 2, 1):
        model.begin_epoch(np.random.default_rng(epoch))
        losses.append(model.loss(batch).item())
        assert torch.equal(model.represent()[1], before)
    assert losses[0] == losses[2] and len({whole, *losses}) == 3


def test_modality_weights_are_the_papers_equal_or_configured() -> None:
    assert modality_shares(["image", "text"], None) == {"image": 0.1, "text": 0.9}
    assert modality_shares(["image"], None) == {"image": 1.0}
    assert modality_shares(["audio", "text"], {"audio": 1, "text": 3, "image": 9}) == {"audio": 0.25, "text": 0.75}
    assert modality_shares([], None) == {}
    for weights in ({"audio": 1.0}, {"audio": 0.0, "text": 0.0}):
        with pytest.raises(ValueError, match="modality_weights"):
            modality_shares(["audio", "text"], weights)


def test_freedoms_item_graph_sums_to_one_and_leaves_items_without_a_feature_alone() -> None:
    data, _ = sample(1, missing=1)
    graph = item_graph(data, FREEDOMConfig(num_neighbours=3)).toarray()
    np.testing.assert_array_equal(graph[0], np.eye(ITEMS)[0])
    assert not graph[1:, 0].any()
    np.testing.assert_allclose(graph.sum(axis=1), 1, atol=1e-6)
    assert not item_graph(sample(0)[0], FREEDOMConfig()).nnz


def test_pruning_draws_without_replacement_and_prefers_rare_nodes() -> None:
    users = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    items = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 8])
    edges = distinct_edges(log_of(np.concatenate([users, users]), np.concatenate([items, items]), 3, 9))
    assert len(edges.users) == 10
    rng, kept = np.random.default_rng(6), np.zeros((2, 9))
    for _ in range(2000):
        drawn = degree_sensitive_sample(edges, 0.1, rng)
        np.add.at(kept, (drawn.users, drawn.items), 1)
    odds = np.zeros((2, 9))
    odds[users, items] = 1 / np.sqrt(np.bincount(users)[users] * np.bincount(items)[items])
    np.testing.assert_allclose(kept / 2000, odds / odds.sum(), atol=0.04)
    half = degree_sensitive_sample(edges, 0.55, rng)
    assert len(set(zip(half.users.tolist(), half.items.tolist(), strict=True))) == 5

"""LightGCN, VBPR and FREEDOM against numbers recorded from the field's own code, and what is special to each.

``golden/reference_*.npz`` hold one batch on fixed weights, run through enoche/MMRec at commit e775373: the inputs, the loss, its gradients
by parameter name, and the representations over the whole graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.backbones.freedom import (
    FREEDOM,
    degree_sensitive_sample,
    distinct_edges,
    item_graph,
    modality_shares,
)
from rectifier_core.evaluation.backbones.lightgcn import LightGCN, interaction_operator
from rectifier_core.evaluation.backbones.protocol import Backbone, Batch, TrainingSet
from rectifier_core.evaluation.backbones.vbpr import VBPR, mapped_rows
from rectifier_core.evaluation.config import FREEDOMConfig, LightGCNConfig, VBPRConfig
from tests.support.core_samples import log_of, normals

Recorded = dict[str, np.ndarray[Any, np.dtype[Any]]]
GOLDEN = Path(__file__).parent / "golden"


def recorded(name: str) -> tuple[Recorded, TrainingSet]:
    with np.load(GOLDEN / f"reference_{name}.npz", allow_pickle=False) as file:
        found = dict(file)
    log = log_of(found["users"], found["items"], int(found["num_users"]), int(found["num_items"]))
    features = {key.removeprefix("feature."): value for key, value in found.items() if key.startswith("feature.")}
    return found, TrainingSet.plain(log, features, {m: np.ones(log.num_items, np.bool_) for m in features})


def of_kind(found: Recorded, kind: str) -> Recorded:
    return {key.removeprefix(f"{kind}."): value for key, value in found.items() if key.startswith(f"{kind}.")}


def load_weights(model: Backbone, found: Recorded) -> None:
    parameters = dict(model.named_parameters())
    for name, value in of_kind(found, "weight").items():
        assert parameters[name].shape == value.shape
        parameters[name].data = torch.from_numpy(value)


def assert_as_recorded(model: Backbone, found: Recorded) -> None:
    loss = model.loss(Batch(*torch.from_numpy(found["batch"])))
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(found["loss"].item(), abs=1e-5)
    gradients = of_kind(found, "gradient")
    assert set(gradients) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), gradients[name], atol=1e-5, err_msg=name)
    users, items = model.represent()
    np.testing.assert_allclose(users.detach().numpy(), found["final_users"], atol=1e-5)
    np.testing.assert_allclose(items.detach().numpy(), found["final_items"], atol=1e-5)


def test_lightgcn_agrees_with_the_reference() -> None:
    found, data = recorded("lightgcn")
    model = LightGCN(data, LightGCNConfig(embedding_size=8, num_layers=3, weight_decay=0.3), seed=0)
    load_weights(model, found)
    assert_as_recorded(model, found)


@pytest.mark.parametrize("repeats", [1, 5], ids=["all_items_mapped", "batch_rows_mapped"])
def test_vbpr_agrees_with_the_reference(repeats: int) -> None:
    found, data = recorded("vbpr")
    model = VBPR(data, VBPRConfig(embedding_size=8, weight_decay=0.7), seed=0)
    load_weights(model, found)
    if repeats > 1:
        # Unused items make the catalog longer than the batch, so that only the rows of the batch are mapped.
        assert model.features is not None
        model.features = torch.cat([model.features, torch.zeros(100, model.features.shape[1])])
        loss = model.loss(Batch(*torch.from_numpy(found["batch"])))
        assert loss.item() == pytest.approx(found["loss"].item(), abs=1e-5)
    else:
        assert_as_recorded(model, found)


def test_freedom_agrees_with_the_reference() -> None:
    found, data = recorded("freedom")
    config = FREEDOMConfig(embedding_size=8, num_item_layers=2, num_neighbours=4, dropout=0.4, feature_loss=0.6)
    np.testing.assert_allclose(item_graph(data, config).toarray(), found["item_graph"], atol=1e-6)
    model = FREEDOM(data, config, seed=0)
    load_weights(model, found)
    kept = log_of(found["kept_users"], found["kept_items"], data.known.num_users, data.known.num_items)
    assert len(kept.users) == int(0.6 * len(data.known.users))
    model._pruned = interaction_operator(kept)
    assert_as_recorded(model, found)


def small_set(
    features: dict[str, Float32],
    *,
    graph: Interactions | None = None,
    present: dict[str, Bool] | None = None,
    seed: int = 0,
) -> TrainingSet:
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((25, 30)) < 0.3)
    log = log_of(users, items, 25, 30)
    present = {m: np.ones(30, np.bool_) for m in features} if present is None else present
    return TrainingSet(positives=log, graph=graph or log, known=log, features=features, present=present)


@pytest.mark.parametrize("count", [10, 60])
def test_only_the_cheaper_side_is_mapped_and_both_give_the_same_rows(count: int) -> None:
    rng = np.random.default_rng(1)
    layer, rows = torch.nn.Linear(6, 3), torch.from_numpy(rng.integers(30, size=count))
    widths: list[int] = []
    layer.register_forward_hook(lambda _, given, __: widths.append(len(given[0])))
    features = torch.from_numpy(normals(rng, 30, 6))
    mapped = mapped_rows(layer, features, rows)
    assert widths == [min(count, 30)]
    torch.testing.assert_close(mapped, layer(features)[rows])


def test_vbpr_without_features_is_plain_matrix_factorisation() -> None:
    model = VBPR(small_set({}), VBPRConfig(embedding_size=4), seed=0)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "user_embedding": (25, 4),
        "item_embedding": (30, 4),
    }
    users, items = model.represent()
    assert users is model.user_embedding and items is model.item_embedding


def test_vbpr_reads_the_mean_where_a_feature_is_missing() -> None:
    feature = normals(np.random.default_rng(2), 30, 5)
    there = np.arange(30) > 2
    data = small_set({"image": np.where(there[:, None], feature, np.float32(np.nan))}, present={"image": there})
    model = VBPR(data, VBPRConfig(embedding_size=4), seed=0)
    _, items = model.represent()
    torch.testing.assert_close(items[0, 4:], items[3:, 4:].mean(dim=0))


def test_penalties_of_zero_leave_bpr_alone() -> None:
    data = small_set({"image": normals(np.random.default_rng(3), 30, 5)})
    batch = Batch(*(torch.from_numpy(np.random.default_rng(4).integers(25, size=(3, 40)))))
    models = (
        LightGCN(data, LightGCNConfig(weight_decay=0), seed=0),
        VBPR(data, VBPRConfig(weight_decay=0), seed=0),
        FREEDOM(data, FREEDOMConfig(feature_loss=0), seed=0),
    )
    for model in models:
        users, items = model.represent()
        difference = (users[batch.users] * (items[batch.positives] - items[batch.negatives])).sum(dim=1)
        torch.testing.assert_close(model.loss(batch), -torch.nn.functional.logsigmoid(difference).mean())
    assert not models[2].features and not models[2].maps


def test_freedom_trains_on_the_pruned_graph_and_ranks_on_the_whole_one() -> None:
    data = small_set({"image": normals(np.random.default_rng(3), 30, 5)})
    model = FREEDOM(data, FREEDOMConfig(dropout=0.7, num_neighbours=4), seed=0)
    batch = Batch(*(torch.from_numpy(np.random.default_rng(4).integers(25, size=(3, 40)))))
    before, whole = model.represent()[1], model.loss(batch).item()
    losses = []
    for epoch in (1, 2, 1):
        model.begin_epoch(np.random.default_rng(epoch))
        losses.append(model.loss(batch).item())
        assert torch.equal(model.represent()[1], before)
    assert losses[0] == losses[2] and len({whole, *losses}) == 3
    unpruned = FREEDOM(data, FREEDOMConfig(dropout=0, num_neighbours=4), seed=0)
    unpruned.begin_epoch(np.random.default_rng(1))
    assert unpruned.loss(batch).item() == whole


def test_freedom_keeps_its_graph_while_its_features_learn() -> None:
    features = {"image": normals(np.random.default_rng(3), 30, 5)}
    data = small_set(features)
    model = FREEDOM(data, FREEDOMConfig(num_neighbours=4, feature_loss=1.0), seed=0)
    graph, before = model._item_graph.matrix.toarray(), features["image"].copy()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for epoch in range(3):
        model.begin_epoch(np.random.default_rng(epoch))
        optimiser.zero_grad()
        torch.autograd.backward(
            model.loss(Batch(*(torch.from_numpy(np.random.default_rng(4).integers(25, size=(3, 40))))))
        )
        optimiser.step()
    np.testing.assert_array_equal(model._item_graph.matrix.toarray(), graph)
    np.testing.assert_array_equal(features["image"], before)
    assert np.abs(model.features[0].detach().numpy() - before).max() > 0.1


def test_modalities_weigh_as_in_the_original_or_alike_or_as_told() -> None:
    assert modality_shares(["image", "text"], None) == {"image": 0.1, "text": 0.9}
    assert modality_shares(["image"], None) == {"image": 1.0}
    assert modality_shares(["audio", "image", "text"], None) == pytest.approx(
        dict.fromkeys(["audio", "image", "text"], 1 / 3)
    )
    assert modality_shares(["audio", "text"], {"audio": 1, "text": 3, "image": 9}) == {"audio": 0.25, "text": 0.75}
    assert modality_shares([], None) == {}
    for weights in ({"audio": 1.0}, {"audio": 0.0, "text": 0.0}):
        with pytest.raises(ValueError, match="modality_weights"):
            modality_shares(["audio", "text"], weights)
    with pytest.raises(ValueError, match="modality_weights"):
        FREEDOMConfig(modality_weights={"image": -1.0})


def test_the_item_graph_sums_to_one_and_leaves_an_item_without_a_feature_alone() -> None:
    rng = np.random.default_rng(5)
    features, there = {m: normals(rng, 30, 5) for m in ("image", "text")}, np.arange(30) != 7
    data = small_set(features, present={"image": np.ones(30, np.bool_), "text": there})
    graph = item_graph(data, FREEDOMConfig(num_neighbours=3)).toarray()
    assert np.delete(graph, 7, axis=0).sum(axis=1) == pytest.approx(1, abs=0.5)
    alone = item_graph(
        small_set({"text": features["text"]}, present={"text": there}), FREEDOMConfig(num_neighbours=3)
    ).toarray()
    np.testing.assert_array_equal(alone[7], np.eye(30, dtype=np.float32)[7])
    assert not np.delete(alone[:, 7], 7).any()
    np.testing.assert_allclose(np.delete(alone, 7, axis=0).sum(axis=1), 1, atol=1e-6)
    assert set(np.round(np.unique(np.delete(alone, 7, axis=0)), 6)) == {0.0, np.round(np.float32(1 / 3), 6)}
    assert not item_graph(small_set({}), FREEDOMConfig()).nnz


def test_pruning_draws_without_replacement_and_spares_rare_nodes() -> None:
    users = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    items = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 8])
    edges = distinct_edges(log_of(np.concatenate([users, users]), np.concatenate([items, items]), 3, 9))
    assert len(edges.users) == 10
    rng, kept = np.random.default_rng(6), np.zeros((2, 9))
    for _ in range(4000):
        drawn = degree_sensitive_sample(edges, 0.1, rng)
        np.add.at(kept, (drawn.users, drawn.items), 1)
    odds = np.zeros((2, 9))
    odds[users, items] = 1 / np.sqrt(np.bincount(users)[users] * np.bincount(items)[items])
    np.testing.assert_allclose(kept / 4000, odds / odds.sum(), atol=0.03)
    half = degree_sensitive_sample(edges, 0.55, rng)
    assert len(set(zip(half.users.tolist(), half.items.tolist(), strict=True))) == 5


@pytest.mark.parametrize(
    ("config", "bad"),
    [
        (LightGCNConfig, {"embedding_size": 0}),
        (LightGCNConfig, {"num_layers": -1}),
        (LightGCNConfig, {"weight_decay": float("nan")}),
        (VBPRConfig, {"embedding_size": 0}),
        (VBPRConfig, {"weight_decay": -1.0}),
        (FREEDOMConfig, {"num_neighbours": 0}),
        (FREEDOMConfig, {"dropout": 1.0}),
        (FREEDOMConfig, {"feature_loss": -1e-3}),
    ],
)
def test_a_bad_hyperparameter_is_named(config: type, bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        config(**bad)

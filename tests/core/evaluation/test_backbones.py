"""The contract of every recommender in the registry."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from rectifier_core.anchors.interaction_sampling import NegativeSampler
from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.backbones.protocol import Backbone, Batch, TrainingSet
from rectifier_core.evaluation.backbones.registry import BACKBONES, build
from rectifier_core.evaluation.ranking import rank_items
from rectifier_core.evaluation.training import batches
from tests.support.core_samples import log_of, normals

USERS, ITEMS = 20, 33
WIDTHS = {"image": 7, "text": 5, "audio": 4}
GRAPHLESS = {"vbpr"}
"""Propagate over no interactions."""

every_backbone = pytest.mark.parametrize("name", list(BACKBONES))


def some_log(seed: int = 0) -> Interactions:
    """Five items of their own for each of 20 users; nobody takes the last item."""
    rng = np.random.default_rng(seed)
    items = np.concatenate([rng.permutation(ITEMS - 1)[:5] for _ in range(USERS)])
    return log_of(np.repeat(np.arange(USERS), 5), items, USERS, ITEMS)


def some_features(*names: str, seed: int = 1) -> dict[str, Float32]:
    rng = np.random.default_rng(seed)
    return {name: normals(rng, ITEMS, WIDTHS[name]) for name in names}


def some_data(*names: str, log: Interactions | None = None, features: dict[str, Float32] | None = None) -> TrainingSet:
    features = some_features(*(names or ("image", "text"))) if features is None else features
    return TrainingSet.plain(
        some_log() if log is None else log, features, {m: np.ones(ITEMS, np.bool_) for m in features}
    )


def small(name: str, **changes: Any) -> Any:
    """The default hyperparameters at the size of this world, every optional term on, with those of ``changes`` that the model has."""
    config = BACKBONES[name].config_type()
    wanted = {"embedding_size": 8, "num_neighbours": 5, "feature_loss": 0.01, **changes}
    return replace(config, **{key: value for key, value in wanted.items() if key in {x.name for x in fields(config)}})


def made(name: str, data: TrainingSet, *, seed: int = 0, **changes: Any) -> Backbone:
    return build(name, data, seed=seed, config=small(name, **changes))


def one_batch(data: TrainingSet, seed: int = 0) -> Batch:
    """Every positive, in random order, with its negative."""
    rng = np.random.default_rng(seed)
    return next(batches(data.positives, NegativeSampler(data.known), 10**6, rng))


def train(model: Backbone, data: TrainingSet, epochs: int, *, learning_rate: float = 0.02, seed: int = 0) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    sampler = NegativeSampler(data.known)
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        model.train()
        model.begin_epoch(rng)
        for batch in batches(data.positives, sampler, 64, rng):
            optimiser.zero_grad()
            torch.autograd.backward(model.loss(batch))
            optimiser.step()
    model.eval()


def represented(model: Backbone) -> tuple[Float32, Float32]:
    model.eval()
    users, items = model.represent()
    return users.detach().numpy().copy(), items.detach().numpy().copy()


def scores(model: Backbone) -> Float32:
    users, items = represented(model)
    return users @ items.T


def saved(model: Backbone) -> dict[str, Any]:
    """The state of a model through a file of plain arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **{key: value.numpy() for key, value in model.state_dict().items()})
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as file:
        return dict(file)


def load(model: Backbone, state: dict[str, Any]) -> Backbone:
    model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()})
    return model


@every_backbone
def test_a_model_can_learn_all_pairs_of_twenty_users(name: str) -> None:
    data = some_data()
    model = made(name, data, embedding_size=32, weight_decay=0.0, dropout=0.0)
    train(model, data, 60, learning_rate=0.05)
    everyone = np.arange(USERS, dtype=np.int32)
    ranked = rank_items(*model.represent(), everyone, log_of([], [], USERS, ITEMS), depth=5)
    own = data.known.items.reshape(USERS, 5)
    assert np.mean([np.isin(taken, top).mean() for top, taken in zip(ranked, own, strict=True)]) > 0.9


@every_backbone
def test_the_gradient_reaches_every_parameter_and_no_buffer_or_input(name: str) -> None:
    data = some_data()
    before = {m: feature.copy() for m, feature in data.features.items()}
    model = made(name, data)
    parameters = dict(model.named_parameters())
    frozen = {key: value.clone() for key, value in model.named_buffers()}
    start = {key: value.detach().clone() for key, value in parameters.items()}
    model.train()
    model.begin_epoch(np.random.default_rng(0))
    torch.autograd.backward(model.loss(one_batch(data)))
    strength = {key: 0.0 if p.grad is None else p.grad.abs().max().item() for key, p in parameters.items()}
    assert np.isfinite(list(strength.values())).all()
    # Terms that cancel in exact arithmetic leave rounding errors behind.
    assert not [key for key, value in strength.items() if value <= 1e-6 * max(strength.values())]
    torch.optim.Adam(model.parameters(), lr=0.01).step()
    assert all((parameters[key] != value).any() for key, value in start.items())
    assert all(torch.equal(value, frozen[key]) for key, value in model.named_buffers())
    for m, feature in data.features.items():
        np.testing.assert_array_equal(feature, before[m])


@every_backbone
def test_permuting_the_items_permutes_their_scores(name: str) -> None:
    rng = np.random.default_rng(2)
    data = some_data()
    model = made(name, data)
    train(model, data, 3)
    moved_to = rng.permutation(ITEMS).astype(np.int32)
    origin = np.argsort(moved_to)
    log = data.known
    moved_log = log_of(log.users, moved_to[log.items], USERS, ITEMS)
    permuted = some_data(log=moved_log, features={m: values[origin].copy() for m, values in data.features.items()})
    state = {key: value[origin] if value.ndim and len(value) == ITEMS else value for key, value in saved(model).items()}
    other = load(made(name, permuted, seed=9), state)
    np.testing.assert_allclose(scores(other)[:, moved_to], scores(model), atol=1e-5)


@every_backbone
def test_a_model_depends_on_the_seed_alone(name: str) -> None:
    data = some_data()
    models = [made(name, data, seed=seed) for seed in (3, 3, 4)]
    for model in models:
        train(model, data, 4)
    first, again, other = (scores(model) for model in models)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@every_backbone
def test_the_state_survives_a_file_of_plain_arrays(name: str) -> None:
    data = some_data()
    model = made(name, data, seed=3)
    train(model, data, 4)
    state = saved(model)
    fresh = made(name, data, seed=4)
    assert (scores(fresh) != scores(model)).any()
    load(fresh, state)
    np.testing.assert_array_equal(scores(model), scores(fresh))
    for each in (model, fresh):
        each.generator.manual_seed(0)
        train(each, data, 1)
    np.testing.assert_array_equal(scores(model), scores(fresh))


@every_backbone
@pytest.mark.parametrize("modalities", [(), ("text",), ("image", "text", "audio")], ids=len)
def test_a_model_trains_on_any_number_of_modalities(name: str, modalities: tuple[str, ...]) -> None:
    data = some_data(features=some_features(*modalities))
    model = made(name, data)
    start = model.loss(one_batch(data)).item()
    train(model, data, 5, learning_rate=0.05)
    assert model.loss(one_batch(data)).item() < start
    assert scores(model).shape == (USERS, ITEMS) and np.isfinite(scores(model)).all()


@every_backbone
def test_the_row_of_a_missing_feature_is_never_read(name: str) -> None:
    rng = np.random.default_rng(7)
    features = some_features("image", "text")
    present: dict[str, Bool] = {m: rng.random(ITEMS) < 0.7 for m in features}
    present["image"][0] = present["text"][0] = False

    def trained(filler: float) -> Backbone:
        filled = {m: np.where(present[m][:, None], features[m], np.float32(filler)) for m in features}
        data = TrainingSet.plain(some_log(), filled, present)
        model = made(name, data)
        train(model, data, 3)
        return model

    zeros, large = scores(trained(0.0)), scores(trained(1e4))
    assert np.isfinite(zeros).all()
    np.testing.assert_array_equal(zeros, large)


@every_backbone
def test_items_and_users_without_interactions_get_finite_scores(name: str) -> None:
    log = some_log()
    at = (log.users > 1) & (log.items > 2)
    data = some_data(log=log_of(log.users[at], log.items[at], USERS, ITEMS))
    model = made(name, data)
    train(model, data, 3)
    assert np.isfinite(scores(model)).all()


@every_backbone
def test_scores_depend_on_the_edited_graph_and_not_on_the_edited_pairs(name: str) -> None:
    data = some_data()
    log = data.known
    edited = log_of(log.users[::2].copy(), log.items[::2].copy(), USERS, ITEMS)
    state = saved(made(name, data))
    plain, rewired, repaired = (
        load(made(name, d), state) for d in (data, replace(data, graph=edited), replace(data, positives=edited))
    )
    assert (scores(rewired) != scores(plain)).any() == (name not in GRAPHLESS)
    np.testing.assert_array_equal(scores(repaired), scores(plain))
    batch = one_batch(data)
    assert repaired.loss(batch).item() == plain.loss(batch).item()


@every_backbone
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_gives_the_same_loss_and_scores(name: str) -> None:
    data = some_data()
    here, there = made(name, data, dropout=0.0), made(name, data, dropout=0.0).cuda()
    batch = one_batch(data)
    for model in (here, there):
        model.begin_epoch(np.random.default_rng(0))
    assert there.loss(Batch(*(x.cuda() for x in batch))).item() == pytest.approx(here.loss(batch).item(), abs=1e-4)
    with torch.no_grad():
        users, items = there.represent()
        found = (users @ items.T).cpu().numpy()
    np.testing.assert_allclose(found, scores(here), atol=1e-4)

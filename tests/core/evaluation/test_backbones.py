"""The contract that every recommender of the registry keeps, whatever its equations."""

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
from rectifier_core.evaluation.backbones import BACKBONES, build
from rectifier_core.evaluation.backbones.protocol import Backbone, Batch, TrainingSet
from rectifier_core.evaluation.ranking import rank_items
from rectifier_core.evaluation.training import batches
from tests.support.core_samples import log_of, normals

USERS, ITEMS = 20, 33
WIDTHS = {"image": 7, "text": 5, "audio": 4}
BLIND = {"lightgcn"}
"""Read no features."""
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
    with torch.no_grad():
        users, items = model.represent()
    return users.detach().numpy().copy(), items.detach().numpy().copy()


def scores(model: Backbone) -> Float32:
    users, items = represented(model)
    return users @ items.T


def saved(model: Backbone) -> dict[str, Any]:
    """The state as plain arrays through a file, as it would be kept without pickle."""
    buffer = io.BytesIO()
    np.savez(buffer, **{key: value.numpy() for key, value in model.state_dict().items()})
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as file:
        return dict(file)


def load(model: Backbone, state: dict[str, Any]) -> Backbone:
    model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()})
    return model


@every_backbone
def test_twenty_users_are_learned_by_heart(name: str) -> None:
    data = some_data()
    model = made(name, data, embedding_size=32, weight_decay=0.0, dropout=0.0)
    train(model, data, 60, learning_rate=0.05)
    users, items = model.represent()
    nothing = log_of([], [], USERS, ITEMS)
    ranked = rank_items(users, items, np.arange(USERS, dtype=np.int32), nothing, depth=5)
    own = data.known.items.reshape(USERS, 5)
    recall = np.mean([len(np.intersect1d(top, taken)) / 5 for top, taken in zip(ranked, own, strict=True)])
    assert recall > 0.9


@every_backbone
def test_the_gradient_reaches_everything_that_learns_and_nothing_that_is_frozen(name: str) -> None:
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
    assert (
        all(parameter.requires_grad for parameter in parameters.values()) and np.isfinite(list(strength.values())).all()
    )
    # What cancels in exact arithmetic still leaves rounding behind, which would learn nothing.
    assert not [key for key, value in strength.items() if value <= 1e-6 * max(strength.values())]
    torch.optim.Adam(model.parameters(), lr=0.01).step()
    assert all((parameters[key] != value).any() for key, value in start.items())
    assert all(torch.equal(value, frozen[key]) for key, value in model.named_buffers())
    for m, feature in data.features.items():
        np.testing.assert_array_equal(feature, before[m], err_msg="a trainable copy is a copy")


@every_backbone
def test_permuting_the_items_permutes_their_scores(name: str) -> None:
    rng = np.random.default_rng(2)
    data = some_data()
    model = made(name, data)
    train(model, data, 3)
    moved_to = rng.permutation(ITEMS).astype(np.int32)
    origin = np.argsort(moved_to)
    log = data.known
    permuted = some_data(
        log=log_of(log.users, moved_to[log.items], USERS, ITEMS),
        features={m: np.ascontiguousarray(feature[origin]) for m, feature in data.features.items()},
    )
    state = {key: value[origin] if value.ndim and len(value) == ITEMS else value for key, value in saved(model).items()}
    other = load(made(name, permuted, seed=9), state)
    np.testing.assert_allclose(scores(other)[:, moved_to], scores(model), atol=1e-5)
    batch = one_batch(data)
    there = Batch(
        batch.users, *(torch.from_numpy(moved_to.astype(np.int64))[x] for x in (batch.positives, batch.negatives))
    )
    unpruned, unpruned_there = (
        load(made(name, d, dropout=0.0), s) for d, s in ((data, saved(model)), (permuted, state))
    )
    for each in (unpruned, unpruned_there):
        each.begin_epoch(np.random.default_rng(0))
    assert unpruned_there.loss(there).item() == pytest.approx(unpruned.loss(batch).item(), abs=1e-5)


@every_backbone
def test_the_same_seed_gives_the_same_bits_and_another_seed_another_model(name: str) -> None:
    data = some_data()
    models = [made(name, data, seed=seed) for seed in (3, 3, 4)]
    for model in models:
        train(model, data, 4)
    first, again, other = (represented(model) for model in models)
    for mine, theirs, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert (mine != different).any()


@every_backbone
def test_the_state_survives_a_file_of_plain_arrays(name: str) -> None:
    data = some_data()
    model = made(name, data, seed=3)
    train(model, data, 4)
    state = saved(model)
    fresh = made(name, data, seed=4)
    assert (scores(fresh) != scores(model)).any()
    load(fresh, state)
    for mine, theirs in zip(represented(model), represented(fresh), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for each in (model, fresh):
        each.generator.manual_seed(0)
        train(each, data, 1)
    for mine, theirs in zip(represented(model), represented(fresh), strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg="nor does training go on differently")


@every_backbone
@pytest.mark.parametrize("modalities", [(), ("text",), ("image", "text"), ("image", "text", "audio")], ids=len)
def test_any_number_of_modalities_will_do(name: str, modalities: tuple[str, ...]) -> None:
    data = some_data(features=some_features(*modalities))
    model = made(name, data)
    start = model.loss(one_batch(data)).item()
    train(model, data, 15)
    assert model.loss(one_batch(data)).item() < start
    users, items = represented(model)
    assert len(users) == USERS and len(items) == ITEMS and users.shape[1] == items.shape[1]
    assert np.isfinite(users).all() and np.isfinite(items).all()


@every_backbone
def test_what_stands_in_the_row_of_a_missing_feature_is_never_read(name: str) -> None:
    rng = np.random.default_rng(7)
    features = some_features("image", "text")
    present: dict[str, Bool] = {m: rng.random(ITEMS) < 0.7 for m in features}
    present["image"][0] = present["text"][0] = False

    def trained(filler: float) -> Backbone:
        given = {m: np.where(present[m][:, None], features[m], np.float32(filler)) for m in features}
        data = TrainingSet.plain(some_log(), given, present)
        model = made(name, data)
        train(model, data, 3)
        return model

    zeros, rubbish = scores(trained(0.0)), scores(trained(1e4))
    assert np.isfinite(zeros).all()
    np.testing.assert_array_equal(zeros, rubbish)


@every_backbone
def test_items_and_users_without_interactions_get_finite_scores(name: str) -> None:
    log = some_log()
    at = (log.users > 1) & (log.items > 2)
    data = some_data(log=log_of(log.users[at], log.items[at], USERS, ITEMS))
    model = made(name, data)
    train(model, data, 3)
    assert np.isfinite(scores(model)).all()


@every_backbone
def test_propagation_follows_the_edited_graph_and_nothing_else_does(name: str) -> None:
    data = some_data()
    log = data.known
    edited = log_of(log.users[::2].copy(), log.items[::2].copy(), USERS, ITEMS)
    state = saved(made(name, data))
    plain, rewired, taught = (
        load(made(name, d), state) for d in (data, replace(data, graph=edited), replace(data, positives=edited))
    )
    assert (scores(rewired) != scores(plain)).any() == (name not in GRAPHLESS)
    np.testing.assert_array_equal(scores(taught), scores(plain))
    batch = one_batch(data)
    assert taught.loss(batch).item() == plain.loss(batch).item()


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

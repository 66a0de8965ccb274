"""LATTICE, MGCN and SMORE against numbers recorded from the field's own code, and what is special to each.

``golden/reference_*.npz`` hold one batch on fixed weights, run through enoche/MMRec at commit e775373 (SMORE's file there is that of
kennethorq/SMORE at 0148d92): the inputs, the loss, its gradients by parameter name, and the representations. The feature tables had moved
away from the features that the item graphs are built from, as they do in training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from rectifier_core.base.seeding import torch_generator
from rectifier_core.evaluation.backbones.batch_rows import BatchRows, layer_mean_at, product_at
from rectifier_core.evaluation.backbones.contrast import BLOCK_ROWS, info_nce
from rectifier_core.evaluation.backbones.lattice import LATTICE
from rectifier_core.evaluation.backbones.mgcn import MGCN
from rectifier_core.evaluation.backbones.protocol import Backbone, Batch, TrainingSet, softplus_ranking
from rectifier_core.evaluation.backbones.smore import SMORE, largest_of
from rectifier_core.evaluation.backbones.sparse_product import SparseOperator, mean_of_layers
from rectifier_core.evaluation.config import LATTICEConfig, MGCNConfig, SMOREConfig
from tests.support.core_samples import log_of, normals

GOLDEN = Path(__file__).parent / "golden"
USERS, ITEMS = 30, 40


def recorded(name: str) -> tuple[dict[str, NDArray[Any]], TrainingSet]:
    with np.load(GOLDEN / f"reference_{name}.npz", allow_pickle=False) as file:
        found = dict(file)
    log = log_of(found["users"], found["items"], int(found["num_users"]), int(found["num_items"]))
    features = {m: found[f"feature.{m}"] for m in ("image", "text")}
    return found, TrainingSet.plain(log, features, {m: np.ones(log.num_items, np.bool_) for m in features})


def assert_as_recorded(model: Backbone, found: dict[str, NDArray[Any]]) -> None:
    model.load_state_dict(
        {key.removeprefix("weight."): torch.from_numpy(x) for key, x in found.items() if key.startswith("weight.")}
    )
    loss = model.loss(Batch(*torch.from_numpy(found["batch"])))
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(found["loss"].item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        wanted = found[f"gradient.{name}"]
        np.testing.assert_allclose(
            parameter.grad.numpy(), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max(), err_msg=name
        )
    users, items = model.represent()
    np.testing.assert_allclose(users.detach().numpy(), found["final_users"], atol=1e-5)
    np.testing.assert_allclose(items.detach().numpy(), found["final_items"], atol=1e-5)


def test_lattice_agrees_with_the_reference() -> None:
    found, data = recorded("lattice")
    assert_as_recorded(
        LATTICE(data, LATTICEConfig(embedding_size=8, num_neighbours=4, weight_decay=1e-2), seed=0), found
    )


def test_mgcn_agrees_with_the_reference() -> None:
    found, data = recorded("mgcn")
    config = MGCNConfig(embedding_size=8, num_neighbours=4, weight_decay=1e-2, contrast_weight=0.1)
    assert_as_recorded(MGCN(data, config, seed=0), found)


def test_smore_agrees_with_the_reference() -> None:
    found, data = recorded("smore")
    config = SMOREConfig(
        embedding_size=8,
        num_layers=3,
        num_neighbours=3,
        neighbours_of={"text": 4},
        weight_decay=1e-2,
        contrast_weight=0.1,
        dropout=0.0,
    )
    assert_as_recorded(SMORE(data, config, seed=0), found)


def sample(modalities: int, *, missing: int = 0, items: int = ITEMS) -> tuple[TrainingSet, Batch]:
    rng = np.random.default_rng(7)
    pairs = np.argwhere(rng.random((USERS, items)) < 0.2)
    log = log_of(pairs[:, 0], pairs[:, 1], USERS, items)
    features = {f"m.{m}": normals(rng, items, 5 + m).astype(np.float32) for m in range(modalities)}
    present = {name: np.arange(items) >= missing for name in features}
    for name, there in present.items():
        features[name][~there] = 0
    picked = rng.integers(len(pairs), size=64)
    drawn = (pairs[picked, 0], pairs[picked, 1], rng.integers(items, size=64))
    return TrainingSet.plain(log, features, present), Batch(*(torch.from_numpy(x.astype(np.int64)) for x in drawn))


def models(data: TrainingSet, seed: int = 1) -> list[Backbone]:
    return [
        LATTICE(data, LATTICEConfig(embedding_size=8, num_neighbours=5), seed=seed),
        MGCN(data, MGCNConfig(embedding_size=8, num_neighbours=5), seed=seed),
        SMORE(data, SMOREConfig(embedding_size=8, num_neighbours=5), seed=seed),
    ]


@pytest.mark.parametrize("modalities", [0, 1, 2, 3])
def test_every_parameter_that_is_made_learns(modalities: int) -> None:
    data, batch = sample(modalities, missing=3)
    for model in models(data):
        torch.autograd.backward(model.loss(batch))
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, f"{model.name}: {name}"
        assert all(torch.isfinite(x).all() for x in model.represent())
        if not modalities:
            assert {name for name, _ in model.named_parameters()} == {"user_embedding", "item_embedding"}


def test_training_leaves_the_features_handed_in_alone() -> None:
    data, batch = sample(2)
    before = {name: feature.copy() for name, feature in data.features.items()}
    for model in models(data):
        optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
        torch.autograd.backward(model.loss(batch))
        optimiser.step()
    for name, feature in data.features.items():
        np.testing.assert_array_equal(feature, before[name])


def test_lattice_learns_its_graph_in_the_first_batch_of_an_epoch_alone() -> None:
    data, batch = sample(2)
    model = models(data)[0]
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


def test_lattice_scores_by_the_graph_of_the_weights_as_they_are() -> None:
    data, batch = sample(2)
    model, moved = models(data)[0], models(data)[0]
    model.loss(batch)
    with torch.no_grad():
        for lattice in (model, moved):
            assert isinstance(lattice, LATTICE)
            for parameter in lattice.features:
                parameter.neg_().add_(torch.linspace(0, 3, ITEMS)[:, None])
    np.testing.assert_array_equal(model.represent()[1].detach().numpy(), moved.represent()[1].detach().numpy())


def test_lattice_holds_nothing_of_items_by_items() -> None:
    items = 400
    data, batch = sample(2, items=items)
    sizes: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    model = LATTICE(data, LATTICEConfig(embedding_size=8, num_neighbours=5), seed=1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        torch.autograd.backward(model.loss(batch))
    assert max(sizes) <= items * 5 * 8
    assert model._fixed is not None and model._fixed.matrix.nnz <= items * 2 * 2 * 5


def test_items_without_a_feature_have_only_themselves() -> None:
    data, _ = sample(2, missing=3)
    lattice, mgcn, smore = models(data)
    assert isinstance(lattice, LATTICE) and isinstance(mgcn, MGCN) and isinstance(smore, SMORE)
    graphs = [lattice._item_graph().matrix(), *(operator.matrix for operator in (*mgcn._operators, *smore._operators))]
    for graph in graphs:
        dense = graph.toarray()
        np.testing.assert_allclose(dense[:3], np.eye(ITEMS)[:3], atol=1e-5)
        np.testing.assert_array_equal(dense[3:, :3], 0)
        assert (np.count_nonzero(dense[3:], axis=1) > 1).all()


def test_dropout_is_drawn_from_the_seed_and_left_out_of_the_scores() -> None:
    data, batch = sample(2)
    config = SMOREConfig(embedding_size=8, num_neighbours=5, dropout=0.5)
    first, again, other = (SMORE(data, config, seed=seed) for seed in (1, 1, 2))
    other.load_state_dict(first.state_dict())
    one, two = first.loss(batch).item(), first.loss(batch).item()
    assert (one, two) == (again.loss(batch).item(), again.loss(batch).item())
    assert len({one, two, other.loss(batch).item()}) == 3
    scored = first.represent()[0]
    first.eval()
    assert torch.equal(scored, first.represent()[0])
    assert first.loss(batch).item() == first.loss(batch).item()


@pytest.mark.parametrize("count", [3, BLOCK_ROWS, 2 * BLOCK_ROWS + 5])
def test_info_nce_counts_repetitions_as_the_plain_sum_does(count: int) -> None:
    source = torch_generator(3, "contrast")
    one, other = (torch.randn(count, 6, generator=source, dtype=torch.float64).requires_grad_() for _ in range(2))
    counts = torch.randint(1, 5, (count,), generator=source)
    at = torch.arange(count).repeat_interleave(counts)
    first, second = (torch.nn.functional.normalize(view)[at] for view in (one, other))
    scores = first @ second.T / 0.2
    plain = -(scores.diag() - scores.logsumexp(dim=1)).mean()
    wanted = torch.autograd.grad(3 * plain, (one, other))
    found = info_nce(one, other, counts.double(), 0.2)
    assert found.item() == pytest.approx(plain.item(), rel=1e-9)
    for got, want in zip(torch.autograd.grad(3 * found, (one, other)), wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_distinct_rows_give_the_loss_of_the_batch() -> None:
    _, batch = sample(0)
    table = torch.randn(USERS + ITEMS, 4, generator=torch_generator(3, "rows"))
    rows = BatchRows.of(batch)
    user, positive, negative = table[batch.users], table[batch.positives + USERS], table[batch.negatives + USERS]
    squares = sum(x.square().sum() for x in (user, positive, negative))
    plain = softplus_ranking(user, positive, negative) + 0.3 * 0.5 * squares / len(batch.users)
    assert rows.ranking_loss(table[rows.stacked(USERS)], 0.3).item() == pytest.approx(plain.item(), rel=1e-5)
    assert rows.positive_counts.sum() == rows.user_counts.sum() == len(batch.users)


@pytest.mark.parametrize("num_layers", [0, 1, 2, 4])
def test_layers_at_some_rows_are_rows_of_all_layers(num_layers: int) -> None:
    operator = SparseOperator(sp.csr_array(sp.random_array((20, 20), density=0.3, rng=np.random.default_rng(2))))
    ego = torch.randn(20, 3, generator=torch_generator(3, "ego")).requires_grad_()
    rows = torch.tensor([2, 3, 11, 19])
    whole, part = mean_of_layers(operator, ego, num_layers)[rows], layer_mean_at(operator, ego, num_layers, rows)
    torch.testing.assert_close(part, whole)
    torch.testing.assert_close(layer_mean_at(operator, ego, num_layers, None)[rows], whole)
    wanted, got = (torch.autograd.grad(x.square().sum(), ego)[0] for x in (whole, part))
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(product_at(operator, rows, ego), operator(ego)[rows])


def test_the_fusion_graph_takes_the_largest_weight_there_is() -> None:
    rng = np.random.default_rng(4)
    dense = [np.where(rng.random((9, 9)) < 0.4, normals(rng, 9, 9), 0).astype(np.float32) for _ in range(3)]
    lacking = [np.where(x == 0, -np.inf, x) for x in dense]
    wanted = np.maximum.reduce(lacking)
    found = largest_of([sp.csr_array(x) for x in dense])
    assert found.nnz == np.isfinite(wanted).sum() and (found.data < 0).any()
    np.testing.assert_array_equal(found.toarray(), np.where(np.isfinite(wanted), wanted, 0))


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (LATTICEConfig, {"initial_weight": 1.5}),
        (LATTICEConfig, {"num_item_layers": 0}),
        (LATTICEConfig, {"weight_decay": -1.0}),
        (MGCNConfig, {"temperature": 0.0}),
        (MGCNConfig, {"num_neighbours": 0}),
        (MGCNConfig, {"contrast_weight": -0.1}),
        (SMOREConfig, {"dropout": 1.0}),
        (SMOREConfig, {"neighbours_of": {"text": 0}}),
        (SMOREConfig, {"num_layers": 0}),
    ],
)
def test_a_wrong_hyperparameter_is_named(config: type, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(**wrong)

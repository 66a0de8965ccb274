"""The six recommenders against arrays recorded from the public code.

``golden/reference_*.npz`` hold one batch on fixed weights, run through enoche/MMRec at commit e775373 (SMORE's file there is that of
kennethorq/SMORE at 0148d92): the inputs, the loss, its gradients by parameter name, and the representations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rectifier_core.evaluation.backbones.config import (
    FREEDOMConfig,
    LATTICEConfig,
    LightGCNConfig,
    MGCNConfig,
    SMOREConfig,
    VBPRConfig,
)
from rectifier_core.evaluation.backbones.freedom import FREEDOM, item_graph
from rectifier_core.evaluation.backbones.lightgcn import interaction_operator
from rectifier_core.evaluation.backbones.protocol import Batch, TrainingSet
from rectifier_core.evaluation.backbones.registry import build
from rectifier_core.evaluation.backbones.vbpr import VBPR
from tests.support.core_samples import log_of

GOLDEN = Path(__file__).parent / "golden"
SIDE_VIEWS: dict[str, Any] = {"embedding_size": 8, "weight_decay": 1e-2, "contrast_weight": 0.1}
CONFIGS: dict[str, Any] = {
    "lightgcn": LightGCNConfig(embedding_size=8, num_layers=3, weight_decay=0.3),
    "vbpr": VBPRConfig(embedding_size=8, weight_decay=0.7),
    "freedom": FREEDOMConfig(embedding_size=8, num_item_layers=2, num_neighbours=4, dropout=0.4, feature_loss=0.6),
    "lattice": LATTICEConfig(embedding_size=8, num_neighbours=4, weight_decay=1e-2),
    "mgcn": MGCNConfig(**SIDE_VIEWS, num_neighbours=4),
    "smore": SMOREConfig(**SIDE_VIEWS, num_layers=3, num_neighbours=3, neighbours_of={"text": 4}, dropout=0.0),
}


def recorded(name: str) -> tuple[dict[str, NDArray[Any]], TrainingSet]:
    with np.load(GOLDEN / f"reference_{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    log = log_of(arrays["users"], arrays["items"], int(arrays["num_users"]), int(arrays["num_items"]))
    features = {key.removeprefix("feature."): value for key, value in arrays.items() if key.startswith("feature.")}
    return arrays, TrainingSet.plain(log, features, {m: np.ones(log.num_items, np.bool_) for m in features})


@pytest.mark.parametrize("name", list(CONFIGS))
def test_loss_gradients_and_representations_equal_those_of_the_public_code(name: str) -> None:
    arrays, data = recorded(name)
    model = build(name, data, seed=0, config=CONFIGS[name])
    parameters = dict(model.named_parameters())
    weights = {key.removeprefix("weight."): x for key, x in arrays.items() if key.startswith("weight.")}
    assert set(weights) <= set(parameters)
    for key, weight in weights.items():
        parameters[key].data = torch.from_numpy(weight)
    if isinstance(model, FREEDOM):
        np.testing.assert_allclose(item_graph(data, CONFIGS[name]).toarray(), arrays["item_graph"], atol=1e-6)
        kept = log_of(arrays["kept_users"], arrays["kept_items"], data.known.num_users, data.known.num_items)
        model._pruned = interaction_operator(kept)
    loss = model.loss(Batch(*torch.from_numpy(arrays["batch"])))
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(arrays["loss"].item(), rel=1e-5)
    for key, parameter in parameters.items():
        wanted = arrays[f"gradient.{key}"]
        assert parameter.grad is not None, key
        tolerance = 1e-4 * np.abs(wanted).max()
        np.testing.assert_allclose(parameter.grad.numpy(), wanted, rtol=1e-4, atol=tolerance, err_msg=key)
    users, items = model.represent()
    np.testing.assert_allclose(users.detach().numpy(), arrays["final_users"], atol=1e-5)
    np.testing.assert_allclose(items.detach().numpy(), arrays["final_items"], atol=1e-5)


def test_vbpr_has_the_same_loss_where_it_maps_only_the_rows_of_the_batch() -> None:
    arrays, data = recorded("vbpr")
    model = VBPR(data, CONFIGS["vbpr"], seed=0)
    for key, parameter in model.named_parameters():
        parameter.data = torch.from_numpy(arrays[f"weight.{key}"])
    assert model.features is not None
    # Unused items make the catalog longer than the batch.
    model.features = torch.cat([model.features, torch.zeros(100, model.features.shape[1])])
    assert model.loss(Batch(*torch.from_numpy(arrays["batch"]))).item() == pytest.approx(
        arrays["loss"].item(), rel=1e-5
    )

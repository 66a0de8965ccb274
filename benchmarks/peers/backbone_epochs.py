"""What an epoch of training costs here and in MMRec's own code: the same log, features and batches, one run, steps interleaved.

python -m benchmarks.peers.backbone_epochs --data DIR --mmrec CHECKOUT [--steps 8] > benchmarks/results/backbone_epochs.md

CHECKOUT is a clone of enoche/MMRec. Its models are imported from there as they are; what they expect of the environment is put
beside them: a configuration and a dataset object, ``torch_scatter``, a CPU where they ask for CUDA, and what SciPy dropped. An
epoch is its steps times the median step (LATTICE builds its item graph in the first step, which is counted once). Sampling of
negatives and evaluation are left out on both sides; MMRec's sampling is a loop in Python and its LATTICE rebuilds the item graph for every
evaluation batch, so both leave out what favours us. Both take Adam's steps: here the fused one, there the one its trainer takes.
"""

from __future__ import annotations

import sys
import tempfile
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.shared.movielens import load_tested, options_parser
from rectifier_core.anchors.interaction_sampling import NegativeSampler
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.backbones.protocol import Batch, TrainingSet
from rectifier_core.evaluation.backbones.registry import BACKBONES, build
from rectifier_core.evaluation.training import batches

COMMON = {
    "embedding_size": 64,
    "feat_embed_dim": 64,
    "knn_k": 10,
    "n_layers": 1,
    "n_ui_layers": 2,
    "cl_loss": 0.01,
    "reg_weight": 1e-4,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "lightgcn": {"n_layers": 3, "is_multimodal_model": False},
    "vbpr": {},
    "lattice": {"weight_size": [64, 64], "lambda_coeff": 0.9, "cf_model": "lightgcn"},
    "freedom": {"n_mm_layers": 1, "mm_image_weight": 0.1, "dropout": 0.5, "lambda_coeff": 0.9},
    "mgcn": {},
    "smore": {"n_ui_layers": 3, "image_knn_k": 10, "text_knn_k": 10, "dropout_rate": 0.1},
}
CLASSES = {"lightgcn": "LightGCN"}
# MMRec trains FREEDOM's feature tables whatever their factor; ours leaves them out at 0, so a factor above 0 is the fair one.
OURS: dict[str, dict[str, Any]] = {"freedom": {"feature_loss": 1e-4}}
BATCH = 2048


class Settings(dict[str, Any]):
    """MMRec's configuration object, as far as its models look at it: a key that is not set is None."""

    def __missing__(self, key: str) -> None:
        return None


class Dataset:
    """MMRec's dataset object, as far as its models look at it."""

    def __init__(self, data: TrainingSet) -> None:
        self._pairs, self.dataset = data.known, self

    def get_user_num(self) -> int:
        """How many users there are."""
        return self._pairs.num_users

    def get_item_num(self) -> int:
        """How many items there are."""
        return self._pairs.num_items

    def inter_matrix(self, form: str) -> sp.coo_matrix:
        """The training pairs [U, I]."""
        pairs = self._pairs
        return sp.coo_matrix(
            (np.ones(len(pairs.users)), (pairs.users, pairs.items)), shape=(pairs.num_users, pairs.num_items)
        )


def stand_ins(checkout: Path) -> None:
    """Put MMRec on the path, and beside it what its models expect of their environment."""
    scatter = types.ModuleType("torch_scatter")

    def scatter_add(
        source: torch.Tensor, index: torch.Tensor, dim: int = 0, dim_size: int | None = None
    ) -> torch.Tensor:
        return torch.zeros(dim_size or int(index.max()) + 1, dtype=source.dtype).index_add_(0, index, source)

    scatter.scatter_add = scatter_add  # type: ignore[attr-defined]
    sys.modules["torch_scatter"] = scatter
    sys.path.insert(0, str(checkout / "src"))
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]

    class Dok(sp.dok_matrix):
        def _update(self, entries: dict[tuple[int, int], float]) -> None:
            for at, value in entries.items():
                self[at] = value

    sp.dok_matrix = Dok


def peer(name: str, data: TrainingSet, folder: Path) -> Any:
    """MMRec's model on our data, untrained."""
    for old in (folder / "x").glob("*adj*"):
        old.unlink()
    settings = Settings(COMMON)
    settings |= {
        "is_multimodal_model": True,
        **SETTINGS[name],
        "train_batch_size": BATCH,
        "device": torch.device("cpu"),
        "end2end": False,
    }
    settings |= {
        "USER_ID_FIELD": "u",
        "ITEM_ID_FIELD": "i",
        "NEG_PREFIX": "n",
        "data_path": f"{folder}/",
        "dataset": "x",
    }
    settings |= {"vision_feature_file": "image.npy", "text_feature_file": "text.npy"}
    module = __import__(f"models.{name}", fromlist=["x"])
    return getattr(module, CLASSES.get(name, name.upper()))(settings, Dataset(data))


def step(loss: Callable[[], torch.Tensor], optimiser: torch.optim.Optimizer) -> tuple[float, float]:
    """Wall and CPU seconds of one step."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = loss()
    optimiser.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Print the table."""
    parser = options_parser(__doc__)
    parser.add_argument("--mmrec", type=Path, required=True, help="a clone of enoche/MMRec")
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    sample, _ = load_tested(options.data)
    data = TrainingSet.plain(sample.training, sample.catalog.features, sample.catalog.present)
    drawn = list(batches(data.positives, NegativeSampler(data.known), BATCH, generator(0, "benchmark")))
    stand_ins(options.mmrec)
    print(
        f"Command: `python -m benchmarks.peers.backbone_epochs --data DIR --mmrec CHECKOUT --steps {options.steps}`\n"
    )
    print(f"{len(drawn)} steps of {BATCH} pairs an epoch, {torch.get_num_threads()} thread(s).\n")
    print("| model | MMRec: CPU s an epoch | here | ratio | wall ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "x").mkdir()
        for modality, feature in data.features.items():
            np.save(folder / "x" / f"{modality}.npy", feature)
        for model in SETTINGS:
            theirs, costs = peer(model, data, folder), ([], [])
            ours = build(model, data, seed=0, config=BACKBONES[model].config_type(**OURS.get(model, {})))
            ours.begin_epoch(generator(0, "epoch"))
            theirs.pre_epoch_processing()
            optimisers = (
                torch.optim.Adam(theirs.parameters(), lr=1e-3),
                torch.optim.Adam(ours.parameters(), lr=1e-3, fused=True),
            )
            for batch in drawn[: options.steps]:
                costs[0].append(step(partial(theirs.calculate_loss, list(batch)), optimisers[0]))
                costs[1].append(step(partial(ours.loss, Batch(*batch)), optimisers[1]))
            (wall_there, there), (wall_here, here) = (_epoch(np.asarray(x), len(drawn), model) for x in costs)
            print(
                f"| {model} | {there:.2f} | {here:.2f} | {there / here:.1f} | {wall_there / wall_here:.1f} |",
                flush=True,
            )


def _epoch(costs: np.ndarray, steps: int, model: str) -> np.ndarray:
    usual = np.median(costs[1:], axis=0)
    return costs[0] + (steps - 1) * usual if model == "lattice" else steps * usual


if __name__ == "__main__":
    main()

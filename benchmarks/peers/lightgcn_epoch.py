"""One epoch of the anchors' training beside MMRec's own trainer on its own LightGCN: a graph of Amazon Baby's size, epochs interleaved.

An epoch is all of it: order, negatives, steps of 2,048 pairs, Adam. There it is ``Trainer._train_epoch`` over ``TrainDataLoader``, here
what ``rectifier_core.anchors.anchors`` does an epoch, held-out recall left out. The second line hands MMRec's trainer batches that were drawn here,
so that its sampling, a loop in Python, is left out on its side alone. A third says what an epoch costs as the anchors are configured by
default, whose steps are larger where the log is.

    PYTHONPATH=PANDAS python -m benchmarks.peers.lightgcn_epoch --mmrec CHECKOUT [--epochs 5] > benchmarks/results/lightgcn_epoch.md

CHECKOUT is a clone of enoche/MMRec (GPL; none of it is part of this project), PANDAS a folder made by ``pip install --no-deps --target
PANDAS pandas python-dateutil six pytz tzdata``. What its code expects of the environment besides is stood in for: see ``backbone_epochs``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.peers.backbone_epochs import Settings, stand_ins
from benchmarks.shared.synthetic_log import clustered_log, machine
from benchmarks.speed.anchor_curve import distinct
from rectifier_core.anchors.anchors import pairs_a_step
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.anchors.interaction_sampling import NegativeSampler
from rectifier_core.anchors.lightgcn import LightGCNTraining
from rectifier_core.anchors.propagation import InteractionGraph
from rectifier_core.base.pairs import subset
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator

USERS_THERE, ITEMS_THERE, PAIRS = 19_445, 7_050, 118_551
BATCH, LAYERS, WIDTH = 2048, 3, 64
SETTINGS: dict[str, Any] = {
    "embedding_size": WIDTH,
    "n_layers": LAYERS,
    "reg_weight": 1e-4,
    "train_batch_size": BATCH,
    "device": torch.device("cpu"),
    "is_multimodal_model": False,
    "end2end": False,
    "USER_ID_FIELD": "u",
    "ITEM_ID_FIELD": "i",
    "NEG_PREFIX": "n",
    "use_neg_sampling": True,
    "learner": "adam",
    "learning_rate": 1e-3,
    "learning_rate_scheduler": [1.0, 50],
    "epochs": 1000,
    "eval_step": 1,
    "stopping_step": 20,
    "valid_metric": "Recall@20",
    "eval_batch_size": 4096,
    "metrics": ["Recall"],
    "topk": [20],
    "req_training": True,
    "save_recommended_topk": False,
}


class Dataset:
    """MMRec's dataset, as far as its loader and its model look at it, over a pandas frame."""

    uid_field, iid_field = "u", "i"

    def __init__(self, df: Any, pairs: Interactions) -> None:
        self.df, self._pairs, self.dataset = df, pairs, self
        self.user_num, self.item_num, self.inter_num = pairs.num_users, pairs.num_items, len(df)

    def copy(self, df: Any) -> Dataset:
        """The same of other pairs."""
        return Dataset(df, self._pairs)

    def get_user_num(self) -> int:
        """How many users there are."""
        return self.user_num

    def get_item_num(self) -> int:
        """How many items there are."""
        return self.item_num

    def shuffle(self) -> None:
        """As theirs does it."""
        self.df = self.df.sample(frac=1, replace=False).reset_index(drop=True)

    def inter_matrix(self, form: str) -> sp.coo_matrix:
        """The training pairs [U, I]."""
        pairs = self._pairs
        return sp.coo_matrix(
            (np.ones(len(pairs.users)), (pairs.users, pairs.items)), shape=(pairs.num_users, pairs.num_items)
        )

    def __len__(self) -> int:
        return len(self.df)

    def __getitem__(self, at: Any) -> Any:
        return self.df.iloc[at]


def theirs(checkout: Path, pairs: Interactions) -> tuple[Callable[[], object], Callable[[], object]]:
    """An epoch of MMRec's trainer by its own loader, and over batches drawn here."""
    stand_ins(checkout)
    plots = types.ModuleType("matplotlib")
    plots.pyplot = sys.modules["matplotlib.pyplot"] = types.ModuleType("matplotlib.pyplot")  # type: ignore[attr-defined]
    sys.modules["matplotlib"] = plots
    logging.disable(logging.INFO)
    pandas = __import__("pandas")
    loaders, trainers, models = (
        __import__(name, fromlist=["x"]) for name in ("utils.dataloader", "common.trainer", "models.lightgcn")
    )
    settings, data = Settings(SETTINGS), Dataset(pandas.DataFrame({"u": pairs.users, "i": pairs.items}), pairs)
    loader = loaders.TrainDataLoader(settings, data, batch_size=BATCH, shuffle=True)
    loader.pretrain_setup()
    trainer = trainers.Trainer(settings, models.LightGCN(settings, data))
    rng, sampler = generator(0, "benchmark", "batches"), NegativeSampler(pairs)
    order = rng.permutation(len(pairs.users))
    drawn = []
    for first in range(0, len(order), BATCH):
        users, items = (x[order[first : first + BATCH]] for x in (pairs.users, pairs.items))
        drawn.append(torch.from_numpy(np.stack([users, items, sampler(users, rng)]).astype(np.int64)))
    return lambda: trainer._train_epoch(loader, 0), lambda: trainer._train_epoch(drawn, 0)


def ours(pairs: Interactions, size: int) -> Callable[[], object]:
    """An epoch of the anchors' training by steps of ``size`` pairs."""
    graph, rng, sampler = InteractionGraph.of(pairs), generator(0, "benchmark", "start"), NegativeSampler(pairs)
    start = rng.normal(0, 0.1, (graph.num_nodes, WIDTH)).astype(np.float32)
    model = LightGCNTraining(graph, start, LAYERS, learning_rate=1e-3, weight_decay=1e-4)

    def epoch() -> None:
        order = rng.permutation(np.arange(len(pairs.users), dtype=np.int32))
        for first in range(0, len(order), size):
            picked = order[first : first + size]
            users = pairs.users[picked]
            model.step(users, pairs.items[picked], sampler(users, rng))

    return epoch


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mmrec", type=Path, required=True, help="a clone of enoche/MMRec")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    log = distinct(clustered_log(USERS_THERE, ITEMS_THERE, 2 * PAIRS, clusters=50))
    kept = generator(0, "benchmark", "kept").permutation(len(log.users))[:PAIRS]
    pairs = subset(log, np.isin(np.arange(len(log.users)), kept))
    entries = InteractionGraph.of(pairs).num_entries
    usual = pairs_a_step(AnchorsConfig(), len(pairs.users), entries)
    whole, steps = theirs(options.mmrec, pairs)
    ways = {
        "anchors, steps of 2,048": ours(pairs, BATCH),
        "MMRec, an epoch of its trainer": whole,
        "MMRec, batches drawn beforehand": steps,
        f"anchors as configured by default, steps of {usual:,}": ours(pairs, usual),
    }
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for epoch in range(options.epochs + 1):
        for name in list(ways) if epoch % 2 else list(ways)[::-1]:
            cpu, wall = time.process_time(), time.perf_counter()
            ways[name]()
            if epoch:
                costs[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    medians = {name: np.median(np.asarray(cost), axis=0) for name, cost in costs.items()}
    print(f"# An epoch of LightGCN\n\n{machine()}\n")
    print(
        f"Command: `PYTHONPATH=PANDAS python -m benchmarks.peers.lightgcn_epoch --mmrec CHECKOUT --epochs {options.epochs}`\n"
    )
    print(
        f"{USERS_THERE:,} users, {ITEMS_THERE:,} items, {len(pairs.users):,} pairs; {LAYERS} layers, {WIDTH} numbers a row.\n"
    )
    print("| epoch | CPU s | wall s | steps of 2,048 here are faster by, CPU | wall |\n|" + "---|" * 5)
    base = next(iter(medians.values()))
    for name, (cpu, wall) in medians.items():
        print(f"| {name} | {cpu:.2f} | {wall:.2f} | {cpu / base[0]:.1f} | {wall / base[1]:.1f} |")


if __name__ == "__main__":
    main()

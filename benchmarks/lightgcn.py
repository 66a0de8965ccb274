"""LightGCN through the SciPy product against the same model in plain torch.sparse: held-out Recall@20 and seconds an epoch.

Both start from the same random rows and see the same batches in turn, epoch by epoch, in one process; nothing but the product differs.

    python -m benchmarks.lightgcn --data DIR [--split sparse] [--seeds 3] [--epochs 40] > benchmarks/results/lightgcn.md
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.movielens import load, options_parser
from rectifier_core.anchors.anchors import AnchorsConfig, HeldOutRecall, NegativeSampler, bpr_loss, hold_out
from rectifier_core.anchors.propagation import LayerMean, layer_mean, normalised_bipartite, symmetric_adjacency
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator

Propagate = Callable[[torch.Tensor], torch.Tensor]


def plain_torch(adjacency: sp.csr_array, num_layers: int) -> Propagate:
    """The layer mean as the field's codebases write it: a coalesced COO tensor and ``torch.sparse.mm``."""
    coo = adjacency.tocoo()
    indices = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    graph = torch.sparse_coo_tensor(indices, torch.from_numpy(coo.data), coo.shape, check_invariants=False).coalesce()

    def propagate(ego: torch.Tensor) -> torch.Tensor:
        layers = [ego]
        for _ in range(num_layers):
            layers.append(torch.sparse.mm(graph, layers[-1]))
        return torch.stack(layers, dim=1).mean(dim=1)

    return propagate


class Learner:
    """One implementation under training, its clock and its best held-out recall."""

    def __init__(self, name: str, propagate: Propagate, start: np.ndarray, config: AnchorsConfig) -> None:  # type: ignore[type-arg]
        self.name, self.propagate, self.config = name, propagate, config
        self.ego = torch.from_numpy(start.copy()).requires_grad_()
        self.optimiser = torch.optim.Adam([self.ego], lr=config.learning_rate)
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.best = 0.0

    def epoch(self, batches: list[tuple[np.ndarray, np.ndarray, np.ndarray]], num_users: int) -> None:  # type: ignore[type-arg]
        """One pass over the given batches."""
        wall, cpu = time.perf_counter(), time.process_time()
        for users, positives, negatives in batches:
            final = self.propagate(self.ego)
            loss = bpr_loss(
                final, self.ego, users, positives + num_users, negatives + num_users, self.config.weight_decay
            )
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def compare(pairs: Interactions, config: AnchorsConfig, seed: int) -> list[Learner]:
    """Both implementations over ``config.epochs`` epochs, interleaved."""
    training, held_out = hold_out(pairs, config.held_out, generator(seed, "benchmark", "hold-out"))
    adjacency = symmetric_adjacency(
        normalised_bipartite(training.users, training.items, training.num_users, training.num_items)
    )
    start = (
        generator(seed, "benchmark", "start")
        .normal(0, 0.1, (adjacency.shape[0], config.embedding_size))
        .astype(np.float32)
    )
    judge, sampler = HeldOutRecall(training, held_out, generator(seed, "benchmark", "judge")), NegativeSampler(training)
    learners = [
        Learner("SciPy product", lambda ego: LayerMean.apply(ego, adjacency, config.num_layers), start, config),  # type: ignore[no-untyped-call]
        Learner("torch.sparse", plain_torch(adjacency, config.num_layers), start, config),
    ]
    size = config.batch_size or 2048
    for epoch in range(config.epochs):
        rng = generator(seed, "benchmark", "epoch", epoch)
        order = rng.permutation(len(training.users))
        picks = [order[first : first + size] for first in range(0, len(order), size)]
        batches = [(training.users[at], training.items[at], sampler(training.users[at], rng)) for at in picks]
        for learner in learners if epoch % 2 else learners[::-1]:
            learner.epoch(batches, training.num_users)
            learner.best = max(
                learner.best, judge(layer_mean(adjacency, learner.ego.detach().numpy(), config.num_layers))
            )
    return learners


def main() -> None:
    """Print the table as Markdown."""
    parser = options_parser(__doc__)
    parser.add_argument("--split", choices=("sparse", "full"), default="sparse")
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    pairs = load(options.data, options.split).training
    print(
        f"Command: `python -m benchmarks.lightgcn --data DIR --split {options.split} --seeds {options.seeds} --epochs {options.epochs}`\n"
    )
    print(
        "| seed | best held-out Recall@20, SciPy | torch.sparse | median epoch, SciPy, s | torch.sparse, s | times faster, wall | cpu |"
    )
    print("|---|---|---|---|---|---|---|")
    for seed in range(options.seeds):
        ours, peer = compare(pairs, AnchorsConfig(epochs=options.epochs), seed)
        wall, cpu = ([float(np.median(x)) for x in clocks] for clocks in ((ours.wall, peer.wall), (ours.cpu, peer.cpu)))
        cells = [
            f"{ours.best:.4f}",
            f"{peer.best:.4f}",
            f"{wall[0]:.2f}",
            f"{wall[1]:.2f}",
            f"{wall[1] / wall[0]:.1f}",
            f"{cpu[1] / cpu[0]:.1f}",
        ]
        print(f"| {seed} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

"""LightGCN here beside RecBole's, on the same split, ranked by the same evaluator.

python -m benchmarks.peers.recbole_lightgcn --data DIR --peer PYTHON [--seeds 5] > benchmarks/results/recbole_lightgcn.md

PYTHON is an interpreter that has RecBole (its LightGCN wants SciPy below 1.12 and NumPy below 2, so it cannot share ours). Both train
on the split's training pairs with the same embedding size, layers, learning rate, batch size, penalty and patience, and stop on
validation Recall@20. Both are then ranked here, with training pairs masked. "own evaluator" is what RecBole says of the same weights:
it masks validation pairs as well, so it stands beside ours with those masked.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.shared.movielens import load_split, options_parser
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.backbones.config import LightGCNConfig, TrainingConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.backbones.registry import build
from rectifier_core.evaluation.metrics import per_user_ranking
from rectifier_core.evaluation.ranking import rank_items
from rectifier_core.evaluation.splits import Split
from rectifier_core.evaluation.training import fit

MODEL = LightGCNConfig(weight_decay=1e-4)
TRAINING = TrainingConfig(learning_rate=5e-3, batch_size=2048, patience=10, epochs=200)


def write_pairs(folder: Path, split: Split) -> None:
    """The three parts as RecBole's atomic files; tokens are our own numbers."""
    for name, part in (("train", split.training), ("valid", split.validation), ("test", split.test)):
        lines = [
            "user_id:token\titem_id:token",
            *(f"{u}\t{i}" for u, i in zip(part.users.tolist(), part.items.tolist(), strict=True)),
        ]
        (folder / "pairs").mkdir(exist_ok=True)
        (folder / "pairs" / f"pairs.{name}.inter").write_text("\n".join(lines) + "\n")


def peer(python: str, split: Split, seed: int) -> tuple[torch.Tensor, torch.Tensor, tuple[float, float], int]:
    """RecBole's users and items in our numbering, its own test Recall@20 and NDCG@20, and its best epoch."""
    settings = {
        "seed": seed,
        "embedding_size": MODEL.embedding_size,
        "n_layers": MODEL.num_layers,
        "reg_weight": MODEL.weight_decay,
        "learning_rate": TRAINING.learning_rate,
        "train_batch_size": TRAINING.batch_size,
        "epochs": TRAINING.epochs,
        "stopping_step": TRAINING.patience,
    }
    script = Path(__file__).with_name("train_in_recbole.py")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder, split)
        said = subprocess.run(
            [python, str(script), str(folder), json.dumps(settings), str(folder / "out.npz")],
            capture_output=True,
            text=True,
            cwd=folder,
        )
        if said.returncode:
            raise SystemExit(f"{python}: RecBole failed:\n{said.stderr[-2000:]}")
        with np.load(folder / "out.npz") as found:
            users = np.zeros((split.training.num_users, MODEL.embedding_size), np.float32)
            items = np.zeros((split.training.num_items, MODEL.embedding_size), np.float32)
            users[found["user_tokens"].astype(int)], items[found["item_tokens"].astype(int)] = (
                found["users"],
                found["items"],
            )
            return (
                torch.from_numpy(users),
                torch.from_numpy(items),
                (float(found["own"][0]), float(found["own"][1])),
                int(found["epochs"]),
            )


def both_known(split: Split) -> Interactions:
    """Training and validation pairs together."""
    users, items = (
        np.concatenate([getattr(x, part) for x in (split.training, split.validation)]) for part in ("users", "items")
    )
    return Interactions(
        users=users, items=items, times=None, num_users=split.training.num_users, num_items=split.training.num_items
    )


def scores(users: torch.Tensor, items: torch.Tensor, split: Split, known: Interactions) -> tuple[float, float]:
    """Test Recall@20 and NDCG@20 with ``known`` masked."""
    tested = np.intersect1d(split.test.users, split.training.users).astype(np.int32)
    found = per_user_ranking(rank_items(users, items, tested, known), tested, split.test)
    return float(found.recall[20].mean()), float(found.ndcg[20].mean())


def main() -> None:
    """Print the table."""
    parser = options_parser(__doc__)
    parser.add_argument("--peer", required=True, help="an interpreter that has RecBole")
    options = parser.parse_args()
    split = load_split(options.data)
    print(f"Command: `python -m benchmarks.peers.recbole_lightgcn --data DIR --peer PYTHON --seeds {options.seeds}`\n")
    print(
        "| seed | Recall@20 / NDCG@20 here | RecBole | RecBole's own evaluator | ours, validation masked | best epoch here / RecBole |"
    )
    print("|---|---|---|---|---|---|")
    mine, theirs = [], []
    for seed in range(options.seeds):
        data = TrainingSet.plain(split.training, {}, {})
        model = build("lightgcn", data, seed=seed, config=MODEL)
        history = fit(model, data, split.validation, TRAINING, seed=seed)
        with torch.no_grad():
            mine.append(scores(*model.represent(), split, split.training))
        users, items, own, epochs = peer(options.peer, split, seed)
        theirs.append(scores(users, items, split, split.training))
        masked = scores(users, items, split, both_known(split))
        cells = [f"{r:.4f} / {n:.4f}" for r, n in (mine[-1], theirs[-1], own, masked)]
        print(f"| {seed} | {' | '.join(cells)} | {history.best_epoch + 1} / {epochs} |", flush=True)
    a, b = np.asarray(mine), np.asarray(theirs)
    for name, column in (("Recall@20", 0), ("NDCG@20", 1)):
        said = [f"{x[:, column].mean():.4f} +- {x[:, column].std(ddof=1):.4f}" for x in (a, b)]
        print(f"\n{name}: here {said[0]}, RecBole {said[1]} (mean and standard deviation over {options.seeds} seeds).")


if __name__ == "__main__":
    main()

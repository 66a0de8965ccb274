"""RecBole's LightGCN on given train, valid and test files, its embeddings saved; run by RecBole's own interpreter.

PYTHON train_in_recbole.py FOLDER SETTINGS_JSON OUT.npz: FOLDER holds ``pairs/pairs.{train,valid,test}.inter``.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import LightGCN
from recbole.trainer import Trainer
from recbole.utils import init_seed


def main(folder: str, settings: str, out: str) -> None:
    """Train with early stopping on validation Recall@20, and save users, items and RecBole's own test metrics."""
    given = json.loads(settings) | {
        "data_path": folder,
        "checkpoint_dir": folder,
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"order": "RO", "group_by": "user", "mode": "full"},
        "metrics": ["Recall", "NDCG"],
        "topk": [10, 20],
        "valid_metric": "Recall@20",
        "use_gpu": False,
        "show_progress": False,
        "state": "WARNING",
    }
    config = Config(model="LightGCN", dataset="pairs", config_dict=given)
    init_seed(config["seed"], True)
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    model = LightGCN(config, train.dataset)
    trainer = Trainer(config, model)
    trainer.fit(train, valid, saved=True, show_progress=False)
    kept = torch.load(trainer.saved_model_file, weights_only=False, map_location="cpu")
    model.load_state_dict(kept["state_dict"])
    # What it ranked with last is kept until the next training step.
    model.restore_user_e = model.restore_item_e = None
    model.eval()
    with torch.no_grad():
        users, items = (x.numpy() for x in model.forward())
    tokens = {name: dataset.field2id_token[name].astype(str) for name in ("user_id", "item_id")}
    own = trainer.evaluate(test, load_best_model=False)
    np.savez(
        out,
        users=users[1:],
        items=items[1:],
        user_tokens=tokens["user_id"][1:],
        item_tokens=tokens["item_id"][1:],
        own=np.array([own["recall@20"], own["ndcg@20"]]),
        epochs=np.array(kept["epoch"] + 1),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Read a dataset folder with MMRec itself and print what it found as JSON; arguments: the checkout's ``src``, the folder's parent, the name.

MMRec's dataset imports modules for raw images and does not use them for encoded features. Empty modules replace them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from unittest.mock import MagicMock


def main(checkout: str, parent: str, name: str) -> None:
    for module in ("lmdb", "torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[module] = MagicMock()
    os.chdir(checkout)
    sys.path.insert(0, checkout)
    import torch
    import yaml
    from models.vbpr import VBPR  # type: ignore[import-not-found]
    from utils.configurator import Config  # type: ignore[import-not-found]
    from utils.dataloader import TrainDataLoader  # type: ignore[import-not-found]
    from utils.dataset import RecDataset  # type: ignore[import-not-found]

    # As if the file was copied into configs/dataset.
    settings = yaml.safe_load((Path(parent) / name / f"{name}.yaml").read_text())
    config = Config("VBPR", name, settings | {"data_path": f"{parent}/", "use_gpu": False, "reg_weight": 0.0})
    dataset = RecDataset(config)
    parts = dataset.split()
    # MMRec's loaders use attributes that printing the dataset sets.
    for part in (dataset, *parts):
        str(part)
    training = TrainDataLoader(config, parts[0], batch_size=64, shuffle=True)
    training.pretrain_setup()
    model = VBPR(config, training)
    facts = {
        "users": dataset.get_user_num(),
        "items": dataset.get_item_num(),
        "pairs": [sorted(map(tuple, part.df[["userID", "itemID"]].to_numpy().tolist())) for part in parts],
        "features": [list(model.v_feat.shape), list(model.t_feat.shape)],
        "sums": [float(model.v_feat.sum(dtype=torch.float64)), float(model.t_feat.sum(dtype=torch.float64))],
        "loss": float(model.calculate_loss(next(iter(training)))),
    }
    sys.stdout.write("\n" + json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])

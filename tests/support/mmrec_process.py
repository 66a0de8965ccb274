"""MMRec's own reading of a dataset folder, as a process: arguments are the checkout's ``src``, the folder's parent and the dataset's name.

What it found goes to standard output as JSON. MMRec's dataset imports modules for raw pictures (lmdb, torchvision) and uses none of them
for encoded features: empty ones stand in.
"""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path


class _Unused(types.ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None


def main(checkout: str, parent: str, name: str) -> None:
    for module in ("lmdb", "torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[module] = _Unused(module)
    os.chdir(checkout)
    sys.path.insert(0, checkout)
    import torch
    import yaml
    from models.vbpr import VBPR  # type: ignore[import-not-found]
    from utils.configurator import Config  # type: ignore[import-not-found]
    from utils.dataloader import EvalDataLoader, TrainDataLoader  # type: ignore[import-not-found]
    from utils.dataset import RecDataset  # type: ignore[import-not-found]

    # What copying the file into configs/dataset does.
    told = yaml.safe_load((Path(parent) / name / f"{name}.yaml").read_text())
    config = Config("VBPR", name, told | {"data_path": f"{parent}/", "use_gpu": False, "reg_weight": 0.0})
    whole = RecDataset(config)
    str(whole)
    parts = whole.split()
    for part in parts:
        str(part)
    training = TrainDataLoader(config, parts[0], batch_size=64, shuffle=True)
    training.pretrain_setup()
    testing = EvalDataLoader(config, parts[2], additional_dataset=parts[0], batch_size=64)
    model = VBPR(config, training)
    loss = model.calculate_loss(next(iter(training)))
    found = {
        "users": whole.get_user_num(),
        "items": whole.get_item_num(),
        "pairs": [sorted(map(tuple, part.df[["userID", "itemID"]].to_numpy().tolist())) for part in parts],
        "features": [list(model.v_feat.shape), list(model.t_feat.shape)],
        "sums": [float(model.v_feat.sum(dtype=torch.float64)), float(model.t_feat.sum(dtype=torch.float64))],
        "loss": float(loss),
        "test_batches": len([*testing]),
    }
    sys.stdout.write("\n" + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

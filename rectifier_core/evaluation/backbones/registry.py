"""The recommenders by name; ``build`` makes one."""

from __future__ import annotations

from typing import Any

from rectifier_core.evaluation.backbones.freedom import FREEDOM
from rectifier_core.evaluation.backbones.lattice import LATTICE
from rectifier_core.evaluation.backbones.lightgcn import LightGCN
from rectifier_core.evaluation.backbones.mgcn import MGCN
from rectifier_core.evaluation.backbones.protocol import Backbone, TrainingSet
from rectifier_core.evaluation.backbones.smore import SMORE
from rectifier_core.evaluation.backbones.vbpr import VBPR

BACKBONES: dict[str, Any] = {x.name: x for x in (LightGCN, VBPR, LATTICE, FREEDOM, MGCN, SMORE)}


def build(name: str, data: TrainingSet, *, seed: int, config: Any = None) -> Backbone:
    """The untrained recommender called ``name``; raises ValueError for a name that is not in ``BACKBONES``."""
    if name not in BACKBONES:
        raise ValueError(f"backbone: wanted one of {', '.join(BACKBONES)}, got {name!r}")
    model = BACKBONES[name]
    backbone: Backbone = model(data, config or model.config_type(), seed=seed)
    return backbone

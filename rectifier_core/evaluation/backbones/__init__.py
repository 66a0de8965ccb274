"""Six recommenders behind one protocol, one file each; ``build`` makes one by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rectifier_core.evaluation.backbones.freedom import FREEDOM
from rectifier_core.evaluation.backbones.freedom import TRAINING as FREEDOM_TRAINING
from rectifier_core.evaluation.backbones.lattice import LATTICE
from rectifier_core.evaluation.backbones.lattice import TRAINING as LATTICE_TRAINING
from rectifier_core.evaluation.backbones.lightgcn import TRAINING as LIGHTGCN_TRAINING
from rectifier_core.evaluation.backbones.lightgcn import LightGCN
from rectifier_core.evaluation.backbones.mgcn import MGCN
from rectifier_core.evaluation.backbones.mgcn import TRAINING as MGCN_TRAINING
from rectifier_core.evaluation.backbones.protocol import Backbone, TrainingSet
from rectifier_core.evaluation.backbones.smore import SMORE
from rectifier_core.evaluation.backbones.smore import TRAINING as SMORE_TRAINING
from rectifier_core.evaluation.backbones.vbpr import TRAINING as VBPR_TRAINING
from rectifier_core.evaluation.backbones.vbpr import VBPR
from rectifier_core.evaluation.config import (
    FREEDOMConfig,
    LATTICEConfig,
    LightGCNConfig,
    MGCNConfig,
    SMOREConfig,
    TrainingConfig,
    VBPRConfig,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A recommender's class, the class of its hyperparameters, and how it is trained by default."""

    model: Any
    config: Any
    training: TrainingConfig


BACKBONES: dict[str, Kind] = {
    "lightgcn": Kind(model=LightGCN, config=LightGCNConfig, training=LIGHTGCN_TRAINING),
    "vbpr": Kind(model=VBPR, config=VBPRConfig, training=VBPR_TRAINING),
    "lattice": Kind(model=LATTICE, config=LATTICEConfig, training=LATTICE_TRAINING),
    "freedom": Kind(model=FREEDOM, config=FREEDOMConfig, training=FREEDOM_TRAINING),
    "mgcn": Kind(model=MGCN, config=MGCNConfig, training=MGCN_TRAINING),
    "smore": Kind(model=SMORE, config=SMOREConfig, training=SMORE_TRAINING),
}


def build(name: str, data: TrainingSet, *, seed: int, config: Any = None) -> Backbone:
    """The recommender called ``name``, untrained; raises ValueError for a name that is not in ``BACKBONES``."""
    if name not in BACKBONES:
        raise ValueError(f"backbone: wanted one of {', '.join(BACKBONES)}, got {name!r}")
    kind = BACKBONES[name]
    backbone: Backbone = kind.model(data, config or kind.config(), seed=seed)
    return backbone

"""The record that the search reads, made of any two sets of rows."""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Float32
from rectifier_core.base.records import Projection


def placed(projected: Float32, target: Float32) -> Projection:
    """Unit rows [I, A] of features and of anchors, as if the first had been projected onto the second."""
    (rows, width), nothing = projected.shape, np.zeros(len(projected), np.float32)
    return Projection(
        modality="image",
        weight=np.zeros((1, width), np.float32),
        feature_mean=np.zeros(1, np.float32),
        target_mean=np.zeros(width, np.float32),
        fold_weights=np.zeros((1, 1, width), np.float32),
        fold_means=np.zeros((1, 1), np.float32),
        projected=projected,
        target=target,
        alignment=nothing,
        length=nothing,
        fold=np.zeros(rows, np.int32),
        null_alignment=np.zeros(0, np.float32),
        kept=np.zeros(rows, np.bool_),
        ridge=None,
    )

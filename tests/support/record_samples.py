"""A small valid record of every kind that passes between stages: 3 items, anchor width 2, feature width 4."""

from __future__ import annotations

from typing import Any

import numpy as np

from rectifier_core.base.published_records import Rectified
from rectifier_core.base.records import (
    Affinity,
    Anchors,
    BalanceOutcome,
    Catalog,
    Copies,
    Interactions,
    Plan,
    Projection,
    Trust,
)
from rectifier_core.base.sequence_records import NO_LAG, Segments, TimeOffset

F32, I32 = np.float32, np.int32


def good(record: type) -> dict[str, Any]:
    """Keyword arguments of such a record."""
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in GOOD[record].items()}


def _zeros(names: str, *shape: int) -> dict[str, Any]:
    """Float32 zeros of one shape under each of the names."""
    return {name: np.zeros(shape, F32) for name in names.split()}


UNITS = np.array([[1, 0], [0, 1], [0.6, 0.8]], F32)
SCORES = np.array([0, np.nan, 1], F32)
CSR = {"indptr": np.array([0, 2, 2, 3], np.int64), "indices": np.array([0, 2, 1], I32)}
GOOD: dict[type, dict[str, Any]] = {
    Catalog: {
        "item_ids": np.array(["a", "b", "c"]),
        "features": {"image": np.ones((3, 4), F32)},
        "present": {"image": np.ones(3, np.bool_)},
    },
    Interactions: {
        "users": np.array([0, 1, 1], I32),
        "items": np.array([2, 0, 1], I32),
        "times": np.array([5, 6, 7], np.int64),
        "num_users": 2,
        "num_items": 3,
    },
    Anchors: {
        "items": UNITS,
        "ego": 3 * UNITS,
        "trained": np.ones(3, np.bool_),
        "reliability": np.ones(3, F32),
        "losses": np.zeros(2),
        "recalls": np.zeros(3),
    },
    Projection: {
        "modality": "image",
        "projected": UNITS,
        "target": UNITS,
        "fold": np.array([0, 1, -1], I32),
        "kept": np.ones(3, np.bool_),
        "ridge": 1.0,
        **_zeros("weight", 4, 2),
        **_zeros("fold_weights", 2, 4, 2),
        **_zeros("fold_means", 2, 4),
        **_zeros("feature_mean", 4),
        **_zeros("target_mean", 2),
        **_zeros("alignment length null_alignment", 3),
    },
    Affinity: {
        "modality": "image",
        "neighbours": np.array([[0, 1], [1, -1], [2, 0]], I32),
        "scores": np.zeros((3, 2), F32),
        "recall": 1.0,
        "index": "flat",
    },
    Plan: {
        "modality": "image",
        "weights": np.array([0.5, 0.5, 1], F32),
        "potential": np.zeros(3),
        "marginal_errors": np.zeros(1),
        "iterations": 0,
        "column_sums": np.ones(3, F32),
        "column_error": 0.0,
        "diagonal_mass": 0.5,
        "outcome": BalanceOutcome.CONVERGED,
        **CSR,
    },
    Trust: {
        "modality": "image",
        "identifiable": True,
        "separation": 0.9,
        "reason": "",
        **dict.fromkeys(("probability", "probability_upper", "behaviour", "cross_modal"), SCORES),
        **dict.fromkeys(("mismatch_rate", "low", "high", "low_unlike", "high_unlike"), 0.1),
    },
    Copies: {
        "modality": "image",
        "group": np.array([0, -1, 0], I32),
        "unlike": np.ones(1, np.bool_),
        "likeness": np.zeros(1, F32),
    },
    Segments: {
        "modality": "video",
        "wrong_rate": 0.1,
        "identifiable": True,
        "separation": 0.9,
        "ridge": None,
        "reason": "",
        **dict.fromkeys(("alignment", "consensus", "evidence", "probability"), SCORES),
    },
    TimeOffset: {
        "first": "video",
        "second": "audio",
        "lag": 1,
        "identifiable": True,
        "lags": np.array([-1, 0, 1], I32),
        "correlation": np.zeros(3),
        "null_correlation": np.zeros(5),
        "support": 0.9,
        "item_lags": np.array([1, NO_LAG, 0], I32),
        "reason": "",
    },
    Rectified: {
        "features": {"image": np.ones((3, 4), F32)},
        "status": {"image": np.zeros(3, np.int8)},
        "trust": {"image": np.ones(3, F32)},
        "moved": {"image": np.zeros(3, F32)},
    },
}

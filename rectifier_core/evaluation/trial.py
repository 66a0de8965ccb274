"""One trial: a recommender trained on one training set, ranked against the test pairs, and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rectifier_core.base.arrays import Bool, Float32, Int32
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.backbones.config import TrainingConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.backbones.registry import BACKBONES, build
from rectifier_core.evaluation.metrics import group_recall, item_coverage, pair_closeness, per_user_ranking
from rectifier_core.evaluation.ranking import rank_items
from rectifier_core.evaluation.splits import Split
from rectifier_core.evaluation.training import History, fit

DEPTHS = (10, 20)
USER_SEGMENTS = ("few", "some", "many")
ITEM_BANDS = ("tail", "middle", "head")
CHANCE, POPULARITY = "chance_recall@20", "popularity_recall@20"
"""Metrics of every trial, whatever its backbone: Recall@20 of a random order and of the most popular items first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The ``metrics`` of a trial by name, and the ``per_user`` values [N] of ``users`` [N]."""

    metrics: Mapping[str, float]
    users: Int32
    per_user: Mapping[str, Float32]
    history: History


def run_trial(
    backbone: str,
    data: TrainingSet,
    split: Split,
    *,
    seed: int,
    model: Any = None,
    training: TrainingConfig | None = None,
    truth: Mapping[str, Bool] | None = None,
    progress: Progress = silent,
) -> Trial:
    """Train ``backbone`` on ``data`` with early stopping on ``split.validation`` and measure it on ``split.test``.

    ``model`` and ``training`` replace the backbone's default configs; ``truth[m]`` [I] marks items whose feature was damaged, for recall on
    touched and untouched items. Known pairs are masked, validation pairs are not (they compete, as in MMRec). Users without a known
    pair are left out. Raises ValueError for an unknown backbone, or when nobody can be tested.
    """
    recommender = build(backbone, data, seed=seed, config=model)
    training = training or BACKBONES[backbone].training_config
    history = fit(recommender, data, split.validation, training, seed=seed, progress=progress)
    users = np.intersect1d(split.test.users, data.known.users).astype(np.int32)
    if not len(users):
        raise ValueError("split: no user has both a training and a test pair")
    ranked = rank_items(*recommender.represent(), users, data.known, depth=max(DEPTHS))
    measured = per_user_ranking(ranked, users, split.test, depths=DEPTHS)._asdict()
    per_user = {f"{name}@{k}": values[k].astype(np.float32) for name, values in measured.items() for k in DEPTHS}
    metrics = {name: float(values.mean(dtype=np.float64)) for name, values in per_user.items()}
    metrics["coverage@20"] = item_coverage(ranked, data.known.num_items)
    metrics |= baselines(users, split.test, data.known)
    metrics |= _by_users(users, per_user["recall@20"], data.known)
    metrics |= _by_items(ranked, users, split.test, data.known, truth)
    for m, feature in data.features.items():
        metrics[f"closeness_{m}"] = pair_closeness(feature, data.known, split.test, seed=seed, draws=10_000)
    return Trial(metrics=metrics, users=users, per_user=per_user, history=history)


def baselines(users: Int32, test: Interactions, known: Interactions) -> dict[str, float]:
    """Recall@20 of ``users`` [N] for the items they do not know, in random order (expected) and by their number of known pairs."""
    degree = np.bincount(known.items, minlength=known.num_items).astype(np.float32)
    alike = torch.ones(known.num_users, 1)
    ranked = rank_items(alike, torch.from_numpy(degree[:, None]), users, known, depth=20)
    unknown = known.num_items - np.bincount(known.users, minlength=known.num_users)[users]
    popularity = per_user_ranking(ranked, users, test, depths=(20,)).recall[20]
    return {CHANCE: float(np.minimum(1, 20 / np.maximum(unknown, 1)).mean()), POPULARITY: float(popularity.mean())}


def _by_users(users: Int32, recall: Float32, known: Interactions) -> dict[str, float]:
    """Recall@20 of the users with the fewest, some and the most known pairs: thirds of the users."""
    degree = np.bincount(known.users, minlength=known.num_users)[users]
    order = np.argsort(degree, kind="stable")
    thirds = zip(USER_SEGMENTS, np.array_split(order, len(USER_SEGMENTS)), strict=True)
    return {f"recall@20_users_{name}": float(recall[rows].mean()) for name, rows in thirds if len(rows)}


def _by_items(
    ranked: Int32, users: Int32, test: Interactions, known: Interactions, truth: Mapping[str, Bool] | None
) -> dict[str, float]:
    """Recall@20 of test pairs by how often their item is known (thirds of the known pairs), and of damaged and undamaged items."""
    bands = group_recall(ranked, users, test, popularity_bands(known))
    metrics = {f"recall@20_items_{ITEM_BANDS[g]}": value for g, value in bands.items()}
    if truth:
        touched = np.logical_or.reduce(list(truth.values())).astype(np.int32)
        sides = group_recall(ranked, users, test, touched)
        metrics |= {f"recall@20_{'touched' if g else 'untouched'}": value for g, value in sides.items()}
    return metrics


def popularity_bands(known: Interactions) -> Int32:
    """0 tail, 1 middle, 2 head [I]: from the least known item up, each band holding a third of the known pairs."""
    degree = np.bincount(known.items, minlength=known.num_items)
    order = np.argsort(degree, kind="stable")
    below = np.cumsum(degree[order]) - degree[order]
    bands = np.zeros(known.num_items, np.int32)
    bands[order] = np.minimum(3 * below // max(1, degree.sum()), 2)
    return bands

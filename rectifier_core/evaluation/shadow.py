"""The shadow evaluation: does a recommender rank worse with rectified features than with raw ones, beyond noise?

The log is divided in time. Its last part is tested, and the part before that stops the training. One backbone is trained on each kind of
feature with the same starts, batches and negatives. Recall@20 is compared user by user.

- Anchors, matching and mixing run again on the training part alone, because anchors that saw the test pairs would favour the rectified side.
  The verdict is therefore about the method with this config on this catalog and log, not about the published rows.
- Rectified features are not worse as long as the upper end of the interval of the relative change is above ``-tolerance``.
- A log without times, or with too few users to test after a cut in time, is divided per user at random.
- A log above ``max_interactions`` is judged on random whole users and their items. That sample is sparser than the log, so less is rectified.
- Learning rate and weight decay are searched on raw features and validation pairs first, unless they are set (``search``).
- Where the model ranks below popularity with raw features it is mistrained, and nothing is judged: no night is refused or approved by it.
- Items that are new in the test part have no anchor and pass through.
- All trainings run equally long with a falling learning rate, and the best validation epoch is kept. Early stopping would end them at
  different epochs by chance and double the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.base.arrays import Bool, Features, Int32
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.pairs import subset
from rectifier_core.base.records import Catalog, Interactions
from rectifier_core.base.seeding import derive_seed, generator
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones.config import TrainingConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.backbones.registry import BACKBONES
from rectifier_core.evaluation.config import ShadowConfig
from rectifier_core.evaluation.search import Search, describe, search_settings, with_settings
from rectifier_core.evaluation.significance import relative_change
from rectifier_core.evaluation.splits import Split, split_time, split_users
from rectifier_core.evaluation.trial import CHANCE, POPULARITY, Trial, run_trial
from rectifier_core.evaluation.variants import make_features

MEASURE = "recall@20"
METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20", "coverage@20", CHANCE, POPULARITY)
FEWEST_USERS = 100
"""With fewer test users nothing is judged, because the interval would be too narrow."""
FEWEST_STEPS, FEWEST_EPOCHS = 1000, 20
"""The shortest training; models converge within it on small and on large logs."""
LEARNING_RATE = 4e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowResult:
    """The result of the shadow evaluation.

    ``split`` is "time" or "users", and ``split_reason`` why not time. ``raw`` and ``rectified`` are metrics averaged over the trainings.
    ``change`` is the relative change of Recall@20 with its 95 % interval. It is None where nothing could be judged; ``reason`` says why.
    ``interactions`` of the ``interactions_of`` in the log were used. ``epochs`` is the sum over all trainings, those of ``search`` included.
    ``search`` is None where nothing was searched.
    """

    backbone: str
    seeds: int
    tolerance: float
    split: str
    split_reason: str
    interactions: int
    interactions_of: int
    items: int
    users: int
    epochs: int
    raw: Mapping[str, float]
    rectified: Mapping[str, float]
    change: float | None
    low: float | None
    high: float | None
    reason: str
    search: Search | None

    @property
    def not_worse(self) -> bool | None:
        """Whether rectified features are not worse; None where nothing could be judged."""
        return None if self.high is None else self.high >= -self.tolerance


class World(NamedTuple):
    """The part of a catalog and its log that is judged."""

    catalog: Catalog
    interactions: Interactions
    category: Int32 | None


def evaluate_shadow(
    catalog: Catalog,
    interactions: Interactions,
    config: ShadowConfig,
    pipeline: PipelineConfig,
    *,
    seed: int,
    category: Int32 | None = None,
    progress: Progress = silent,
) -> ShadowResult:
    """Compare rectified with raw features, rectified with the ``pipeline`` config on this catalog and log.

    ``catalog`` may hold memory maps; only the judged rows are copied. ``category`` [I] is as in ``pipeline.rectify_catalog``.
    """
    world = bounded(catalog, interactions, category, config.max_interactions, seed=seed)
    split, split_reason = _divide(world.interactions, seed)
    users = _tested(split)
    raw: list[Trial] = []
    rectified: list[Trial] = []
    search: Search | None = None
    change, reason = None, f"only {users} users can be tested, and at least {FEWEST_USERS} are needed"
    if users >= FEWEST_USERS:
        raw, rectified, search = _trials(world, split, config, pipeline, seed, progress)
        values = (np.stack([trial.per_user[MEASURE] for trial in trials]) for trials in (rectified, raw))
        # On two or three trainings Student's interval would let nearly any loss pass. A false alarm costs less than a night of harm.
        change, reason = relative_change(*values, student=False), ""
        if not math.isfinite(change.high):
            change, reason = None, f"raw features give no correct recommendation ({MEASURE} is 0)"
        elif reason := _mistrained(config.backbone, raw, search):
            change = None
    return ShadowResult(
        backbone=config.backbone,
        seeds=config.seeds,
        tolerance=config.tolerance,
        split="users" if split_reason else "time",
        split_reason=split_reason,
        interactions=len(world.interactions.users),
        interactions_of=len(interactions.users),
        items=world.interactions.num_items,
        users=users,
        epochs=sum(len(trial.history.losses) for trial in (raw if rectified is raw else raw + rectified))
        + (0 if search is None else search.epochs),
        raw=_means(raw),
        rectified=_means(rectified),
        change=None if change is None else change.mean,
        low=None if change is None else change.low,
        high=None if change is None else change.high,
        reason=reason,
        search=search,
    )


def shadow_training(backbone: str, pairs: int) -> TrainingConfig:
    """The shadow's training for so many ``pairs``: a fixed number of epochs, with a learning rate that falls a hundredfold."""
    own: TrainingConfig = BACKBONES[backbone].training_config
    epochs = max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / math.ceil(max(1, pairs) / own.batch_size)))
    schedule = {"epochs": epochs, "decay_epochs": epochs, "patience": epochs, "evaluate_every": epochs // FEWEST_EPOCHS}
    return replace(own, learning_rate=LEARNING_RATE, decay=0.01, **schedule)


def bounded(catalog: Catalog, interactions: Interactions, category: Int32 | None, most: int, *, seed: int) -> World:
    """The catalog and log, or random whole users with at most ``most`` pairs in all and the items of these pairs, renumbered.

    A catalog of more than ``most`` items is also cut to the items with pairs. The features are copies in any case.
    """
    count = np.bincount(interactions.users, minlength=interactions.num_users)
    order = generator(seed, "shadow", "sample").permutation(interactions.num_users)
    taken = np.zeros(interactions.num_users, np.bool_)
    taken[order[: max(1, int(np.searchsorted(np.cumsum(count[order]), most, side="right")))]] = True
    pairs = subset(interactions, taken[interactions.users])
    rows = np.unique(pairs.items) if pairs.num_items > most or not taken.all() else np.arange(pairs.num_items)
    numbers = np.cumsum(taken, dtype=np.int32) - 1
    return World(
        catalog=Catalog(
            item_ids=catalog.item_ids[rows],
            features={m: np.ascontiguousarray(values[rows]) for m, values in catalog.features.items()},
            present={m: np.ascontiguousarray(values[rows]) for m, values in catalog.present.items()},
        ),
        interactions=Interactions(
            users=numbers[pairs.users],
            items=np.searchsorted(rows, pairs.items).astype(np.int32),
            times=pairs.times,
            num_users=int(taken.sum()),
            num_items=len(rows),
        ),
        category=None if category is None else category[rows],
    )


def _divide(interactions: Interactions, seed: int) -> tuple[Split, str]:
    """The log cut in time, or per user at random with the reason why not in time."""
    reason = "the log has no times"
    if interactions.times is not None:
        try:
            split = split_time(interactions)
        except ValueError:
            reason = "the log's times are too few to cut it in time"
        else:
            if _tested(split) >= FEWEST_USERS:
                return split, ""
            reason = f"a cut in time leaves {_tested(split)} users to test"
    return split_users(interactions, seed=derive_seed(seed, "shadow")), reason


def _tested(split: Split) -> int:
    """The number of test users; 0 without validation pairs, which early stopping needs."""
    return len(np.unique(split.test.users)) if len(split.validation.users) else 0


def _trials(
    world: World, split: Split, config: ShadowConfig, pipeline: PipelineConfig, seed: int, progress: Progress
) -> tuple[list[Trial], list[Trial], Search | None]:
    """The trials with raw and with rectified features, one a seed, and the search; the same trials if rectification changed nothing."""
    anchors = train_anchors(split.training, pipeline.anchors, seed=seed, progress=progress)
    made = make_features(
        "rectified", world.catalog, split.training, anchors, pipeline, seed=seed, category=world.category
    )
    schedule = config.training or shadow_training(config.backbone, len(split.training.users))
    model, search = config.model or BACKBONES[config.backbone].config_type(), None
    if config.search is not None:
        data = TrainingSet.plain(split.training, world.catalog.features, world.catalog.present)
        own_settings: dict[str, Any] = {"model": model, "training": schedule, "fixed": config.fixed}
        search = search_settings(
            config.backbone,
            data,
            split.validation,
            config.search,
            seed=derive_seed(seed, "shadow"),
            **own_settings,
            progress=lambda what, done, total: progress(f"shadow, {what}", done, total),
        )
        model, schedule = with_settings(search.chosen, model, schedule)

    def trials(features: Features, present: Mapping[str, Bool], name: str) -> list[Trial]:
        data, results = TrainingSet.plain(split.training, features, present), []
        for number in range(config.seeds):

            def report(what: str, done: int, total: int, number: int = number) -> None:
                progress(f"shadow, {name} features, training {number + 1} of {config.seeds}: {what}", done, total)

            own: dict[str, Any] = {"seed": derive_seed(seed, "shadow", number), "model": model}
            results.append(run_trial(config.backbone, data, split, **own, training=schedule, progress=report))
        return results

    raw = trials(world.catalog.features, world.catalog.present, "raw")
    same = all(np.array_equal(made.features[m], values) for m, values in world.catalog.features.items())
    return raw, raw if same else trials(made.features, made.present, "rectified"), search


def _mistrained(backbone: str, raw: list[Trial], search: Search | None) -> str:
    """Why the model says nothing about features, empty where it ranks at least as well as popularity with raw features."""
    found, popularity = (_means(raw)[name] for name in (MEASURE, POPULARITY))
    if found >= popularity:
        return ""
    best = "" if search is None else f" with the best setting found ({describe(search.chosen)})"
    return (
        f"{backbone} ranks below popularity{best} ({MEASURE} {found:.4f} against {popularity:.4f}), so its training does not fit this log; set"
        f" evaluation.training.{backbone}.learning_rate or evaluation.models.{backbone}.weight_decay"
    )


def _means(trials: list[Trial]) -> dict[str, float]:
    return {name: float(np.mean([trial.metrics[name] for trial in trials])) for name in METRICS} if trials else {}

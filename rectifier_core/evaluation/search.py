"""A short search for a recommender's learning rate and weight decay on the user's own log, by validation Recall@20.

Defaults that suit one log may rank below popularity on another, and then nothing about features can be read from the model. The search sees
training and validation pairs and the raw features. It takes no test pairs. Its choice serves every kind of feature, so comparisons stay paired.

Candidates are the grid of ``SearchConfig``. Successive halving (Jamieson and Talwalkar, AISTATS 2016) trains all of them shortly, then a third
of them three times as long, and a ninth at full length. The recommender's own setting is always trained to the end. The choice is therefore
never behind it on the validation pairs. Every training of a candidate starts again with the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.backbones.config import TrainingConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.backbones.registry import BACKBONES, build
from rectifier_core.evaluation.config import DECAY, RATE, SearchConfig
from rectifier_core.evaluation.training import fit

KEPT = 3
"""One of so many candidates is trained further, so many times as long."""
ROUNDS = 3
EVALUATIONS = 3
"""Evaluations of a candidate's training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A setting with its best validation Recall@20 in its longest training, of ``epochs``.

    ``weight_decay`` is None for a recommender without one. ``score`` is None where the loss diverged or nothing was trained.
    """

    learning_rate: float
    weight_decay: float | None
    epochs: int = 0
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The result of a search.

    ``own`` is the setting that the search began with. ``edges`` names the settings whose chosen value is the smallest or largest that was
    tried, as "learning_rate, the largest tried". ``epochs`` were trained in all.
    """

    backbone: str
    chosen: Candidate
    own: Candidate
    candidates: tuple[Candidate, ...]
    edges: tuple[str, ...]
    epochs: int


def search_settings(
    backbone: str,
    data: TrainingSet,
    validation: Interactions,
    config: SearchConfig,
    *,
    seed: int,
    model: Any = None,
    training: TrainingConfig | None = None,
    fixed: Collection[str] = (),
    progress: Progress = silent,
) -> Search:
    """Choose learning rate and weight decay of ``backbone`` on ``data`` by Recall@20 on ``validation``.

    ``model`` and ``training`` are the recommender's own configs, None its defaults. ``fixed`` names what is not searched: "learning_rate",
    "weight_decay" or both. Nothing is trained where one candidate is left. The recommender's own setting wins a tie.
    """
    model = model or BACKBONES[backbone].config_type()
    training = training or BACKBONES[backbone].training_config
    own, *others = list_candidates(backbone, config, model, training, fixed)
    found, spent = {_key(own): own, **{_key(x): x for x in others}}, 0
    rungs = rung_epochs(config.steps, len(data.positives.users), training) if others else ()
    for number, epochs in enumerate(rungs):
        # Sorting is stable, and the own setting is first.
        ranked = sorted(found.values(), key=_score, reverse=True)
        running = ranked[: math.ceil(len(ranked) / float(KEPT) ** number)]
        running += [x for x in ranked if _key(x) == _key(own) and x not in running]
        for done, candidate in enumerate(running):
            what = f"{backbone}: search, {epochs} epochs of {describe(candidate)}"
            progress(what, number * len(running) + done, len(rungs) * len(running))
            score, trained = _try(backbone, data, validation, candidate, model, _shortened(training, epochs), seed)
            found[_key(candidate)] = replace(candidate, epochs=epochs, score=score)
            spent += trained
    candidates = tuple(found.values())
    longest = max(x.epochs for x in candidates)
    chosen = max((x for x in candidates if x.epochs == longest), key=_score)
    return Search(
        backbone=backbone,
        chosen=chosen,
        own=found[_key(own)],
        candidates=candidates,
        edges=tuple(_edges(chosen, candidates)),
        epochs=spent,
    )


def list_candidates(
    backbone: str, config: SearchConfig, model: Any, training: TrainingConfig, fixed: Collection[str] = ()
) -> list[Candidate]:
    """Every setting of the grid once, the recommender's own first."""
    decays: tuple[float | None, ...] = (getattr(model, DECAY, None),)
    if DECAY in {x.name for x in fields(model)} and DECAY not in fixed:
        decays += tuple(config.weight_decays.get(backbone, BACKBONES[backbone].searched_decays))
    rates = (training.learning_rate, *(() if RATE in fixed else config.learning_rates))
    pairs = dict.fromkeys(product(rates, decays))
    return [Candidate(learning_rate=rate, weight_decay=decay) for rate, decay in pairs]


def rung_epochs(steps: int, pairs: int, training: TrainingConfig) -> tuple[int, ...]:
    """The epochs of each round, rising: the last has about ``steps`` steps, and never more epochs than ``training``."""
    longest = min(training.epochs, math.ceil(steps / math.ceil(max(1, pairs) / training.batch_size)))
    return tuple(sorted({math.ceil(longest / float(KEPT) ** number) for number in range(ROUNDS)}))


def most_steps(config: SearchConfig, candidates: int) -> int:
    """The largest number of steps that a search among so many candidates takes, but for rounding to whole epochs."""
    if candidates < 2:
        return 0
    rounds = (math.ceil(candidates / float(KEPT) ** n) + (n > 0) for n in range(ROUNDS))
    return math.ceil(sum(count * config.steps * float(KEPT) ** (n + 1 - ROUNDS) for n, count in enumerate(rounds)))


def with_settings(chosen: Candidate, model: Any, training: TrainingConfig) -> tuple[Any, TrainingConfig]:
    """``model`` and ``training`` with the chosen values."""
    if chosen.weight_decay is not None:
        model = replace(model, weight_decay=chosen.weight_decay)
    return model, replace(training, learning_rate=chosen.learning_rate)


def describe(setting: Candidate) -> str:
    """``learning rate 0.005, weight decay 0.01``."""
    decay = "" if setting.weight_decay is None else f", weight decay {setting.weight_decay:g}"
    return f"learning rate {setting.learning_rate:g}{decay}"


def _try(
    backbone: str,
    data: TrainingSet,
    validation: Interactions,
    candidate: Candidate,
    model: Any,
    training: TrainingConfig,
    seed: int,
) -> tuple[float | None, int]:
    """The best validation score of one training, None where it diverged, and the epochs that it took."""
    model, training = with_settings(candidate, model, training)
    try:
        history = fit(build(backbone, data, seed=seed, config=model), data, validation, training, seed=seed)
    except ValueError:
        return None, training.epochs
    return max(history.scores), len(history.losses)


def _shortened(training: TrainingConfig, epochs: int) -> TrainingConfig:
    """``training`` over ``epochs`` with a learning rate of the same course, and no early stop."""
    course = max(1, round(training.decay_epochs * epochs / training.epochs))
    often = max(1, epochs // EVALUATIONS)
    return replace(training, epochs=epochs, decay_epochs=course, patience=epochs, evaluate_every=often)


def _key(candidate: Candidate) -> tuple[float, float | None]:
    return candidate.learning_rate, candidate.weight_decay


def _score(candidate: Candidate) -> float:
    return -1.0 if candidate.score is None else candidate.score


def _edges(chosen: Candidate, candidates: tuple[Candidate, ...]) -> Iterator[str]:
    for name in (RATE, DECAY):
        tried = sorted({value for x in candidates if (value := getattr(x, name)) is not None})
        if len(tried) > 1 and getattr(chosen, name) in (tried[0], tried[-1]):
            yield f"{name}, the {'smallest' if getattr(chosen, name) == tried[0] else 'largest'} tried"

"""The search for training settings: it finds the planted better one, sees no test pair, is deterministic, and stays within its budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rectifier_core.evaluation import search as module
from rectifier_core.evaluation.backbones.config import FREEDOMConfig, TrainingConfig, VBPRConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.config import SearchConfig
from rectifier_core.evaluation.search import (
    Candidate,
    Search,
    list_candidates,
    most_steps,
    rung_epochs,
    search_settings,
    with_settings,
)
from rectifier_core.evaluation.splits import Split, split_users
from rectifier_core.evaluation.trial import POPULARITY, run_trial
from tests.core.evaluation.test_shadow import kinds_world
from tests.support.core_samples import log_of

MODEL = VBPRConfig(embedding_size=16)
TRAINING = TrainingConfig(learning_rate=1e-2, epochs=18, batch_size=512, evaluate_every=6)
CONFIG = SearchConfig(learning_rates=(), weight_decays={"vbpr": (0.01,)}, steps=240)
HITS = 12


@pytest.fixture(scope="module")
def world() -> tuple[TrainingSet, Split]:
    """Users take items of one kind and a few hits. VBPR's default weight decay lets every vector decay to nothing there."""
    catalog, log = kinds_world(timed=False)
    rng = np.random.default_rng(1)
    hits = np.concatenate([rng.permutation(HITS)[:4] for _ in range(log.num_users)])
    taken = np.concatenate([log.users, np.repeat(np.arange(log.num_users), 4)]), np.concatenate([log.items, hits])
    users, items = np.unique(np.stack(taken), axis=1)
    split = split_users(log_of(users, items, log.num_users, log.num_items), seed=0)
    features = {m: x * np.float32(0.03) for m, x in catalog.features.items()}
    return TrainingSet.plain(split.training, features, catalog.present), split


def searched(world: tuple[TrainingSet, Split], config: SearchConfig = CONFIG, **options: Any) -> Search:
    data, split = world
    settings: dict[str, Any] = {"seed": 3, "model": MODEL, "training": TRAINING} | options
    return search_settings("vbpr", data, split.validation, config, **settings)


def test_the_search_mends_a_default_that_ranks_below_popularity(world: tuple[TrainingSet, Split]) -> None:
    data, split = world
    found = searched(world)
    assert found.own.weight_decay == 5.0 and found.chosen.weight_decay == 0.01
    assert found.chosen.score is not None and found.own.score is not None
    assert found.chosen.score > 2 * found.own.score
    trained: dict[str, Any] = {"seed": 3, "model": MODEL, "training": TRAINING}
    before = run_trial("vbpr", data, split, **trained).metrics
    model, training = with_settings(found.chosen, MODEL, TRAINING)
    after = run_trial("vbpr", data, split, **trained | {"model": model, "training": training}).metrics
    assert before["recall@20"] < before[POPULARITY] < after["recall@20"]


def test_the_better_of_two_learning_rates_is_chosen(world: tuple[TrainingSet, Split]) -> None:
    config = SearchConfig(learning_rates=(1e-2,), steps=120)
    slow = replace(TRAINING, learning_rate=1e-7)
    found = searched(world, config, training=slow, model=replace(MODEL, weight_decay=0.01), fixed=("weight_decay",))
    assert found.chosen.learning_rate == 1e-2 and found.edges == ("learning_rate, the largest tried",)
    assert [(x.learning_rate, x.weight_decay) for x in found.candidates] == [(1e-7, 0.01), (1e-2, 0.01)]


def test_the_result_depends_on_the_seed_alone(world: tuple[TrainingSet, Split]) -> None:
    assert searched(world) == searched(world)
    assert searched(world, seed=4).chosen.score != searched(world).chosen.score


def test_no_test_pair_is_read(world: tuple[TrainingSet, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair that a training of the search gets is a training or a validation pair."""
    _, split = world
    seen: list[Any] = []
    fit = module.fit

    def spied(backbone: Any, given: TrainingSet, validation: Any, *rest: Any, **options: Any) -> Any:
        seen.extend((given.positives, given.graph, given.known, validation))
        return fit(backbone, given, validation, *rest, **options)

    monkeypatch.setattr(module, "fit", spied)
    searched(world)
    test = set(zip(split.test.users.tolist(), split.test.items.tolist(), strict=True))
    assert seen and all(test.isdisjoint(zip(x.users.tolist(), x.items.tolist(), strict=True)) for x in seen)


def test_a_value_that_is_set_is_not_searched(world: tuple[TrainingSet, Split]) -> None:
    found = searched(world, SearchConfig(), fixed=("learning_rate", "weight_decay"))
    assert found.chosen == found.own == Candidate(learning_rate=1e-2, weight_decay=5.0)
    assert (found.epochs, found.edges, len(found.candidates)) == (0, (), 1)
    decays = list_candidates("vbpr", SearchConfig(), MODEL, TRAINING, ("learning_rate",))
    assert [x.weight_decay for x in decays] == [5.0, 1e-3, 1e-2, 0.1, 1.0]
    rates = list_candidates("freedom", SearchConfig(learning_rates=(1e-3, 1e-2)), FREEDOMConfig(), TRAINING)
    assert [(x.learning_rate, x.weight_decay) for x in rates] == [(1e-2, None), (1e-3, None)]


def test_settings_that_diverge_lose_and_the_own_wins_a_tie(world: tuple[TrainingSet, Split]) -> None:
    found = searched(world, SearchConfig(learning_rates=(1e30,), weight_decays={"vbpr": ()}, steps=20))
    assert {x.learning_rate: x.score is None for x in found.candidates} == {1e-2: False, 1e30: True}
    assert found.chosen == found.own
    hopeless = searched(world, training=replace(TRAINING, learning_rate=1e30))
    assert hopeless.chosen == hopeless.own and hopeless.own.score is None


def test_all_candidates_run_shortly_and_a_ninth_to_the_end(world: tuple[TrainingSet, Split]) -> None:
    config = SearchConfig(learning_rates=(3e-3, 3e-2), weight_decays={"vbpr": (0.01, 0.1)}, steps=60)
    found = searched(world, config)
    pairs = len(world[0].positives.users)
    rungs = rung_epochs(60, pairs, TRAINING)
    assert rungs == (1, 2, 6)
    counts = [sum(x.epochs >= epochs for x in found.candidates) for epochs in rungs]
    # The own setting runs to the end whatever its rank.
    assert counts[0] == 9 and counts[1] in (3, 4) and counts[2] in (1, 2) and found.own.epochs == 6
    assert found.epochs == sum(count * epochs for count, epochs in zip(counts, rungs, strict=True))
    steps = found.epochs * np.ceil(pairs / 512)
    assert steps <= most_steps(config, 9) + 9 * sum(np.ceil(pairs / 512) for _ in rungs)
    assert rung_epochs(600, 10**7, TRAINING) == (1,) and rung_epochs(10**6, pairs, TRAINING) == (2, 6, 18)
    assert most_steps(SearchConfig(), 15) == pytest.approx(6.7 * 600, rel=0.01) and most_steps(config, 1) == 0

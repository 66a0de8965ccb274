"""The shadow evaluation: it finds harm, passes what does no harm, and never trains on test pairs."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.published_records import QualityReport
from rectifier_core.base.records import Catalog, Interactions
from rectifier_core.config import PipelineConfig, QualityConfig
from rectifier_core.evaluation import trial
from rectifier_core.evaluation.backbones.config import TrainingConfig, VBPRConfig
from rectifier_core.evaluation.config import SearchConfig, ShadowConfig
from rectifier_core.evaluation.shadow import FEWEST_USERS, ShadowResult, bounded, evaluate_shadow
from rectifier_core.evaluation.splits import split_time
from rectifier_core.quality import ShadowMeasure, check_quality
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.trust.config import TrustConfig
from tests.support.core_samples import log_of

QUICK = ShadowConfig(
    seeds=2,
    model=VBPRConfig(embedding_size=16, weight_decay=0.1),
    training=TrainingConfig(learning_rate=1e-2, epochs=20, batch_size=512, evaluate_every=2),
)
# Every feature moves a little. The default mixing leaves this clean catalog alone, and nothing would be compared.
USUAL = PipelineConfig(
    anchors=AnchorsConfig(epochs=3, embedding_size=16),
    trust=TrustConfig(resamples=20),
    rectify=RectifyConfig(mix="constant", keep_original=0.8),
)
UNTOUCHED = replace(USUAL, rectify=RectifyConfig(mix="constant", keep_original=1))
# Every feature becomes the mean of all, so it has no information about its item.
HARMFUL = replace(
    USUAL,
    rectify=RectifyConfig(mix="constant", keep_original=0),
    affinity=AffinityConfig(num_neighbours=300, temperature=100),
)


def kinds_world(
    *, users: int = 600, items: int = 300, kinds: int = 10, pairs: int = 6, timed: bool = True
) -> tuple[Catalog, Interactions]:
    """Every user takes few items of one kind. The features show the kind, and the log alone hardly does."""
    rng = np.random.default_rng(0)
    kind = np.arange(items) % kinds
    taking = np.repeat(np.arange(users), pairs)
    taken = np.concatenate([rng.permutation(np.flatnonzero(kind == user % kinds))[:pairs] for user in range(users)])
    taken = np.where(rng.random(len(taken)) < 0.1, rng.integers(0, items, len(taken)), taken)
    keys = np.unique(taking * items + taken)
    log = log_of(keys // items, keys % items, users, items)
    features = 2 * rng.standard_normal((kinds, 12))[kind] + 0.5 * rng.standard_normal((items, 12))
    catalog = Catalog(
        item_ids=np.array([f"i{x}" for x in range(items)]),
        features={"image": features.astype(np.float32)},
        present={"image": np.ones(items, np.bool_)},
    )
    return catalog, replace(log, times=rng.integers(0, 1_000_000, len(keys))) if timed else log


@pytest.fixture(scope="module")
def world() -> tuple[Catalog, Interactions]:
    return kinds_world()


@pytest.fixture(scope="module")
def usual(world: tuple[Catalog, Interactions]) -> ShadowResult:
    return evaluate_shadow(*world, QUICK, USUAL, seed=0)


@pytest.fixture(scope="module")
def harmful(world: tuple[Catalog, Interactions]) -> ShadowResult:
    return evaluate_shadow(*world, QUICK, HARMFUL, seed=0)


def gate(result: ShadowResult) -> QualityReport:
    assert result.high is not None
    measure = ShadowMeasure(backbone=result.backbone, highest=result.high, tolerance=result.tolerance)
    counts = {"rows_read": 5, "rows_out": 5, "rows_quarantined": 0}
    return check_quality(**counts, modalities={}, config=QualityConfig(), shadow=measure)


def test_harmless_rectification_passes(usual: ShadowResult, world: tuple[Catalog, Interactions]) -> None:
    assert (usual.split, usual.split_reason, usual.reason, usual.not_worse) == ("time", "", "", True)
    assert usual.change is not None and usual.low is not None and usual.high is not None
    assert usual.low < usual.change < usual.high
    assert usual.change == pytest.approx(usual.rectified["recall@20"] / usual.raw["recall@20"] - 1, abs=1e-6)
    assert usual.rectified != usual.raw
    assert usual.users == len(np.unique(split_time(world[1]).test.users))
    assert (usual.interactions, usual.interactions_of, usual.items) == (len(world[1].users), len(world[1].users), 300)
    assert gate(usual).passed


def test_rectification_that_removes_the_information_is_refused(harmful: ShadowResult, usual: ShadowResult) -> None:
    assert harmful.raw == usual.raw
    assert harmful.high is not None and harmful.high < -0.1 and harmful.not_worse is False
    (failed,) = (check for check in gate(harmful).checks if not check.passed)
    assert failed.name.startswith("shadow vbpr: change of Recall@20")
    assert (failed.value, failed.rule, failed.bound) == (harmful.high, "at least", -0.01)


def test_unchanged_features_have_no_difference_and_are_trained_on_once(
    usual: ShadowResult, world: tuple[Catalog, Interactions]
) -> None:
    same = evaluate_shadow(*world, QUICK, UNTOUCHED, seed=0)
    assert (same.change, same.low, same.high, same.not_worse) == (0.0, 0.0, 0.0, True)
    assert same.raw == same.rectified == usual.raw
    assert same.epochs * 2 == usual.epochs


def test_the_result_depends_on_the_seed_alone(world: tuple[Catalog, Interactions]) -> None:
    brief = replace(QUICK, seeds=1, training=TrainingConfig(epochs=2))
    first, again, other = (evaluate_shadow(*world, brief, USUAL, seed=seed) for seed in (0, 0, 1))
    assert asdict(again) == asdict(first)
    assert other.raw != first.raw


def test_test_pairs_are_not_trained_on(usual: ShadowResult, world: tuple[Catalog, Interactions]) -> None:
    catalog, log = world
    assert log.times is not None
    tested = log.times >= split_time(log).test.times.min()  # type: ignore[union-attr]
    items = log.items.copy()
    # Only the test items change, so the recommendations must stay, and so must their coverage.
    items[tested] = 299 - items[tested]
    moved = evaluate_shadow(catalog, replace(log, items=items), QUICK, USUAL, seed=0)
    for side in ("raw", "rectified"):
        before, after = getattr(usual, side), getattr(moved, side)
        assert after["coverage@20"] == before["coverage@20"]
        assert after["recall@20"] < 0.5 * before["recall@20"]


def test_a_log_without_usable_times_is_divided_at_random(world: tuple[Catalog, Interactions]) -> None:
    catalog, log = world
    brief = replace(QUICK, seeds=1, training=TrainingConfig(epochs=1))
    # In the last one, users come one after another, so a cut in time leaves only unknown users.
    for times, reason in (
        (None, "the log has no times"),
        (np.zeros(len(log.users), np.int64), "the log's times are too few to cut it in time"),
        (log.users.astype(np.int64), "a cut in time leaves 0 users to test"),
    ):
        result = evaluate_shadow(catalog, replace(log, times=times), brief, UNTOUCHED, seed=0)
        assert (result.split, result.split_reason, result.users) == ("users", reason, 600)


def test_too_few_users_give_no_result() -> None:
    result = evaluate_shadow(*kinds_world(users=FEWEST_USERS - 1), QUICK, USUAL, seed=0)
    assert (result.change, result.low, result.high, result.not_worse) == (None, None, None, None)
    assert result.reason == f"only {FEWEST_USERS - 1} users can be tested, and at least {FEWEST_USERS} are needed"
    assert (result.raw, result.rectified, result.epochs) == ({}, {}, 0)


@pytest.mark.parametrize("most", [1, 120, 2500])
def test_a_long_log_is_sampled_by_whole_users(world: tuple[Catalog, Interactions], most: int) -> None:
    catalog, log = world
    # Every pair has a time of its own, which identifies it in the sample.
    log = replace(log, times=np.random.default_rng(1).permutation(len(log.users)))
    category = np.arange(300, dtype=np.int32) * 3
    part = bounded(catalog, log, category, most, seed=3)
    pairs = part.interactions
    assert log.times is not None and pairs.times is not None and part.category is not None
    origin = np.argsort(log.times)[pairs.times]
    assert np.all(np.diff(origin) > 0)
    assert min(most - 10, len(log.users)) <= len(origin) <= max(most, np.bincount(log.users).max())
    assert np.bincount(log.users)[np.unique(log.users[origin])].sum() == len(origin)
    assert len({*zip(pairs.users.tolist(), log.users[origin].tolist(), strict=True)}) == pairs.num_users
    items = log.items[origin]
    np.testing.assert_array_equal(part.catalog.item_ids[pairs.items], catalog.item_ids[items])
    np.testing.assert_array_equal(part.catalog.features["image"][pairs.items], catalog.features["image"][items])
    np.testing.assert_array_equal(part.category[pairs.items], category[items])
    assert pairs.num_items == len(part.catalog.item_ids) == len(np.unique(pairs.items))


def test_a_model_below_popularity_gives_no_verdict(
    world: tuple[Catalog, Interactions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "baselines", lambda *_: {trial.CHANCE: 0.1, trial.POPULARITY: 0.99})
    result = evaluate_shadow(*world, QUICK, HARMFUL, seed=0)
    assert (result.change, result.high, result.not_worse) == (None, None, None)
    assert result.reason.startswith("vbpr ranks below popularity (recall@20 0.")
    assert result.reason.endswith("set evaluation.training.vbpr.learning_rate or evaluation.models.vbpr.weight_decay")


def test_the_search_mends_a_shadow_below_popularity(world: tuple[Catalog, Interactions]) -> None:
    catalog, log = world
    rng = np.random.default_rng(1)
    # A few hits that everybody takes lift popularity; features this small leave VBPR nothing against its default weight decay.
    hits = np.concatenate([rng.permutation(12)[:4] for _ in range(log.num_users)])
    taken = np.concatenate([log.users, np.repeat(np.arange(log.num_users), 4)]), np.concatenate([log.items, hits])
    users, items = np.unique(np.stack(taken), axis=1)
    popular = log_of(users, items, log.num_users, log.num_items)
    weak = replace(catalog, features={m: x * np.float32(0.03) for m, x in catalog.features.items()})
    training = replace(QUICK.training, evaluate_every=10)  # type: ignore[type-var]
    plain = replace(QUICK, seeds=1, model=VBPRConfig(embedding_size=16), training=training)
    failed = evaluate_shadow(weak, popular, plain, HARMFUL, seed=0)
    assert failed.not_worse is None and failed.reason.startswith("vbpr ranks below popularity (recall@20 ")
    search = SearchConfig(learning_rates=(), weight_decays={"vbpr": (0.01,)}, steps=200)
    mended = evaluate_shadow(weak, popular, replace(plain, search=search), HARMFUL, seed=0)
    assert mended.search is not None and mended.search.chosen.weight_decay == 0.01
    assert mended.not_worse is not None and mended.raw["recall@20"] > mended.raw[trial.POPULARITY]
    assert mended.epochs == failed.epochs + mended.search.epochs


def test_harm_below_popularity_is_still_refused(
    world: tuple[Catalog, Interactions], monkeypatch: pytest.MonkeyPatch, harmful: ShadowResult
) -> None:
    """The raw side says whether the model is trained. Rectified features that take it below popularity are harm."""
    between = (harmful.raw["recall@20"] + harmful.rectified["recall@20"]) / 2
    monkeypatch.setattr(trial, "baselines", lambda *_: {trial.CHANCE: 0.1, trial.POPULARITY: between})
    assert evaluate_shadow(*world, QUICK, HARMFUL, seed=0).not_worse is False

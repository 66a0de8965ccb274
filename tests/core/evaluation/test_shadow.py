"""The shadow evaluation: harm is seen, no harm is let pass, and nothing tested is learned from."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.published_records import QualityReport
from rectifier_core.base.records import Catalog, Interactions
from rectifier_core.config import PipelineConfig, QualityConfig
from rectifier_core.evaluation.config import ShadowConfig, TrainingConfig, VBPRConfig
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
USUAL = PipelineConfig(anchors=AnchorsConfig(epochs=3, embedding_size=16), trust=TrustConfig(resamples=20))
UNTOUCHED = replace(USUAL, rectify=RectifyConfig(mix="constant", keep_original=1))
# Every feature becomes the mean of all, so that nothing it said of its item is left.
HARMFUL = replace(
    USUAL,
    rectify=RectifyConfig(mix="constant", keep_original=0),
    affinity=AffinityConfig(num_neighbours=300, temperature=100),
)


def kinds_world(
    *, users: int = 600, items: int = 300, kinds: int = 10, pairs: int = 6, timed: bool = True
) -> tuple[Catalog, Interactions]:
    """Everybody takes few items of one kind, which the features show: without them an item is hardly known."""
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
    return check_quality(
        rows_read=5, rows_out=5, rows_quarantined=0, modalities={}, config=QualityConfig(), shadow=measure
    )


def test_rectification_that_does_no_harm_passes(usual: ShadowResult, world: tuple[Catalog, Interactions]) -> None:
    assert usual.split == "time" and usual.split_reason == "" and usual.reason == ""
    assert usual.change is not None and usual.low is not None and usual.high is not None
    assert usual.low < usual.change < usual.high
    assert usual.not_worse is True
    assert usual.change == pytest.approx(usual.rectified["recall@20"] / usual.raw["recall@20"] - 1, abs=1e-6)
    assert usual.rectified != usual.raw, "something was rectified"
    assert usual.users == len(np.unique(split_time(world[1]).test.users))
    assert (usual.interactions, usual.interactions_of, usual.items) == (len(world[1].users), len(world[1].users), 300)
    assert gate(usual).passed


def test_rectification_that_wipes_the_features_out_is_caught(harmful: ShadowResult, usual: ShadowResult) -> None:
    assert harmful.raw == usual.raw, "the raw side does not depend on what is compared with it"
    assert harmful.high is not None and harmful.high < -0.1
    assert harmful.not_worse is False
    refused = gate(harmful)
    (failed,) = (check for check in refused.checks if not check.passed)
    assert failed.name.startswith("shadow vbpr: change of Recall@20")
    assert (failed.value, failed.rule, failed.bound) == (harmful.high, "at least", -0.01)


def test_features_that_were_left_alone_differ_by_exactly_nothing(
    usual: ShadowResult, world: tuple[Catalog, Interactions]
) -> None:
    same = evaluate_shadow(*world, QUICK, UNTOUCHED, seed=0)
    assert (same.change, same.low, same.high, same.not_worse) == (0.0, 0.0, 0.0, True)
    assert same.raw == same.rectified == usual.raw
    assert same.epochs * 2 == usual.epochs, "equal features are trained on once"


def test_the_same_seed_gives_the_same_result_and_another_one_another(
    usual: ShadowResult, world: tuple[Catalog, Interactions]
) -> None:
    again, other = (evaluate_shadow(*world, QUICK, USUAL, seed=seed) for seed in (0, 1))
    assert asdict(again) == asdict(usual)
    assert other.raw != usual.raw


def test_what_is_tested_on_is_not_learned_from(usual: ShadowResult, world: tuple[Catalog, Interactions]) -> None:
    catalog, log = world
    assert log.times is not None
    tested = log.times >= split_time(log).test.times.min()  # type: ignore[union-attr]
    items = log.items.copy()
    # Other items, so other truth, but the same users and times: what is recommended must stay, and so its coverage.
    items[tested] = 299 - items[tested]
    moved = evaluate_shadow(catalog, replace(log, items=items), QUICK, USUAL, seed=0)
    for side in ("raw", "rectified"):
        was, now = getattr(usual, side), getattr(moved, side)
        assert now["coverage@20"] == was["coverage@20"]
        assert now["recall@20"] < 0.5 * was["recall@20"]


def test_a_log_without_usable_times_is_divided_at_random(world: tuple[Catalog, Interactions]) -> None:
    catalog, log = world
    brief = replace(QUICK, seeds=1, training=TrainingConfig(epochs=1))
    bare = evaluate_shadow(catalog, replace(log, times=None), brief, UNTOUCHED, seed=0)
    assert (bare.split, bare.split_reason, bare.users) == ("users", "the log has no times", 600)
    flat = evaluate_shadow(catalog, replace(log, times=np.zeros(len(log.users), np.int64)), brief, UNTOUCHED, seed=0)
    assert (flat.split, flat.split_reason) == ("users", "the log's times are too few to cut it in time")
    # One user after another: whoever comes last was never seen before.
    queue = evaluate_shadow(catalog, replace(log, times=log.users.astype(np.int64)), brief, UNTOUCHED, seed=0)
    assert (queue.split, queue.split_reason) == ("users", "a cut in time leaves 0 users to test")
    assert bare.raw == flat.raw == queue.raw


def test_too_few_users_are_not_judged() -> None:
    result = evaluate_shadow(*kinds_world(users=FEWEST_USERS - 1), QUICK, USUAL, seed=0)
    assert (result.change, result.low, result.high, result.not_worse) == (None, None, None, None)
    assert result.reason == f"only {FEWEST_USERS - 1} users can be tested, and at least {FEWEST_USERS} are needed"
    assert (result.raw, result.rectified, result.epochs) == ({}, {}, 0)


@pytest.mark.parametrize("most", [1, 120, 2500])
def test_a_long_log_is_judged_on_whole_users_and_their_items(world: tuple[Catalog, Interactions], most: int) -> None:
    catalog, log = world
    # A time of its own for every pair, by which it is known again.
    log = replace(log, times=np.random.default_rng(1).permutation(len(log.users)))
    category = np.arange(300, dtype=np.int32) * 3
    part = bounded(catalog, log, category, most, seed=3)
    pairs = part.interactions
    assert log.times is not None and pairs.times is not None and part.category is not None
    was = np.argsort(log.times)[pairs.times]
    assert np.all(np.diff(was) > 0)
    assert len(was) <= max(most, np.bincount(log.users).max()) and len(was) >= min(most - 10, len(log.users))
    assert (np.bincount(log.users)[np.unique(log.users[was])].sum()) == len(was), "whole users"
    assert len({*zip(pairs.users.tolist(), log.users[was].tolist(), strict=True)}) == pairs.num_users
    np.testing.assert_array_equal(part.catalog.item_ids[pairs.items], catalog.item_ids[log.items[was]])
    np.testing.assert_array_equal(
        part.catalog.features["image"][pairs.items], catalog.features["image"][log.items[was]]
    )
    np.testing.assert_array_equal(part.category[pairs.items], category[log.items[was]])
    assert pairs.num_items == len(part.catalog.item_ids) == len(np.unique(pairs.items))
    other = bounded(catalog, log, None, most, seed=4).interactions.times
    assert other is not None and not np.array_equal(other, pairs.times), "drawn by the seed"

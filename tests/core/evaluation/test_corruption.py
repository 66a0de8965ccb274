"""Every kind of damage to features: how much, where, and which rows count as damaged."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.records import Catalog
from rectifier_core.evaluation.config import DamageKind
from rectifier_core.evaluation.corruption import damage_catalog, damage_features, swap_runs
from tests.support.core_samples import normals

EVERYTHING = np.ones(200, np.bool_)
every_kind = pytest.mark.parametrize("kind", get_args(DamageKind))


def catalog_of(seed: int, *, items: int = 120) -> Catalog:
    rng = np.random.default_rng(seed)
    present = {"image": rng.random(items) < 0.8, "text": np.ones(items, np.bool_)}
    features = {"image": normals(rng, items, 6) + 2, "text": normals(rng, items, 4)}
    features["image"][~present["image"]] = 0
    return Catalog(item_ids=np.arange(items), features=features, present=present)


CATEGORY = (np.arange(120) % 3).astype(np.int32)


@every_kind
@given(seed=st.integers(0, 200), share=st.floats(0, 1))
@settings(max_examples=10, deadline=None)
def test_the_share_of_present_rows_is_damaged_in_a_copy(kind: DamageKind, seed: int, share: float) -> None:
    catalog = catalog_of(seed)
    before = catalog.features["image"].copy()
    damaged, truth = damage_catalog(catalog, kind, {"image": share}, seed=seed, category=CATEGORY)
    np.testing.assert_array_equal(catalog.features["image"], before)
    np.testing.assert_array_equal((damaged.features["image"] != before).any(axis=1), truth["image"])
    wanted = round(share * catalog.present["image"].sum())
    # A row without a partner is not swapped.
    alone = {"swap": 1, "within": 3, "segments": 1}.get(kind, 0)
    assert wanted - alone <= truth["image"].sum() <= wanted
    assert not truth["image"][~catalog.present["image"]].any()
    assert damaged.features["text"] is catalog.features["text"] and not truth["text"].any()
    gone = catalog.present["image"] & ~damaged.present["image"]
    np.testing.assert_array_equal(gone, truth["image"] if kind == "drop" else np.zeros(120, np.bool_))


@every_kind
def test_damage_depends_on_seed_and_modality_alone(kind: DamageKind) -> None:
    catalog, both = catalog_of(0), {"image": 0.3, "text": 0.3}
    first, truth = damage_catalog(catalog, kind, both, seed=1, category=CATEGORY)
    again, _ = damage_catalog(catalog, kind, {"text": 0.3}, seed=1, category=CATEGORY)
    _, other = damage_catalog(catalog, kind, both, seed=2, category=CATEGORY)
    np.testing.assert_array_equal(first.features["text"], again.features["text"])
    assert (truth["text"] != other["text"]).any() and (truth["image"] != truth["text"]).any()


@pytest.mark.parametrize("kind", ["swap", "within"])
def test_swaps_keep_the_rows_of_each_group(kind: DamageKind) -> None:
    rng = np.random.default_rng(0)
    features, groups = normals(rng, 200, 3), rng.integers(-1, 20, 200).astype(np.int32)
    swapped, _ = damage_features(features, EVERYTHING, kind, 0.7, seed=0, name="image", groups=groups)
    for group in np.unique(groups):
        rows = groups == group if kind == "within" else EVERYTHING
        np.testing.assert_array_equal(np.sort(swapped[rows], axis=0), np.sort(features[rows], axis=0))


def test_noise_has_the_spread_of_each_column() -> None:
    features = (normals(np.random.default_rng(0), 20_000, 2) * np.float32([1, 30]) + 100).astype(np.float32)
    noisy, truth = damage_features(features, np.ones(20_000, np.bool_), "noise", 0.5, seed=0, name="image")
    np.testing.assert_allclose((noisy - features)[truth].std(axis=0), [1, 30], rtol=0.03)


def test_the_wrong_scale_keeps_directions_and_uses_both_factors() -> None:
    features = normals(np.random.default_rng(0), 200, 4)
    scaled, truth = damage_features(features, EVERYTHING, "scale", 0.5, seed=0, name="image")
    factors = (scaled / features)[truth]
    np.testing.assert_allclose(factors, factors[:, :1] * np.ones(4), rtol=1e-5)
    assert set(np.round(factors[:, 0].astype(np.float64), 3).tolist()) == {0.1, 10.0}


def test_segment_damage_takes_a_contiguous_half_of_the_columns_from_one_other_row() -> None:
    features = normals(np.random.default_rng(0), 200, 6)
    damaged, truth = damage_features(features, EVERYTHING, "segments", 0.5, seed=0, name="image")
    for row in np.flatnonzero(truth):
        at = np.flatnonzero(features[row] != damaged[row])
        assert len(at) == 3 and at[-1] - at[0] == 2
        assert (features[:, at] == damaged[row, at]).all(axis=1).sum() == 1


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=40), share=st.floats(0, 1), seed=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_a_run_of_segments_comes_from_one_other_sequence(lengths: list[int], share: float, seed: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    segments = np.arange(offsets[-1], dtype=np.float32)[:, None] + np.zeros((1, 2), np.float32)
    swapped, truth = swap_runs(segments, offsets, share, seed=seed, name="video")
    np.testing.assert_array_equal((swapped != segments).any(axis=1), truth)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    damaged = np.unique(owner[truth])
    count = round(share * sum(x >= 2 for x in lengths))
    assert len(damaged) == (count if count > 1 else 0)
    for item in damaged:
        own = slice(offsets[item], offsets[item + 1])
        at = np.flatnonzero(truth[own])
        assert 0 < len(at) < lengths[item] and at[-1] - at[0] == len(at) - 1
        donors = np.unique(owner[swapped[own, 0][at].astype(np.int64)])
        assert len(donors) == 1 and donors[0] != item and lengths[donors[0]] >= 2

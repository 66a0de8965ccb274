"""Every kind of damage to features: how much, where, and that the truth is the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.records import Catalog
from rectifier_core.evaluation.config import DamageKind
from rectifier_core.evaluation.corruption import DAMAGE_KINDS, add_noise, damage_catalog, swap_runs
from tests.support.core_samples import normals


def catalog_of(seed: int, *, items: int = 120) -> Catalog:
    rng = np.random.default_rng(seed)
    present = {"image": rng.random(items) < 0.8, "text": np.ones(items, np.bool_)}
    features = {"image": normals(rng, items, 6) + 2, "text": normals(rng, items, 4)}
    features["image"][~present["image"]] = 0
    return Catalog(item_ids=np.arange(items), features=features, present=present)


CATEGORY = (np.arange(120) % 3).astype(np.int32)


def changed(before: Catalog, after: Catalog, name: str) -> Bool:
    moved: Bool = (before.features[name] != after.features[name]).any(axis=1)
    return moved


@pytest.mark.parametrize("kind", DAMAGE_KINDS)
@given(seed=st.integers(0, 200), share=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_exactly_the_share_is_damaged_truth_marks_it_and_the_original_is_left_alone(
    kind: DamageKind, seed: int, share: float
) -> None:
    catalog = catalog_of(seed)
    before = {m: x.copy() for m, x in catalog.features.items()}
    damaged, truth = damage_catalog(catalog, kind, {"image": share}, seed=seed, category=CATEGORY)
    np.testing.assert_array_equal(catalog.features["image"], before["image"])
    np.testing.assert_array_equal(changed(catalog, damaged, "image"), truth["image"])
    wanted = round(share * catalog.present["image"].sum())
    # A row alone in what it could be swapped with stays.
    alone = {"swap": 1, "within": 3, "segments": 1}.get(kind, 0)
    assert wanted - alone <= truth["image"].sum() <= wanted
    assert not truth["image"][~catalog.present["image"]].any()
    assert damaged.features["text"] is catalog.features["text"] and not truth["text"].any()
    gone = catalog.present["image"] & ~damaged.present["image"]
    np.testing.assert_array_equal(gone, truth["image"] if kind == "drop" else np.zeros(120, np.bool_))


@pytest.mark.parametrize("kind", DAMAGE_KINDS)
def test_damage_is_seeded_apart_by_modality_and_never_accumulates(kind: DamageKind) -> None:
    catalog = catalog_of(0)
    both = {"image": 0.3, "text": 0.3}
    first, truth = damage_catalog(catalog, kind, both, seed=1, category=CATEGORY)
    again, _ = damage_catalog(catalog, kind, {"text": 0.3}, seed=1, category=CATEGORY)
    _, other = damage_catalog(catalog, kind, both, seed=2, category=CATEGORY)
    np.testing.assert_array_equal(first.features["text"], again.features["text"])
    assert (truth["text"] != other["text"]).any()
    assert (truth["image"] & catalog.present["image"]).any() and (truth["image"] != truth["text"]).any()
    # What a larger share does to a row that it leaves alone: nothing, whatever a smaller one did.
    larger, damaged = damage_catalog(catalog, kind, {"text": 0.4}, seed=1, category=CATEGORY)
    np.testing.assert_array_equal(larger.features["text"][~damaged["text"]], catalog.features["text"][~damaged["text"]])


def damaged_rows(kind: DamageKind, name: str = "image", share: float = 0.5) -> tuple[Float32, Float32]:
    catalog = catalog_of(3)
    damaged, truth = damage_catalog(catalog, kind, {name: share}, seed=0, category=CATEGORY)
    return catalog.features[name][truth[name]], damaged.features[name][truth[name]]


def test_swaps_keep_the_rows_and_within_keeps_them_in_their_category() -> None:
    catalog = catalog_of(3)
    for kind in ("swap", "within"):
        before, after = damaged_rows(kind)
        np.testing.assert_array_equal(np.sort(before, axis=0), np.sort(after, axis=0))
    damaged, _ = damage_catalog(catalog, "within", {"text": 1.0}, seed=0, category=CATEGORY)
    for group in range(3):
        pair = (x.features["text"][group == CATEGORY] for x in (catalog, damaged))
        np.testing.assert_array_equal(*(np.sort(x, axis=0) for x in pair))


def test_noise_is_as_large_as_the_spread_of_each_column() -> None:
    rng = np.random.default_rng(0)
    features = (normals(rng, 20_000, 2) * np.float32([1, 30]) + 100).astype(np.float32)
    noisy, truth = add_noise(features, np.ones(20_000, np.bool_), 0.5, seed=0, name="image", level=0.5)
    np.testing.assert_allclose((noisy - features)[truth].std(axis=0), [0.5, 15], rtol=0.03)
    np.testing.assert_allclose((noisy - features)[truth].mean(axis=0), [0, 0], atol=0.6)


def test_the_wrong_scale_keeps_directions_and_uses_both_factors() -> None:
    before, after = damaged_rows("scale")
    factors = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
    assert set(np.round(factors.astype(np.float64), 3).tolist()) == {0.1, 10.0}
    np.testing.assert_allclose(after, before * factors[:, None], rtol=1e-5)


def test_segment_damage_takes_one_contiguous_half_of_the_columns_from_one_other_row() -> None:
    catalog = catalog_of(3)
    before, after = damaged_rows("segments")
    for old, new in zip(before, after, strict=True):
        at = np.flatnonzero(old != new)
        assert len(at) == 3 and at[-1] - at[0] == 2
        sources = np.flatnonzero((catalog.features["image"][:, at] == new[at]).all(axis=1))
        assert len(sources) == 1 and not (catalog.features["image"][sources[0]] == old).all()


def sequences(lengths: list[int]) -> tuple[Float32, Int64]:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(offsets[-1], dtype=np.float32)[:, None] + np.zeros((1, 2), np.float32), offsets


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=40), share=st.floats(0, 1), seed=st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_runs_of_segments_come_from_one_other_sequence_and_leave_part_of_the_own(
    lengths: list[int], share: float, seed: int
) -> None:
    segments, offsets = sequences(lengths)
    swapped, truth = swap_runs(segments, offsets, share, seed=seed, name="video")
    np.testing.assert_array_equal((swapped != segments).any(axis=1), truth)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    hit = np.unique(owner[truth])
    assert len(hit) in {0, round(share * sum(x >= 2 for x in lengths))}
    for item in hit:
        own = slice(offsets[item], offsets[item + 1])
        at = np.flatnonzero(truth[own])
        assert 0 < len(at) < lengths[item] and at[-1] - at[0] == len(at) - 1
        donors = np.unique(owner[swapped[own, 0][at].astype(np.int64)])
        assert len(donors) == 1 and donors[0] != item and lengths[donors[0]] >= 2

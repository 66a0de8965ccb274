"""Groups of near copies against brute force, and which of them are called placeholders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Anchors, Copies
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.copies.copies import find_copies
from rectifier_core.copies.near_copies import label_copies, sketch_rows
from tests.support.core_samples import anchors_of, normals, random_units

SMALL = CopiesConfig(leaf_rows=8, block_rows=37)


def found(
    features: Float32, anchors: Anchors | None = None, config: CopiesConfig = SMALL, present: Bool | None = None
) -> Copies:
    there = np.ones(len(features), np.bool_) if present is None else present
    known = (
        anchors_of(np.zeros((len(features), 4), np.float32), np.zeros(len(features), np.bool_))
        if anchors is None
        else anchors
    )
    return find_copies("image", features, there, known, config, seed=3)


def members(copies: Copies) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(copies.group == g).tolist()) for g in range(len(copies.unlike))}


def brute_force(features: Float32, threshold: float = 0.999) -> set[frozenset[int]]:
    """Connected components of all pairs, distances in units of the spread."""
    unit = unit_rows(features).astype(np.float64)
    spread = 1 - np.square(unit.mean(axis=0)).sum()
    distance = np.square(unit[:, None] - unit).sum(axis=2)
    _, label = connected_components(distance <= 2 * (1 - threshold) * spread, directed=False)
    return {frozenset(np.flatnonzero(label == x).tolist()) for x in np.unique(label) if (label == x).sum() > 1}


def planted(
    seed: int,
    *,
    items: int = 300,
    width: int = 24,
    sizes: tuple[int, ...] = (40, 9, 4, 2),
    noise: float = 0.0,
    clusters: int = 0,
    offset: float = 0.7,
) -> tuple[Float32, set[frozenset[int]]]:
    """Features, in clusters or not, with groups of copies at random rows, each copy scaled by its own factor."""
    rng = np.random.default_rng(seed)
    features = normals(rng, items, width)
    if clusters:
        features = normals(rng, clusters, width)[rng.integers(0, clusters, items)] + np.float32(0.3) * features
    features += np.float32(offset)
    free, groups = rng.permutation(items), set()
    for size in sizes:
        rows, free = free[:size], free[size:]
        scale = rng.uniform(0.2, 5, (size, 1)).astype(np.float32)
        features[rows] = (features[rows[0]] + np.float32(noise) * normals(rng, size, width)) * scale
        groups.add(frozenset(rows.tolist()))
    return features, groups


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(2, 30), max_size=5),
    noise=st.sampled_from([0.0, 1e-6, 1e-4]),
    clusters=st.sampled_from([0, 3, 40]),
    offset=st.sampled_from([0.0, 3.0]),
)
def test_the_forest_finds_what_brute_force_finds(
    seed: int, sizes: list[int], noise: float, clusters: int, offset: float
) -> None:
    features, groups = planted(seed, items=200, sizes=tuple(sizes), noise=noise, clusters=clusters, offset=offset)
    assert members(found(features)) == brute_force(features) == groups


@pytest.mark.parametrize("stored", [np.float32, np.float16])
def test_scaled_and_rounded_copies_are_copies(stored: type[np.floating]) -> None:
    features, groups = planted(1, items=2_000, width=64, sizes=(500, 200, 30, 6, 2))
    assert members(found(features.astype(stored).astype(np.float32))) == groups


def test_noisy_copies_stay_one_group() -> None:
    features, groups = planted(2, items=3_000, width=64, sizes=(1_500, 300, 8), noise=5e-3)
    assert members(found(features)) == groups


def test_a_shared_part_does_not_make_everything_a_copy() -> None:
    features, groups = planted(3, items=400, width=64, offset=200)
    unit = unit_rows(features)
    assert float((unit[:50] @ unit[:50].T).min()) > 0.9999
    assert members(found(features)) == groups


@pytest.mark.parametrize("clusters", [0, 1, 5, 500])
def test_no_groups_without_copies(clusters: int) -> None:
    rng = np.random.default_rng(4)
    features = normals(rng, 4_000, 96)
    if clusters:
        features = normals(rng, clusters, 96)[rng.integers(0, clusters, 4_000)] + np.float32(0.15) * features
    copies = found(features)
    assert (copies.group == -1).all() and not len(copies.unlike)


def test_a_continuum_is_no_group_but_its_identical_rows_are() -> None:
    # Each row is near the next one, and the last is nothing like the first.
    turn = np.linspace(0, np.pi, 2_000)
    features = np.stack([np.cos(turn), np.sin(turn), np.zeros(2_000)], axis=1).astype(np.float32)
    features[[70, 900, 1_500]] = features[70]
    assert members(found(features)) == {frozenset({70, 900, 1_500})}


def test_absent_and_zero_rows_are_in_no_group() -> None:
    features, _ = planted(5, sizes=())
    present = np.ones(len(features), np.bool_)
    present[:20] = False
    features[:40] = 0
    features[50:60] = features[50]
    assert members(found(features, present=present)) == {frozenset(range(50, 60))}
    assert found(features, present=np.zeros_like(present)).group.tolist() == [-1] * len(features)


@pytest.mark.parametrize("block_rows", [1, 64, 10_000])
def test_block_sizes_change_nothing(block_rows: int) -> None:
    features, groups = planted(6, noise=1e-5)
    copies = found(features, config=replace(SMALL, block_rows=block_rows))
    assert members(copies) == groups
    np.testing.assert_array_equal(copies.group, found(features).group)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_items_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, _ = planted(seed, sizes=(60, 24, 12, 5, 3, 2), noise=float(rng.choice([0, 1e-3])))
    anchors = anchors_of(random_units(rng, len(features), 8), rng.random(len(features)) < 0.8)
    order = rng.permutation(len(features))
    shuffled = anchors_of(anchors.items[order], anchors.trained[order])
    before, after = found(features, anchors), found(features[order], shuffled)
    assert members(before) == {frozenset(order[list(group)].tolist()) for group in members(after)}
    np.testing.assert_array_equal(before.placeholder[order], after.placeholder)
    np.testing.assert_array_equal(np.bincount(before.group + 1)[1:], np.bincount(after.group + 1)[1:])


def test_groups_are_numbered_by_falling_size_then_by_first_item() -> None:
    features, _ = planted(7, sizes=(5, 9, 5, 2, 9))
    copies = found(features)
    sizes = np.bincount(copies.group[copies.group >= 0])
    assert sizes.tolist() == [9, 9, 5, 5, 2]
    first = [int(np.flatnonzero(copies.group == g)[0]) for g in range(5)]
    assert first[0] < first[1] and first[2] < first[3]


def variants_and_placeholders(
    *, seed: int = 8, items: int = 4_000, popular: bool = False
) -> tuple[Float32, Anchors, dict[str, list[Int64]]]:
    """Variants: ten groups of one product each; placeholders: ten groups of arbitrary items, or of arbitrary popular ones."""
    rng = np.random.default_rng(seed)
    popularity = rng.exponential(size=items)
    liked = np.quantile(popularity, 0.7) < popularity
    places = normals(rng, items, 16)
    # What all popular items share: their anchors are alike before anything is known of them.
    places[liked, 0] += 4
    pool = {
        "variants": rng.permutation(np.flatnonzero(~liked)),
        "placeholders": rng.permutation(np.flatnonzero(liked == popular)),
    }
    pool["placeholders"] = np.setdiff1d(pool["placeholders"], pool["variants"][:300], assume_unique=True)
    features = normals(rng, items, 32)
    groups: dict[str, list[Int64]] = {"variants": [], "placeholders": []}
    for kind, given_rows in groups.items():
        for number in range(10):
            size = (5, 8, 12, 30, 50)[number % 5]
            rows, pool[kind] = pool[kind][:size], pool[kind][size:]
            features[rows] = features[rows[0]]
            if kind == "variants":
                places[rows] = places[rows[0]] + np.float32(0.5) * normals(rng, size, 16)
            given_rows.append(rows)
    anchors = anchors_of(unit_rows(places))
    return features, replace(anchors, ego=places * popularity[:, None].astype(np.float32)), groups


@pytest.mark.parametrize("popular", [False, True])
def test_variants_are_like_and_placeholders_are_not(popular: bool) -> None:
    features, anchors, groups = variants_and_placeholders(popular=popular)
    copies = found(features, anchors)
    for kind, wanted in (("variants", False), ("placeholders", True)):
        for rows in groups[kind]:
            (group,) = set(copies.group[rows].tolist())
            assert copies.unlike[group] == wanted, (kind, len(rows), copies.likeness[group])
    assert copies.placeholder.sum() == sum(map(len, groups["placeholders"]))


def test_a_placeholder_within_one_corner_of_the_catalog_is_one_still() -> None:
    rng = np.random.default_rng(9)
    kind = rng.integers(0, 8, 4_000)
    places = unit_rows(normals(rng, 8, 32)[kind] * np.float32(0.4) + normals(rng, 4_000, 32))
    features, rows = normals(rng, 4_000, 32), np.flatnonzero(kind == 2)[:200]
    features[rows] = features[rows[0]]
    copies = found(features, anchors_of(places))
    assert float(copies.likeness[0]) > 0.05
    assert copies.unlike.tolist() == [True]


@pytest.mark.parametrize(("size", "unlike"), [(2, False), (19, False), (20, True), (200, True)])
def test_without_anchors_only_many_items_make_a_placeholder(size: int, unlike: bool) -> None:
    features, _ = planted(10, sizes=(size,))
    copies = found(features)
    assert copies.unlike.tolist() == [unlike]
    assert np.isnan(copies.likeness).all()


def test_anchors_that_say_little_do_not_condemn_a_small_group() -> None:
    rng = np.random.default_rng(11)
    features, _ = planted(11, sizes=(5,))
    anchors = anchors_of(random_units(rng, len(features), 16))
    assert found(features, anchors).unlike.tolist() == [True]
    weak = replace(anchors, reliability=np.full(len(features), 0.05, np.float32))
    assert found(features, weak).unlike.tolist() == [False]


def test_random_groups_are_called_unlike_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(12)
    features, anchors = (
        normals(rng, 6_000, 32),
        anchors_of(unit_rows(normals(rng, 6_000, 12) * np.geomspace(1, 0.2, 12).astype(np.float32))),
    )
    for rows in rng.permutation(6_000)[:4_000].reshape(400, 10):
        features[rows] = features[rows[0]]
    copies = found(features, anchors, replace(SMALL, min_likeness=0.0))
    assert len(copies.unlike) == 400
    assert 0.92 <= copies.unlike.mean() <= 0.98


def test_work_does_not_grow_with_the_size_of_groups() -> None:
    rng = np.random.default_rng(13)
    features = normals(rng, 60_000, 16)
    features[:30_000] = features[0] + np.float32(1e-4) * normals(rng, 30_000, 16)
    features[30_000:50_000] = normals(rng, 4, 16)[rng.integers(0, 4, 20_000)]
    read = Counted(features)
    search = CopiesConfig()
    sketch = sketch_rows(read, np.ones(60_000, np.bool_), search, seed=0, name="image")  # type: ignore[arg-type]
    label = label_copies(read, sketch, search, seed=0, name="image")  # type: ignore[arg-type]
    assert sorted(np.bincount(label))[-5] > 4_000
    assert read.rows < 4 * 60_000


class Counted:
    """A matrix that counts the rows read of it."""

    def __init__(self, matrix: Float32) -> None:
        self.matrix, self.shape, self.rows = matrix, matrix.shape, 0

    def __getitem__(self, rows: slice | Int64) -> Float32:
        taken = self.matrix[rows]
        self.rows += len(taken)
        return taken


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.0},
        {"threshold": 0.5},
        {"min_likeness": -0.1},
        {"min_group": 1},
        {"leaf_rows": 1},
        {"large_group": 2},
    ],
)
def test_config_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CopiesConfig(**wrong)  # type: ignore[arg-type]

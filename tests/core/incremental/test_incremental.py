"""Stages brought up to date: where nothing changed nothing moves, and what changed ends where a cold run puts it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from rectifier_core.affinity.affinity import find_affinity, index_features
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Anchors, Copies, Interactions
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.copies.copies import find_copies
from rectifier_core.copies.near_copies import sketch_rows
from rectifier_core.incremental.affinity import PreviousNeighbours, update_affinity
from rectifier_core.incremental.anchors import PreviousRows, update_anchors
from rectifier_core.incremental.copies import update_copies
from rectifier_core.incremental.projection import update_projection
from rectifier_core.incremental.row_mapping import RowMapping, gathered, mapped_folds
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.crossfit import item_folds
from rectifier_core.projection.projection import fit_projection
from tests.support.core_samples import anchors_of, block_log, normals, places_of, planted_scene, random_units

EVERYTHING = 500
EXACT = AffinityConfig(index="flat", num_neighbours=7)


@dataclass(frozen=True)
class Drift:
    """A catalog one night on: rows reordered, some gone, some new, some with another feature."""

    mapping: RowMapping
    features: Float32
    anchors: Anchors


def unmoved(num_items: int) -> RowMapping:
    rows = np.arange(num_items)
    return RowMapping(previous=rows, same=np.ones(num_items, np.bool_), fold=item_folds(num_items, 5, 0))


def drift(features: Float32, anchors: Anchors, *, seed: int, changed: int = 15, come: int = 4, gone: int = 6) -> Drift:
    """``anchors`` follow their items; newcomers have features and anchors of their own."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(features))[gone:]
    before = np.concatenate([order, np.full(come, -1)])[rng.permutation(len(order) + come)]
    same = before >= 0
    same[rng.permutation(np.flatnonzero(same))[:changed]] = False
    now = features[before]
    now[~same] = normals(rng, int((~same).sum()), features.shape[1])
    items = anchors.items[before]
    items[before < 0] = random_units(rng, come, items.shape[1])
    trained = anchors.trained[before] | (before < 0)
    fold = mapped_folds(item_folds(len(features), 5, 0), before, 5, 0)
    return Drift(
        RowMapping(previous=before, same=same, fold=fold), np.ascontiguousarray(now), anchors_of(items, trained)
    )


def test_rows_are_mapping_by_item() -> None:
    before = np.array([3, -1, 0, 2])
    mapping = RowMapping(previous=before, same=np.array([True, False, True, False]), fold=np.zeros(4, np.int32))
    values = np.array([[10.0, 11], [20, 21], [30, 31], [40, 41]], np.float32)
    np.testing.assert_array_equal(mapping.rows(values, -1), [[40, 41], [-1, -1], [10, 11], [30, 31]])
    np.testing.assert_array_equal(mapping.now(4), [2, -1, 3, 0])
    rng = np.random.default_rng(0)
    large = normals(rng, 500, 3)
    for rows in (rng.permutation(500)[:9], np.arange(100, 200), np.zeros(0, np.int64)):
        np.testing.assert_array_equal(gathered(large, rows), large[rows])


def test_a_fold_stays_with_its_item() -> None:
    folds, before = item_folds(300, 5, 0), np.random.default_rng(1).permutation(310) - 10
    before[before < 0] = -1
    now = mapped_folds(folds, before, 5, 0)
    np.testing.assert_array_equal(now[before >= 0], folds[before[before >= 0]])
    assert set(now[before < 0]) <= set(range(5))


@pytest.fixture(scope="module")
def log() -> Interactions:
    return block_log(blocks=4, users=200, items=120, seed=0)


@pytest.fixture(scope="module", params=["lightgcn", "spectral"])
def trained(log: Interactions, request: pytest.FixtureRequest) -> Anchors:
    return train_anchors(log, AnchorsConfig(method=request.param, embedding_size=16, epochs=4), seed=0)


def earlier_rows(anchors: Anchors) -> PreviousRows:
    assert anchors.user_ego is not None
    return PreviousRows(users=anchors.user_ego.copy(), items=anchors.ego.copy(), reliability=anchors.reliability.copy())


def test_the_same_log_gives_the_same_anchors(log: Interactions, trained: Anchors) -> None:
    again = update_anchors(log, earlier_rows(trained), AnchorsConfig(embedding_size=16), seed=0)
    np.testing.assert_array_equal(again.items, trained.items)
    np.testing.assert_array_equal(again.ego, trained.ego)
    np.testing.assert_array_equal(again.reliability, trained.reliability)
    assert again.recalls[0] == pytest.approx(trained.recalls.max())


def test_newcomers_are_folded_in_where_their_neighbours_are(log: Interactions, trained: Anchors) -> None:
    rows = earlier_rows(trained)
    rows.users[:20], rows.items[:8], rows.reliability[:8] = np.nan, np.nan, np.nan
    found = update_anchors(log, rows, AnchorsConfig(embedding_size=16), seed=0)
    assert np.einsum("ij,ij->i", found.items, trained.items)[:8].min() > 0.9
    np.testing.assert_allclose(found.items[8:], trained.items[8:], atol=0.2)
    lengths = np.linalg.norm(trained.ego, axis=1)
    assert (np.linalg.norm(found.ego[:8], axis=1) <= lengths.max()).all()
    assert (found.reliability[:8] > 0).all() and (found.reliability[:8] <= trained.reliability.max()).all()


def with_copies(features: Float32, rng: np.random.Generator) -> Float32:
    for size in (40, 12, 5, 2, 2):
        rows = rng.permutation(len(features))[:size]
        features[rows] = features[rows[0]] * rng.uniform(0.5, 2, (size, 1)).astype(np.float32)
    return features


def same_groups(one: Copies, other: Copies) -> None:
    np.testing.assert_array_equal(one.group, other.group)
    np.testing.assert_array_equal(one.unlike, other.unlike)
    np.testing.assert_array_equal(one.likeness, other.likeness)


@pytest.mark.parametrize("seed", range(4))
def test_groups_of_copies_are_those_of_a_cold_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, config = with_copies(normals(rng, 400, 24), rng), CopiesConfig()
    features[0] = 0
    anchors, present = anchors_of(random_units(rng, 400, 8)), rng.random(400) > 0.05
    before = find_copies("image", features, present, anchors, config, seed=0)
    sketch = sketch_rows(features, present, config, seed=0, name="image")
    same, unchanged = update_copies(before, sketch, unmoved(400), features, present, anchors, config, seed=0)
    same_groups(same, before)
    np.testing.assert_array_equal(unchanged.points, sketch.points)
    night = drift(features, anchors, seed=seed)
    # Of what changed, some join a group, and two become a group of their own.
    changed = np.flatnonzero(~night.mapping.same)
    night.features[changed[:3]] = night.features[np.flatnonzero(night.mapping.same)[:3]]
    night.features[changed[3:5]] = night.features[changed[3]]
    night.features[changed[6]] = features[np.argmax(before.group == 0)]
    there = np.where(night.mapping.previous >= 0, present[night.mapping.previous], True)
    cold = find_copies("image", night.features, there, night.anchors, config, seed=0)
    warm, _ = update_copies(before, sketch, night.mapping, night.features, there, night.anchors, config, seed=0)
    same_groups(warm, cold)


def test_maps_are_kept_and_used_on_what_changed() -> None:
    scene, config = planted_scene(0, {"image": 0.5}, items=300, untrained=20), ProjectionConfig()
    features, present = scene.catalog.features["image"], scene.catalog.present["image"]
    before = fit_projection("image", features, present, scene.anchors, config, seed=0)
    again = update_projection(before, unmoved(300), features, present, scene.anchors, config, seed=0)
    for name in ("projected", "target", "alignment", "length", "fold", "null_alignment", "kept"):
        np.testing.assert_array_equal(getattr(again, name), getattr(before, name), err_msg=name)
    night = drift(features, scene.anchors, seed=3)
    everyone = np.ones(len(night.features), np.bool_)
    now = update_projection(before, night.mapping, night.features, everyone, night.anchors, config, seed=0)
    for row in np.flatnonzero(night.anchors.trained):
        fold = night.mapping.fold[row]
        wanted = (unit_rows(night.features[[row]]) - before.fold_means[fold]) @ before.fold_weights[fold]
        np.testing.assert_allclose(now.projected[row], unit_rows(wanted)[0], atol=1e-5)
        assert now.alignment[row] == pytest.approx(float(now.projected[row] @ now.target[row]), abs=1e-6)


@pytest.mark.parametrize("kind", ["flat", "ivf", "kept clusters"])
@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_the_exact_ones_while_anchors_stay(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    projected, target = random_units(rng, EVERYTHING, 12), random_units(rng, EVERYTHING, 12)
    projected[rng.random(EVERYTHING) < 0.1], target[rng.random(EVERYTHING) < 0.1] = 0, 0
    config = replace(EXACT, index="flat" if kind == "flat" else "ivf", target_recall=1.0)
    items = places_of(projected, target)
    known = PreviousNeighbours(affinity=find_affinity(items, config, seed=0), places=items)
    if kind == "kept clusters":
        index = index_features(items, config, np.flatnonzero(target.any(axis=1)), seed=0)
        assert index is not None and index.clusters is not None
        known = replace(known, clusters=replace(index.clusters, probes=len(index.clusters.centroids)))
    night = drift(projected, anchors_of(target, target.any(axis=1)), seed=seed)
    now = places_of(unit_rows(night.features), unit_rows(night.anchors.items))
    found, clusters = update_affinity(known, night.mapping, now, config, min_anchor_cosine=0.999, seed=0)
    assert (clusters is None) == (kind == "flat")
    wanted = find_affinity(now, EXACT, seed=0)
    np.testing.assert_array_equal(found.neighbours, wanted.neighbours)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    assert found.recall == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_spare_neighbours_last_for_nights_and_are_never_taken_for_more_than_they_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, target = random_units(rng, EVERYTHING, 12), random_units(rng, EVERYTHING, 12)
    target[rng.random(EVERYTHING) < 0.1] = 0
    items = places_of(features, target)
    affinity, asked = find_affinity(items, EXACT, seed=0), []
    for _ in range(6):
        changed = rng.random(EVERYTHING) < 0.03
        features = np.where(changed[:, None], random_units(rng, EVERYTHING, 12), features)
        now, night = places_of(features, target), replace(unmoved(EVERYTHING), same=~changed)
        affinity, _ = update_affinity(
            PreviousNeighbours(affinity=affinity, places=items), night, now, EXACT, min_anchor_cosine=0.999, seed=0
        )
        items = now
        wanted = find_affinity(now, EXACT, seed=0)
        np.testing.assert_array_equal(affinity.neighbours, wanted.neighbours)
        np.testing.assert_array_equal(affinity.scores, wanted.scores)
        asked.append(float(affinity.index.split(" %")[0]))
    # One in six loses a neighbour in such a night; the changed ones themselves are three in a hundred.
    assert min(asked[:2]) > 90


def test_who_moved_asks_anew_and_who_did_not_is_scored_anew() -> None:
    rng = np.random.default_rng(5)
    projected, target = random_units(rng, EVERYTHING, 12), random_units(rng, EVERYTHING, 12)
    items = places_of(projected, target)
    earlier = PreviousNeighbours(affinity=find_affinity(items, EXACT, seed=0), places=items)
    moved = unit_rows(target + np.float32(0.02) * random_units(rng, EVERYTHING, 12))
    moved[:50] = random_units(rng, 50, 12)
    now = places_of(projected, moved)
    found, _ = update_affinity(earlier, unmoved(EVERYTHING), now, EXACT, min_anchor_cosine=0.99, seed=0)
    wanted = find_affinity(now, EXACT, seed=0)
    np.testing.assert_array_equal(found.neighbours[:50], wanted.neighbours[:50])
    known = np.hstack([earlier.affinity.neighbours, earlier.affinity.spare])
    cosines = np.einsum("id,ikd->ik", moved, projected[known])
    cosines[known == np.arange(EVERYTHING)[:, None]] = np.inf
    best = np.take_along_axis(known, np.argsort(-cosines, axis=1)[:, : EXACT.num_neighbours], axis=1)
    np.testing.assert_array_equal(np.sort(found.neighbours[50:]), np.sort(best[50:]))
    scores = np.einsum("id,ikd->ik", moved, projected[found.neighbours]) / np.float32(EXACT.temperature)
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)
    assert 0.9 < found.recall < 1

"""Affinity against brute force, exact and approximate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.affinity.affinity import find_affinity, index_features, search_block
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.index import IndexKind
from rectifier_core.affinity.places import Places
from rectifier_core.base.numerics import unit_rows
from tests.support.core_samples import places_of, random_units


def rectangular(seed: int, items: int, width: int = 8) -> Places:
    """Some items lack the feature, some the anchor."""
    rng = np.random.default_rng(seed)
    target, projected = random_units(rng, items, width), random_units(rng, items, width)
    target[rng.random(items) < 0.2] = 0
    projected[rng.random(items) < 0.2] = 0
    return places_of(projected, target)


def brute_force(places: Places, count: int) -> list[list[int]]:
    rows, columns = np.asarray(places.items.any(axis=1)), np.flatnonzero(places.donors.any(axis=1))
    found: list[list[int]] = []
    for row in range(len(rows)):
        if not rows[row] or not len(columns):
            found.append([])
            continue
        cosine = places.donors[columns] @ places.items[row]
        best = columns[np.argsort(-cosine, kind="stable")][:count].tolist()
        if row in columns and row not in best:
            best[-1] = row
        found.append(best)
    return found


@given(seed=st.integers(0, 10_000), items=st.integers(1, 60), count=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_equals_brute_force_with_the_own_feature_forced_in(seed: int, items: int, count: int) -> None:
    places = rectangular(seed, items)
    found = find_affinity(places, AffinityConfig(num_neighbours=count), seed=0)
    for row, wanted in enumerate(brute_force(places, count)):
        got = found.neighbours[row][found.neighbours[row] >= 0]
        assert sorted(got) == sorted(wanted)
        scores = found.scores[row][: len(got)]
        np.testing.assert_allclose(scores, 10 * places.donors[got] @ places.items[row], rtol=1e-4, atol=1e-4)
        assert (np.diff(scores) <= 0).all()
        assert np.isneginf(found.scores[row][len(got) :]).all()


def test_ties_go_to_the_lower_item() -> None:
    target = np.tile(np.array([[1.0, 0.0]], np.float32), (6, 1))
    found = find_affinity(places_of(target.copy(), target), AffinityConfig(num_neighbours=6), seed=0)
    assert found.neighbours.tolist() == [[0, 1, 2, 3, 4, 5]] * 6


def test_the_temperature_divides_the_cosine() -> None:
    places = rectangular(1, 30)
    cold, warm = (find_affinity(places, AffinityConfig(temperature=t), seed=0) for t in (0.05, 0.2))
    there = cold.neighbours >= 0
    np.testing.assert_allclose(cold.scores[there], 4 * warm.scores[there], rtol=1e-5)


def clustered(seed: int, items: int, width: int = 24, clusters: int = 40) -> Places:
    rng = np.random.default_rng(seed)
    centre = random_units(rng, clusters, width)
    kind = rng.integers(clusters, size=items)
    rows = [unit_rows((centre[kind] + 0.15 * rng.standard_normal((items, width))).astype(np.float32)) for _ in range(2)]
    rows[0][::17], rows[1][::13] = 0, 0
    return places_of(rows[0], rows[1])


IVF = AffinityConfig(index="ivf", num_neighbours=10, target_recall=0.95)


def test_ivf_reaches_its_target_recall_measured_independently() -> None:
    places = clustered(0, 4000)
    found = find_affinity(places, IVF, seed=3)
    exact = find_affinity(places, replace(IVF, index="flat"), seed=3)
    asking = places.items.any(axis=1)
    pairs = zip(found.neighbours[asking], exact.neighbours[asking], strict=True)
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in pairs])
    assert found.index.startswith("ivf")
    assert 0.95 <= found.recall < 1
    assert recall == pytest.approx(found.recall, abs=0.02)
    assert exact.recall == 1.0
    assert all(row in found.neighbours[row] for row in np.flatnonzero(asking & places.donors.any(axis=1)))


@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_blocks_threads_and_shares_of_the_rows_change_no_bit(index: IndexKind) -> None:
    places, config = clustered(1, 1500), replace(IVF, index=index)
    whole, asking = find_affinity(places, config, seed=0), np.flatnonzero(places.items.any(axis=1))
    for cut, threads in ((8192, 3), (100, 1), (37, 2)):
        other = find_affinity(places, replace(config, block_rows=cut), seed=0, threads=threads)
        assert (other.recall, other.index) == (whole.recall, whole.index)
        assert other.neighbours.tobytes() == whole.neighbours.tobytes()
        assert other.scores.tobytes() == whole.scores.tobytes()
    made, share = index_features(places, config, asking, seed=0), asking[200:300]
    assert made is not None
    part = search_block(places, made, share, config)
    assert part.neighbours.tobytes() == whole.neighbours[share].tobytes()
    assert part.scores.tobytes() == whole.scores[share].tobytes()
    assert whole.spare is not None and part.spare.tobytes() == whole.spare[share].tobytes()


def test_items_in_another_order_find_the_same_items() -> None:
    places = rectangular(2, 300)
    order = np.random.default_rng(0).permutation(300)
    found = find_affinity(places, AffinityConfig(), seed=0)
    moved = find_affinity(places_of(places.donors[order], places.items[order]), AffinityConfig(), seed=0)
    there = moved.neighbours >= 0
    assert (there == (found.neighbours[order] >= 0)).all()
    assert (order[moved.neighbours][there] == found.neighbours[order][there]).all()
    assert moved.scores.tobytes() == found.scores[order].tobytes()


@pytest.mark.parametrize(("anchors", "features"), [(0, 0), (0, 5), (5, 0)])
def test_nothing_to_search_is_no_error(anchors: int, features: int) -> None:
    rng, there = np.random.default_rng(0), np.arange(5)[:, None]
    projected, target = (
        np.where(there < count, random_units(rng, 5, 3), np.float32(0)) for count in (features, anchors)
    )
    found = find_affinity(places_of(projected, target), AffinityConfig(), seed=0)
    assert (found.neighbours == -1).all()
    assert np.isneginf(found.scores).all()
    assert found.index == "none"


def test_more_identical_features_than_places() -> None:
    """Half the catalog is one row, so the last place is a tie of hundreds. Scores and order must still be right."""
    rng = np.random.default_rng(3)
    projected, target = random_units(rng, 300, 16), random_units(rng, 300, 16)
    projected[rng.random(300) < 0.5] = projected[0]
    found = find_affinity(places_of(projected, target), AffinityConfig(num_neighbours=30), seed=0)
    cosine = np.einsum("ij,kj->ik", target, projected)
    cosine[np.arange(300), np.arange(300)] += 10
    best = np.take_along_axis(cosine, np.argsort(-cosine, axis=1)[:, :30], axis=1)
    best[:, 0] -= 10
    np.testing.assert_allclose(found.scores, 10 * -np.sort(-best, axis=1), atol=1e-4)
    tied = np.diff(found.scores, axis=1) == 0
    assert tied.sum() > 500
    assert (np.diff(found.neighbours, axis=1)[tied] > 0).all()
    assert all(len(set(row)) == 30 for row in found.neighbours.tolist())


@pytest.mark.parametrize(
    ("field", "value"), [("num_neighbours", 0), ("temperature", 0.0), ("target_recall", 1.5), ("block_rows", 0)]
)
def test_bad_hyperparameters_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        AffinityConfig(**{field: value})  # type: ignore[arg-type]

"""Top-K search against brute force, exact and approximate."""

from __future__ import annotations

import numpy as np
import pytest
from core_samples import projection_of, random_units
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.affinity import AffinityConfig, find_neighbours
from rectifier_core.numerics import unit_rows
from rectifier_core.records import Projection


def rectangular(seed: int, items: int, width: int = 8) -> Projection:
    """Some items lack the feature, some the anchor."""
    rng = np.random.default_rng(seed)
    target, projected = random_units(rng, items, width), random_units(rng, items, width)
    target[rng.random(items) < 0.2] = 0
    projected[rng.random(items) < 0.2] = 0
    return projection_of(projected, target)


def brute_force(projection: Projection, count: int) -> list[list[int]]:
    rows, columns = np.asarray(projection.target.any(axis=1)), np.flatnonzero(projection.projected.any(axis=1))
    found: list[list[int]] = []
    for row in range(len(rows)):
        if not rows[row] or not len(columns):
            found.append([])
            continue
        cosine = projection.projected[columns] @ projection.target[row]
        best = columns[np.argsort(-cosine, kind="stable")][:count].tolist()
        if row in columns and row not in best:
            best[-1] = row
        found.append(best)
    return found


@given(seed=st.integers(0, 10_000), items=st.integers(1, 60), count=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_equals_brute_force_with_the_own_feature_forced_in(seed: int, items: int, count: int) -> None:
    projection = rectangular(seed, items)
    found = find_neighbours(projection, AffinityConfig(num_neighbours=count), seed=0)
    for row, wanted in enumerate(brute_force(projection, count)):
        got = found.neighbours[row][found.neighbours[row] >= 0]
        assert sorted(got) == sorted(wanted)
        scores = found.scores[row][: len(got)]
        np.testing.assert_allclose(scores, 10 * projection.projected[got] @ projection.target[row], rtol=1e-4, atol=1e-4)
        assert (np.diff(scores) <= 0).all()
        assert np.isneginf(found.scores[row][len(got) :]).all()


@given(seed=st.integers(0, 10_000), block=st.integers(1, 100))
@settings(max_examples=15, deadline=None)
def test_block_size_changes_no_bit(seed: int, block: int) -> None:
    projection = rectangular(seed, 90)
    one, other = (find_neighbours(projection, AffinityConfig(block_rows=rows), seed=0) for rows in (8192, block))
    assert one.neighbours.tobytes() == other.neighbours.tobytes()
    assert one.scores.tobytes() == other.scores.tobytes()


def test_ties_go_to_the_lower_item() -> None:
    target = np.tile(np.array([[1.0, 0.0]], np.float32), (6, 1))
    found = find_neighbours(projection_of(target.copy(), target), AffinityConfig(num_neighbours=6), seed=0)
    assert found.neighbours.tolist() == [[0, 1, 2, 3, 4, 5]] * 6


def test_the_temperature_divides_the_cosine() -> None:
    projection = rectangular(1, 30)
    cold, warm = (find_neighbours(projection, AffinityConfig(temperature=t), seed=0) for t in (0.05, 0.2))
    there = cold.neighbours >= 0
    np.testing.assert_allclose(cold.scores[there], 4 * warm.scores[there], rtol=1e-5)


def test_ivf_reaches_its_target_recall_measured_independently() -> None:
    rng = np.random.default_rng(0)
    centre = random_units(rng, 40, 24)
    rows = [unit_rows((centre[rng.integers(40, size=4000)] + 0.5 * rng.standard_normal((4000, 24))).astype(np.float32)) for _ in range(2)]
    projection = projection_of(rows[0], rows[1])
    found = find_neighbours(projection, AffinityConfig(index="ivf", num_neighbours=10, target_recall=0.95), seed=3)
    exact = find_neighbours(projection, AffinityConfig(index="flat", num_neighbours=10), seed=3)
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found.neighbours, exact.neighbours, strict=True)])
    assert found.index.startswith("ivf")
    assert found.recall >= 0.95
    assert recall == pytest.approx(found.recall, abs=0.03)
    assert exact.recall == 1.0


def test_auto_is_exact_while_that_is_quick_and_ivf_beyond() -> None:
    projection = rectangular(4, 300)
    assert find_neighbours(projection, AffinityConfig(), seed=0).index == "flat"
    assert find_neighbours(projection, AffinityConfig(exact_pairs=100), seed=0).index.startswith("ivf")


@pytest.mark.parametrize(("anchors", "features"), [(0, 0), (0, 5), (5, 0)])
def test_nothing_to_search_is_no_error(anchors: int, features: int) -> None:
    rng, there = np.random.default_rng(0), np.arange(5)[:, None]
    projected, target = (np.where(there < count, random_units(rng, 5, 3), np.float32(0)) for count in (features, anchors))
    found = find_neighbours(projection_of(projected, target), AffinityConfig(), seed=0)
    assert (found.neighbours == -1).all()
    assert np.isneginf(found.scores).all()
    assert found.index == "none"


def test_identical_features_are_all_as_good_whatever_the_block() -> None:
    """Placeholder images: half the catalog is one row, so the last place is a tie of hundreds; scores and order must still be settled."""
    rng = np.random.default_rng(3)
    projected, target = random_units(rng, 300, 16), random_units(rng, 300, 16)
    projected[rng.random(300) < 0.5] = projected[0]
    projection = projection_of(projected, target)
    found = [find_neighbours(projection, AffinityConfig(num_neighbours=30, block_rows=rows), seed=0) for rows in (300, 19, 1)]
    assert len({(one.neighbours.tobytes(), one.scores.tobytes()) for one in found}) == 1
    cosine = np.einsum("ij,kj->ik", target, projected)
    cosine[np.arange(300), np.arange(300)] += 10
    best = np.take_along_axis(cosine, np.argsort(-cosine, axis=1)[:, :30], axis=1)
    best[:, 0] -= 10
    np.testing.assert_allclose(found[0].scores, 10 * -np.sort(-best, axis=1), atol=1e-4)
    tied = np.diff(found[0].scores, axis=1) == 0
    assert tied.sum() > 500
    assert (np.diff(found[0].neighbours, axis=1)[tied] > 0).all()
    assert all(len(set(row)) == 30 for row in found[0].neighbours.tolist())


@pytest.mark.parametrize(("field", "value"), [("num_neighbours", 0), ("temperature", 0.0), ("target_recall", 1.5), ("block_rows", 0)])
def test_bad_hyperparameters_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        AffinityConfig(**{field: value})  # type: ignore[arg-type]

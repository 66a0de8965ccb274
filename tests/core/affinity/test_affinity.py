"""Top-K search against brute force, exact and approximate."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.affinity.affinity import find_neighbours, index_features, neighbours_of, one_list_is_cheaper
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Projection
from tests.support.core_samples import projection_of, random_units


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
        np.testing.assert_allclose(
            scores, 10 * projection.projected[got] @ projection.target[row], rtol=1e-4, atol=1e-4
        )
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


def clustered(seed: int, items: int, width: int = 24, clusters: int = 40) -> Projection:
    rng = np.random.default_rng(seed)
    centre = random_units(rng, clusters, width)
    kind = rng.integers(clusters, size=items)
    rows = [unit_rows((centre[kind] + 0.15 * rng.standard_normal((items, width))).astype(np.float32)) for _ in range(2)]
    rows[0][::17], rows[1][::13] = 0, 0
    return projection_of(rows[0], rows[1])


IVF = AffinityConfig(index="ivf", num_neighbours=10, target_recall=0.95)


def test_ivf_reaches_its_target_recall_measured_independently() -> None:
    projection = clustered(0, 4000)
    found = find_neighbours(projection, IVF, seed=3)
    exact = find_neighbours(projection, replace(IVF, index="flat"), seed=3)
    asking = projection.target.any(axis=1)
    pairs = zip(found.neighbours[asking], exact.neighbours[asking], strict=True)
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in pairs])
    assert found.index.startswith("ivf")
    assert 0.95 <= found.recall < 1
    assert recall == pytest.approx(found.recall, abs=0.02)
    assert exact.recall == 1.0
    assert all(row in found.neighbours[row] for row in np.flatnonzero(asking & projection.projected.any(axis=1)))


@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_blocks_threads_and_shares_of_the_rows_change_no_bit(index: Literal["flat", "ivf"]) -> None:
    projection, config = clustered(1, 1500), replace(IVF, index=index)
    whole = find_neighbours(projection, config, seed=0)
    for cut, threads in ((8192, 3), (100, 1), (1, 2)):
        other = find_neighbours(projection, replace(config, block_rows=cut), seed=0, threads=threads)
        assert (other.recall, other.index) == (whole.recall, whole.index)
        assert other.neighbours.tobytes() == whole.neighbours.tobytes()
        assert other.scores.tobytes() == whole.scores.tobytes()
    made = index_features(projection, config, seed=0)
    assert made is not None
    share = np.flatnonzero(projection.target.any(axis=1))[200:300]
    neighbours, scores, spare = neighbours_of(projection, made, share, config)
    assert neighbours.tobytes() == whole.neighbours[share].tobytes()
    assert scores.tobytes() == whole.scores[share].tobytes()
    assert whole.spare is not None and spare.tobytes() == whole.spare[share].tobytes()


def test_items_in_another_order_find_the_same_items() -> None:
    projection = rectangular(2, 300)
    order = np.random.default_rng(0).permutation(300)
    found = find_neighbours(projection, AffinityConfig(), seed=0)
    moved = find_neighbours(
        projection_of(projection.projected[order], projection.target[order]), AffinityConfig(), seed=0
    )
    there = moved.neighbours >= 0
    assert (there == (found.neighbours[order] >= 0)).all()
    assert (order[moved.neighbours][there] == found.neighbours[order][there]).all()
    assert moved.scores.tobytes() == found.scores[order].tobytes()


def test_auto_is_exact_where_lists_would_not_pay() -> None:
    assert find_neighbours(rectangular(4, 300), AffinityConfig(), seed=0).index == "flat"
    assert one_list_is_cheaper(5_000, 5_000)
    assert one_list_is_cheaper(1000, 200_000)
    assert not one_list_is_cheaper(50_000, 50_000)
    assert not one_list_is_cheaper(1_000_000, 1_000_000)
    flips = [one_list_is_cheaper(queries, 100_000) for queries in (10, 1000, 10_000, 100_000, 1_000_000)]
    assert flips == sorted(flips, reverse=True)


def test_auto_turns_back_where_features_have_no_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rectifier_core.affinity.affinity.one_list_is_cheaper", lambda queries, features: False)
    monkeypatch.setattr("rectifier_core.affinity.affinity.QUERY_COST", 0)
    rng = np.random.default_rng(0)
    shapeless = projection_of(random_units(rng, 3000, 64), random_units(rng, 3000, 64))
    assert find_neighbours(shapeless, AffinityConfig(), seed=0).index == "flat"
    assert find_neighbours(clustered(0, 6000), AffinityConfig(), seed=0).index.startswith("ivf")


@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_little_memory_halves_the_index_and_is_honoured(index: Literal["flat", "ivf"]) -> None:
    projection, config = clustered(2, 20_000, width=64), replace(IVF, index=index)
    whole = find_neighbours(projection, config, seed=0)
    memory = 6 << 20
    tracemalloc.start()
    tight = find_neighbours(projection, config, seed=0, memory=memory)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    made = index_features(projection, config, seed=0, memory=memory)
    assert made is not None and made.vectors.dtype == np.int16
    assert tight.spare is not None and peak - tight.spare.nbytes < 2 * memory
    assert tight.recall >= 0.95
    asking = projection.target.any(axis=1)
    same = np.mean(
        [
            len(np.intersect1d(a, b)) / 10
            for a, b in zip(tight.neighbours[asking], whole.neighbours[asking], strict=True)
        ]
    )
    assert same > (0.9999 if index == "flat" else 0.9)


@pytest.mark.parametrize(("anchors", "features"), [(0, 0), (0, 5), (5, 0)])
def test_nothing_to_search_is_no_error(anchors: int, features: int) -> None:
    rng, there = np.random.default_rng(0), np.arange(5)[:, None]
    projected, target = (
        np.where(there < count, random_units(rng, 5, 3), np.float32(0)) for count in (features, anchors)
    )
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
    found = [
        find_neighbours(projection, AffinityConfig(num_neighbours=30, block_rows=rows), seed=0) for rows in (300, 19, 1)
    ]
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


@pytest.mark.parametrize(
    ("field", "value"), [("num_neighbours", 0), ("temperature", 0.0), ("target_recall", 1.5), ("block_rows", 0)]
)
def test_bad_hyperparameters_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        AffinityConfig(**{field: value})  # type: ignore[arg-type]

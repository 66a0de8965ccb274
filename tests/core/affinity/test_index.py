"""The FAISS index against brute force: recall as measured, the same bits whatever the blocks and threads, files."""

from __future__ import annotations

from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch

from rectifier_core.affinity.index import (
    IndexKind,
    NearestRows,
    build_index,
    score_candidates,
    search_rows,
)
from rectifier_core.base.arrays import Float32, Int64
from rectifier_core.base.numerics import unit_rows
from tests.support.core_samples import normals, random_units


def clustered(seed: int, rows: int, width: int = 24, clusters: int = 40, spread: float = 0.5) -> Float32:
    rng = np.random.default_rng(seed)
    centres = random_units(rng, clusters, width)[rng.integers(clusters, size=rows)]
    return unit_rows((centres + spread / np.sqrt(width) * 2 * normals(rng, rows, width)).astype(np.float32))


ROWS = clustered(0, 5000)
ALL = np.arange(5000)


@pytest.fixture(autouse=True, params=["half precision", "codes"])
def stored(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with lists in half precision, as few rows get them, and with codes, as many rows do."""
    if request.param == "codes":
        monkeypatch.setattr("rectifier_core.affinity.index.CODED_ROWS", 0)


def built(
    rows: Float32 = ROWS,
    some: Int64 = ALL,
    *,
    target: float = 0.95,
    kind: IndexKind = "ivf",
    threads: int = 1,
) -> NearestRows:
    return build_index(rows, some, rows, ALL, 10, seed=1, kind=kind, target_recall=target, threads=threads)


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, wanted, strict=True)]))


def test_exact_search_is_brute_force() -> None:
    some = np.flatnonzero(np.random.default_rng(1).random(5000) < 0.3)
    found = search_rows(ROWS, some, ROWS[:200], 12)
    products = ROWS[:200].astype(np.float64) @ ROWS[some].T.astype(np.float64)
    order = np.argsort(-products, axis=1)[:, :12]
    assert (found.items == some[order]).mean() > 0.999
    np.testing.assert_allclose(found.scores, np.take_along_axis(products, order, axis=1), atol=1e-6)


def test_fewer_rows_than_wanted_leave_places_over() -> None:
    found = search_rows(ROWS, np.arange(3), ROWS[:4], 6)
    assert (np.sort(found.items[:, :3], axis=1) == np.arange(3)).all()
    assert (found.items[:, 3:] == -1).all() and np.isneginf(found.scores[:, 3:]).all()


def test_the_measured_recall_is_the_one_that_queries_get_and_rises_with_the_target() -> None:
    exact = search_rows(ROWS, ALL, ROWS, 10).items
    low, high = built(target=0.9), built(target=0.99)
    for index, target in ((low, 0.9), (high, 0.99)):
        measured = recall(index.search(ROWS, 10).items, exact)
        assert measured >= target - 0.005
        assert measured == pytest.approx(index.recall, abs=0.01)
    assert high.recall > low.recall
    assert low.index.nprobe < high.index.nprobe < high.index.nlist


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_blocks_and_order_change_no_bit(kind: IndexKind) -> None:
    index = built(kind=kind)
    whole, order = index.search(ROWS, 10), np.random.default_rng(0).permutation(5000)
    parts = [index.search(ROWS[block], 10) for block in (slice(0, 1), slice(1, 700), slice(700, 5000))]
    for at, shuffled in enumerate(index.search(ROWS[order], 10)):
        assert shuffled.tobytes() == whole[at][order].tobytes()
        assert np.concatenate([part[at] for part in parts]).tobytes() == whole[at].tobytes()


def test_a_pair_is_scored_alike_whatever_stands_beside_it() -> None:
    rng = np.random.default_rng(2)
    for width in (3, 16, 65):
        rows = normals(rng, 400, width)
        items = rng.integers(-1, 400, (50, 9)).astype(np.int32)
        whole = score_candidates(rows, rows[:50], items)
        assert np.isneginf(whole[items < 0]).all()
        for at in range(50):
            one = score_candidates(rows, rows[at : at + 1], items[at : at + 1, at % 9 :][:, :1])
            assert one[0, 0].tobytes() == whole[at, at % 9].tobytes()


def test_threads_build_the_same_index() -> None:
    one, three = (faiss.serialize_index(built(threads=threads).index) for threads in (1, 3))
    assert one.tobytes() == three.tobytes()


@pytest.mark.parametrize("copies", [300, 4500])
def test_more_copies_of_a_row_than_places(copies: int) -> None:
    rows = ROWS.copy()
    rows[:copies] = rows[0]
    found = built(rows).search(rows[[0, 4999]], 10)
    assert len(set(found.items[0])) == 10 and found.items[0].max() < copies
    assert (np.diff(found.items[0]) > 0).all()
    np.testing.assert_allclose(found.scores[0], 1, atol=1e-5)


def test_only_the_rows_named_are_found() -> None:
    some = np.flatnonzero(np.random.default_rng(0).random(5000) < 0.3)
    assert set(np.unique(built(some=some).search(ROWS[:500], 10).items)) <= set(some.tolist())


def test_clusters_of_an_earlier_index_are_taken_as_they_are() -> None:
    first = built()
    assert first.clusters is not None and built(kind="flat").clusters is None
    again = build_index(ROWS, ALL, ROWS, ALL, 10, seed=9, kind="ivf", clusters=first.clusters)
    assert (again.name, again.recall) == (first.name, first.recall)
    assert again.clusters is not None and (again.clusters.centroids == first.clusters.centroids).all()
    more = replace(first.clusters, probes=first.index.nlist)
    index = build_index(ROWS, ALL, ROWS, ALL, 10, seed=9, kind="ivf", clusters=more)
    assert recall(index.search(ROWS, 10).items, search_rows(ROWS, ALL, ROWS, 10).items) > 0.99


def test_clusters_of_rows_stored_otherwise_are_tuned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for first_codes, then_codes in ((len(ROWS) + 1, 0), (0, len(ROWS) + 1)):
        monkeypatch.setattr("rectifier_core.affinity.index.CODED_ROWS", first_codes)
        first = built()
        monkeypatch.setattr("rectifier_core.affinity.index.CODED_ROWS", then_codes)
        again = build_index(ROWS, ALL, ROWS, ALL, 10, seed=9, kind="ivf", target_recall=0.95, clusters=first.clusters)
        assert (again.factor > 1) == (then_codes == 0) and again.recall >= 0.95
        assert (again.clusters is not None and first.clusters is not None) and (
            again.clusters.centroids == first.clusters.centroids
        ).all()


def test_auto_is_exact_for_few_products_and_where_rows_have_no_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert built(kind="auto").is_exact
    monkeypatch.setattr("rectifier_core.affinity.index.FLAT_PRODUCTS", 0)
    assert not built(kind="auto").is_exact
    shapeless = random_units(np.random.default_rng(0), 5000, 64)
    assert built(shapeless, kind="auto", target=0.99).is_exact


def test_the_order_keeps_all_rows_and_puts_similar_ones_together() -> None:
    asking = np.flatnonzero(np.random.default_rng(0).random(5000) < 0.5)
    ordered = built().order(ROWS, asking, threads=2)
    assert sorted(ordered.tolist()) == asking.tolist()
    beside = np.einsum("ij,ij->i", ROWS[ordered[1:]], ROWS[ordered[:-1]]).mean()
    assert beside > np.einsum("ij,ij->i", ROWS[asking[1:]], ROWS[asking[:-1]]).mean() + 0.1


def test_a_search_leaves_the_number_of_threads_as_it_was() -> None:
    """FAISS and torch share the count, so a search in one thread must not leave torch with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        rows = random_units(np.random.default_rng(0), 500, 8)
        search_rows(rows, np.arange(500), rows[:10], 3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

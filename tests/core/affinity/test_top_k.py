"""Exact search against brute force; the same bits however vectors, queries and threads are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.caching import CacheImpl

from rectifier_core.affinity.search_kernels import compiled, products_with
from rectifier_core.affinity.top_k import Panels, largest_products, lay_out, padded, padded_rows, search_all
from tests.support.core_samples import normals, random_units


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 700),
    queries=st.integers(1, 30),
    width=st.integers(1, 20),
    count=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_equals_brute_force_at_any_size(seed: int, rows: int, queries: int, width: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, asked = normals(rng, rows, width), normals(rng, queries, width)
    items, scores = largest_products(vectors, asked, count)
    wanted = -np.sort(-(asked.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :count]
    held = min(count, rows)
    np.testing.assert_allclose(scores[:, :held], wanted, atol=1e-4)
    np.testing.assert_allclose(scores[:, :held], np.einsum("ij,ikj->ik", asked, vectors[items[:, :held]]), atol=1e-4)
    assert all(len(set(row)) == held for row in items[:, :held].tolist())
    assert (items[:, held:] == -1).all() and np.isneginf(scores[:, held:]).all()


def test_ties_go_to_the_lower_row_wherever_it_lies() -> None:
    vectors = np.tile(random_units(np.random.default_rng(0), 1, 8), (900, 1))
    items, _ = largest_products(vectors, vectors[:3], 25)
    assert items.tolist() == [list(range(25))] * 3
    backwards = lay_out(vectors, np.arange(900)[::-1].copy(), np.array([0, 900]))
    assert search_all(backwards, vectors[:3], 25)[0].tolist() == [list(range(25))] * 3


@pytest.mark.parametrize(("block", "threads"), [(1, 1), (7, 1), (64, 3), (1000, 2)])
def test_blocks_and_threads_change_no_bit(block: int, threads: int) -> None:
    rng = np.random.default_rng(1)
    vectors, asked = random_units(rng, 1500, 17), random_units(rng, 200, 17)
    whole = largest_products(vectors, asked, 20)
    cut = largest_products(vectors, asked, 20, threads=threads, block_rows=block)
    assert [part.tobytes() for part in whole] == [part.tobytes() for part in cut]


@pytest.mark.parametrize("bounds", [[0, 1500], [0, 1, 16, 33, 300, 813, 1500], [0, 700, 700, 1500]])
def test_the_layout_changes_no_bit(bounds: list[int]) -> None:
    rng = np.random.default_rng(2)
    vectors, asked = random_units(rng, 1500, 64), random_units(rng, 50, 64)
    whole = largest_products(vectors, asked, 20)
    cut = search_all(lay_out(vectors, rng.permutation(1500), np.array(bounds)), asked, 20)
    assert [part.tobytes() for part in whole] == [part.tobytes() for part in cut]
    again = products_with(vectors, whole[0], padded_rows(asked, padded(64)))
    assert again.tobytes() == whole[1].tobytes()


def test_sixteen_bits_are_a_close_second() -> None:
    rng = np.random.default_rng(3)
    vectors, asked = random_units(rng, 2000, 64), random_units(rng, 100, 64)
    exact = largest_products(vectors, asked, 20)
    panels = lay_out(vectors, np.arange(2000), np.array([0, 2000]), compact=True)
    items, scores = search_all(panels, asked, 20)
    assert panels.vectors.nbytes == 2 * 64 * 2000
    np.testing.assert_allclose(scores, exact[1], atol=1e-4)
    assert (items == exact[0]).mean() > 0.98


def test_memory_mapped_panels_give_the_same(tmp_path: object) -> None:
    rng = np.random.default_rng(4)
    panels, asked = lay_out(random_units(rng, 300, 8), np.arange(300), np.array([0, 300])), random_units(rng, 10, 8)
    mapped = {}
    for name in ("vectors", "items", "offsets"):
        np.save(f"{tmp_path}/{name}.npy", getattr(panels, name))
        mapped[name] = np.load(f"{tmp_path}/{name}.npy", mmap_mode="r")
    here, there = search_all(panels, asked, 5), search_all(Panels(**mapped), asked, 5)
    assert [part.tobytes() for part in here] == [part.tobytes() for part in there]


def test_broken_panels_are_named() -> None:
    items, vectors = np.zeros(16, np.int32), np.zeros(64, np.float32)
    with pytest.raises(ValueError, match="offsets"):
        Panels(vectors=vectors, items=items, offsets=np.array([0, 8, 16]))
    with pytest.raises(ValueError, match="vectors"):
        Panels(vectors=vectors.astype(np.float64), items=items, offsets=np.array([0, 16]))


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])

    @compiled
    def twice(value: int) -> int:
        return 2 * value

    assert twice(21) == 42

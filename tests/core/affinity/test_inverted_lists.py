"""Search by lists: complete where the reach is, tuned to the recall wanted, and blind to blocks, order and threads."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from rectifier_core.affinity.inverted_lists import InvertedLists, build_lists, by_likeness, candidates, one_list, search
from rectifier_core.affinity.top_k import largest_products
from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import unit_rows
from tests.support.core_samples import normals, random_units


def clustered(seed: int, rows: int, width: int = 24, clusters: int = 40, spread: float = 0.5) -> Float32:
    rng = np.random.default_rng(seed)
    centres = random_units(rng, clusters, width)
    return unit_rows(
        (centres[rng.integers(clusters, size=rows)] + spread / np.sqrt(width) * 2 * normals(rng, rows, width)).astype(
            np.float32
        )
    )


ROWS = clustered(0, 5000)
ALL = np.arange(5000)


def built(rows: Float32 = ROWS, target: float = 0.95, num_lists: int = 60, **changed: int | bool) -> InvertedLists:
    everyone = np.arange(len(rows))
    return build_lists(rows, everyone, rows, everyone, 10, target, num_lists=num_lists, **{"seed": 1} | changed)


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, wanted, strict=True)]))


def test_the_tuned_recall_is_the_one_that_queries_see_and_costs_a_part() -> None:
    index = built()
    measured = recall(search(index, ROWS, 10)[0], largest_products(ROWS, ROWS, 10)[0])
    assert 0.95 <= index.recall < 0.999
    assert measured == pytest.approx(index.recall, abs=0.01)
    assert candidates(index, ROWS[:500], 10) < 0.5 * len(ROWS)


def test_a_higher_target_costs_more_and_finds_more() -> None:
    low, high = built(target=0.9), built(target=0.99)
    assert high.reach > low.reach and high.recall > low.recall
    assert candidates(high, ROWS[:500], 10) > candidates(low, ROWS[:500], 10)


def test_with_all_the_reach_there_is_it_is_the_exact_search_bit_for_bit() -> None:
    found, wanted = search(replace(built(), reach=1e9), ROWS[:300], 10), largest_products(ROWS, ROWS[:300], 10)
    assert [part.tobytes() for part in found] == [part.tobytes() for part in wanted]


def test_a_target_of_one_leaves_nothing_of_the_sample_out() -> None:
    index = built(target=1.0)
    assert index.recall == 1.0
    assert recall(search(index, ROWS, 10)[0], largest_products(ROWS, ROWS, 10)[0]) > 0.999


def test_neither_blocks_nor_order_change_a_bit() -> None:
    index = built()
    whole, order = search(index, ROWS, 10), np.random.default_rng(0).permutation(5000)
    shuffled = search(index, ROWS[order], 10)
    parts = [search(index, ROWS[block], 10) for block in (slice(0, 1), slice(1, 700), slice(700, 5000))]
    for at in (0, 1):
        assert shuffled[at].tobytes() == whole[at][order].tobytes()
        assert np.concatenate([part[at] for part in parts]).tobytes() == whole[at].tobytes()


def test_threads_build_the_same_index() -> None:
    one, three = built(), built(threads=3)
    assert one.reach == three.reach
    assert all(
        getattr(one, part).tobytes() == getattr(three, part).tobytes()
        for part in ("means", "radius", "vectors", "items", "offsets")
    )


def test_every_row_lies_in_one_list_near_its_mean() -> None:
    index = built()
    held = index.items[index.items >= 0]
    assert sorted(held.tolist()) == ALL.tolist()
    lists = np.repeat(np.arange(len(index.means)), np.diff(index.offsets))[index.items >= 0]
    units = unit_rows(index.means)
    own = np.einsum("ij,ij->i", ROWS[held], units[lists])
    best = np.max(ROWS[held] @ units.T, axis=1)
    assert (own > best - 1e-4).mean() > 0.9
    spread = np.sqrt(((ROWS[held] - index.means[lists]) ** 2).sum(axis=1))
    for at in range(0, len(units), 7):
        assert np.sqrt((spread[lists == at] ** 2).mean()) == pytest.approx(index.radius[at], abs=2e-3)


@pytest.mark.parametrize("copies", [300, 4500])
def test_copies_and_more_lists_than_there_are_rows_to_tell_apart(copies: int) -> None:
    rows = ROWS.copy()
    rows[:copies] = rows[0]
    index = built(rows)
    found, scores = search(index, rows[[0, 4999]], 10)
    assert found[0].tolist() == list(range(10))
    np.testing.assert_allclose(scores[0], 1, atol=1e-5)
    assert recall(search(index, rows, 10)[0], largest_products(rows, rows, 10)[0]) > 0.94


def test_fewer_rows_than_wanted_leave_places_over() -> None:
    rows = clustered(2, 12)
    index = build_lists(rows, np.arange(12), rows, np.arange(12), 20, 0.99, num_lists=3, seed=0)
    found, scores = search(index, rows, 20)
    assert (np.sort(found, axis=1)[:, 8:] == np.arange(12)).all()
    assert (found[:, 12:] == -1).all() and np.isneginf(scores[:, 12:]).all()


def test_only_the_rows_named_are_found() -> None:
    some = np.flatnonzero(np.random.default_rng(0).random(5000) < 0.3)
    index = build_lists(ROWS, some, ROWS, ALL, 10, 0.95, num_lists=20, seed=0)
    assert set(np.unique(search(index, ROWS[:500], 10)[0])) <= set(some.tolist())
    assert set(np.unique(search(one_list(ROWS, some), ROWS[:500], 10)[0])) <= set(some.tolist())


def test_sixteen_bits_halve_the_vectors_and_keep_the_recall() -> None:
    wide, narrow = built(), built(compact=True)
    assert narrow.vectors.nbytes * 2 == wide.vectors.nbytes
    assert recall(search(narrow, ROWS, 10)[0], largest_products(ROWS, ROWS, 10)[0]) > 0.94


def test_memory_mapped_it_finds_the_same(tmp_path: object) -> None:
    index, mapped = built(), {}
    for part in fields(index):
        value = getattr(index, part.name)
        if isinstance(value, np.ndarray):
            np.save(f"{tmp_path}/{part.name}.npy", value)
            value = np.load(f"{tmp_path}/{part.name}.npy", mmap_mode="r")
        mapped[part.name] = value
    here, there = search(index, ROWS[:50], 10), search(InvertedLists(**mapped), ROWS[:50], 10)
    assert [part.tobytes() for part in here] == [part.tobytes() for part in there]


def test_the_order_by_likeness_loses_nobody_and_puts_likes_together() -> None:
    index, asking = built(), np.flatnonzero(np.random.default_rng(0).random(5000) < 0.5)
    ordered = by_likeness(index, ROWS, asking)
    assert sorted(ordered.tolist()) == asking.tolist()
    beside = np.einsum("ij,ij->i", ROWS[ordered[1:]], ROWS[ordered[:-1]]).mean()
    assert beside > np.einsum("ij,ij->i", ROWS[asking[1:]], ROWS[asking[:-1]]).mean() + 0.1

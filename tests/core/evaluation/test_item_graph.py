"""Graphs of nearest items: exact, also with ties and missing features."""

from __future__ import annotations

import numpy as np

from rectifier_core.evaluation.backbones.item_graph import as_matrix, nearest_items, normalised_by_rows


def features(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).normal(size=(count, width)).astype(np.float32)


def test_neighbours_are_those_of_brute_force() -> None:
    made = features(50, 6)
    neighbours, cosines = nearest_items(made, np.ones(50, bool), 5)
    unit = made / np.linalg.norm(made, axis=1, keepdims=True)
    wanted = unit @ unit.T
    for row in range(50):
        assert set(neighbours[row]) == set(np.argsort(-wanted[row])[:5])
        assert np.allclose(cosines[row], wanted[row, neighbours[row]], atol=1e-5)


def test_an_item_is_its_own_neighbour_even_among_many_copies() -> None:
    made = features(40, 4)
    made[5:35] = made[5]
    neighbours, cosines = nearest_items(made, np.ones(40, bool), 4)
    assert all(row in neighbours[row] for row in range(40))
    assert np.allclose(cosines[5:35], 1, atol=1e-5)


def test_items_without_a_feature_stand_alone() -> None:
    made, present = features(12, 4), np.ones(12, bool)
    made[3] = 0
    present[[3, 7]] = False
    neighbours, cosines = nearest_items(made, present, 3)
    assert not np.isin(neighbours[present], [3, 7]).any()
    for row in (3, 7):
        assert neighbours[row].tolist() == [row, -1, -1]
        assert cosines[row].tolist() == [1, 0, 0]


def test_normalising_is_by_row_sums_on_both_sides() -> None:
    graph = as_matrix(*nearest_items(np.abs(features(9, 3)), np.ones(9, bool), 3))
    dense = graph.toarray()
    scale = 1 / np.sqrt(dense.sum(axis=1))
    assert np.allclose(normalised_by_rows(graph).toarray(), scale[:, None] * dense * scale, atol=1e-6)

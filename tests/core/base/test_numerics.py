"""Blocks, unit rows and the AUC against their definitions."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rectifier_core.base.numerics import row_blocks, separation, unit_rows

SCORES = st.lists(st.integers(-4, 4), min_size=1, max_size=12)


@given(rows=st.integers(0, 200), block=st.integers(1, 70))
def test_blocks_cover_every_row_once_and_in_order(rows: int, block: int) -> None:
    blocks = list(row_blocks(rows, block))
    assert [row for part in blocks for row in range(rows)[part]] == list(range(rows))
    assert all(part.stop - part.start == block for part in blocks[:-1])


@given(matrix=hnp.arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32)))
def test_unit_rows_have_length_one_and_the_same_direction(
    matrix: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> None:
    matrix[np.abs(matrix) < 1e-3] = 0
    before = matrix.copy()
    units, lengths = unit_rows(matrix), np.linalg.norm(matrix.astype(np.float64), axis=1)
    assert np.array_equal(matrix, before) and units.dtype == np.float32
    assert np.allclose(np.linalg.norm(units, axis=1), lengths > 0, atol=1e-6)
    assert np.allclose(units * lengths[:, None], matrix, rtol=1e-5)


@given(positive=SCORES, negative=SCORES)
def test_separation_is_the_chance_that_one_draw_exceeds_another(positive: list[int], negative: list[int]) -> None:
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
    assert math.isclose(
        separation(np.array(positive, np.float32), np.array(negative, np.float32)), sum(wins) / len(wins)
    )


def test_separation_from_nothing_is_not_a_number() -> None:
    some, none = np.ones(3), np.zeros(0)
    assert math.isnan(separation(some, none)) and math.isnan(separation(none, some))

"""Digests of rows, against the same chain in plain integers."""

from __future__ import annotations

import numpy as np
import pytest

from rectifier_core.base.row_digest import row_digests

MASK = 2**64 - 1


def chain(row: np.ndarray) -> int:
    state = 0x9E3779B97F4A7C15
    for word in row.view(np.uint32).tolist():
        state = ((state ^ word) * 0xBF58476D1CE4E5B9) & MASK
        state ^= state >> 29
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 11])
def test_a_digest_is_its_rows_own_whoever_it_is_beside(count: int) -> None:
    rows = np.random.default_rng(count).normal(size=(count, 7)).astype(np.float32)
    found = row_digests(rows)
    assert found.tolist() == [chain(row) for row in rows]
    assert len(set(found.tolist())) == count


def test_rows_that_are_equal_but_for_a_bit_have_other_digests() -> None:
    rows = np.zeros((6, 3), np.float32)
    rows[1, 2], rows[2, 1], rows[3, 0] = -0.0, np.nextafter(np.float32(0), np.float32(1)), 1.0
    found = row_digests(rows)
    assert len(set(found[:4].tolist())) == 4
    assert found[0] == found[4] == found[5]

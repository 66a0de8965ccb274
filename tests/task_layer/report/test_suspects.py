"""The list of suspects: exact search against brute force, ties, labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import unit_rows
from tasks.report.catalog import shorten
from tasks.report.suspects import least_trusted, mean_unit_row, nearest_rows
from tasks.store.store import Ref, StageStore, StageWriter


def _stage(folder: Path, matrix: Float32) -> Ref:
    def build(writer: StageWriter) -> None:
        writer.array("rows", matrix)
        writer.meta({})

    return StageStore(folder).once("rows", matrix.shape, build)


def _cosines(matrix: Float32, usable: Bool, row: int, centre: Float32) -> Float32:
    """Cosine of one row with every row, -inf where it may not be found."""
    unit = unit_rows(unit_rows(matrix) - centre)
    return np.where(usable & (np.arange(len(matrix)) != row), unit @ unit[row], -np.inf).astype(np.float32)


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_nearest_rows_are_those_of_brute_force(tmp_path_factory: pytest.TempPathFactory, items: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct rows, so that ties abound: placeholder images are the normal case.
    matrix = rng.standard_normal((max(1, items // 3), 6)).astype(np.float32)[rng.integers(0, max(1, items // 3), items)]
    usable, centre = rng.random(items) < 0.8, rng.standard_normal(6).astype(np.float32)
    rows = rng.permutation(items)[:7].astype(np.int64)
    ref = _stage(tmp_path_factory.mktemp("stage"), matrix)
    nearest, cosine = nearest_rows((ref, "rows"), usable, rows, centre=centre)
    for row, neighbours, scores in zip(rows, nearest, cosine, strict=True):
        wanted = _cosines(matrix, usable & usable[row], int(row), centre)
        rows_found = neighbours[neighbours >= 0]
        assert len(rows_found) == len(set(rows_found)) == min(5, np.isfinite(wanted).sum())
        np.testing.assert_allclose(scores[: len(rows_found)], wanted[rows_found], atol=2e-6)
        np.testing.assert_allclose(scores[: len(rows_found)], -np.sort(-wanted)[: len(rows_found)], atol=2e-6)


def test_rows_equal_to_the_centre_are_similar_to_nothing(tmp_path: Path) -> None:
    ref = _stage(tmp_path, np.ones((4, 3), np.float32))
    centre = mean_unit_row((ref, "rows"), np.ones(4, bool))
    nearest, cosine = nearest_rows((ref, "rows"), np.ones(4, bool), np.array([2]), centre=centre)
    assert nearest[0].tolist() == [0, 1, 3, -1, -1]
    assert cosine[0, :3].tolist() == [0, 0, 0]


def test_mean_direction_leaves_out_what_is_not_usable_and_ignores_scale(tmp_path: Path) -> None:
    matrix = np.array([[3, 0], [0, 0.5], [9, 9], [0, 7]], np.float32)
    ref, usable = _stage(tmp_path, matrix), np.array([True, True, False, True])
    np.testing.assert_allclose(mean_unit_row((ref, "rows"), usable), [1 / 3, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(mean_unit_row((ref, "rows"), usable, sample=1), [1, 0], atol=1e-6)
    assert mean_unit_row((ref, "rows"), np.zeros(4, bool)).tolist() == [0, 0]


@pytest.mark.parametrize("ids", [np.array(["c", "b", "d", "a", "e"]), np.array([30, 20, 40, 10, 50])])
def test_least_trusted_first_and_ties_by_id(ids: np.ndarray) -> None:
    trust = np.array([0.5, 0.2, 0.2, 0.2, np.nan], np.float32)
    assert ids[least_trusted(trust, ids, 2)].tolist() == [ids[3], ids[1]]
    assert ids[least_trusted(trust, ids, 9)].tolist() == [ids[3], ids[1], ids[2], ids[0]]
    assert least_trusted(np.full(5, np.nan, np.float32), ids, 2).tolist() == []


@pytest.mark.parametrize(
    ("given_value", "wanted"),
    [
        ("  Toy\nStory\t(1995)\x00 ", "Toy Story (1995)"),
        ("", None),
        (None, None),
        ("x" * 200, "x" * 99 + "…"),
        (1234567, "1234567"),
    ],
)
def test_labels_are_one_short_line(given_value: object, wanted: str | None) -> None:
    assert shorten(given_value) == wanted

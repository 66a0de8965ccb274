"""Which pairs of modalities are compared with each other, and where one of them places the items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Anchors
from rectifier_core.projection.config import CrossModalConfig
from rectifier_core.projection.cross_modal import cross_modal_pairs, place_by_features, principal_axes
from tests.support.core_samples import normals

CONFIG = CrossModalConfig(components=6)


@given(widths=st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 5), max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_two_modalities_meet_once_the_narrower_projected(widths: dict[str, int]) -> None:
    pairs = cross_modal_pairs(widths, CONFIG)
    count = len(widths)
    assert len(pairs) == count * (count - 1) // 2 == len({frozenset(pair) for pair in pairs})
    for projected, target in pairs:
        assert (widths[projected], projected) < (widths[target], target)
    assert set(pairs) == set(cross_modal_pairs(dict(reversed(widths.items())), CONFIG)), (
        "in whatever order they are named"
    )
    assert cross_modal_pairs(widths, replace(CONFIG, enabled=False)) == ()


def sample(seed: int = 0, rows: int = 120, width: int = 20) -> tuple[Float32, Bool]:
    """Rows with few leading axes, at very different lengths, about a common mean; one in five is absent."""
    rng = np.random.default_rng(seed)
    features = (normals(rng, rows, 4) @ normals(rng, 4, width) + 0.2 * normals(rng, rows, width) + 2) * rng.uniform(
        0.1, 9, (rows, 1)
    )
    present = rng.random(rows) < 0.8
    return np.where(present[:, None], features, 0).astype(np.float32), present


def place(features: Float32, present: Bool, config: CrossModalConfig = CONFIG) -> Anchors:
    return place_by_features("image", features, present, config, seed=3)


def test_places_are_unit_rows_where_there_is_a_feature_and_zero_elsewhere() -> None:
    features, present = sample()
    found = place(features, present)
    assert found.items.shape == (120, 6) and found.items.dtype == np.float32
    np.testing.assert_array_equal(found.trained, present)
    np.testing.assert_allclose(np.linalg.norm(found.items[present], axis=1), 1, atol=1e-5)
    assert not found.items[~present].any()
    np.testing.assert_array_equal(found.reliability, present.astype(np.float32))


def test_places_are_the_leading_principal_components() -> None:
    features, present = sample()
    x = unit_rows(features[present]).astype(np.float64)
    centred = x - x.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    wanted = centred @ axes[:6].T
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = place(features, present).items[present]
    # A principal axis has no sign of its own.
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-3)
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-3)


@given(block=st.integers(1, 200), seed=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_blocks_change_nothing_but_rounding(block: int, seed: int) -> None:
    features, present = sample(seed)
    whole, blocked = place(features, present).items, place(features, present, replace(CONFIG, block_rows=block)).items
    np.testing.assert_allclose(np.abs(np.einsum("ij,ij->i", whole, blocked)[present]), 1, atol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_next_to_no_features_are_no_error(count: int) -> None:
    features, _ = sample()
    present = np.arange(120) < count
    found = place(np.where(present[:, None], features, np.float32(0)), present)
    assert not found.trained[count:].any() and np.isfinite(found.items).all()


def test_equal_features_place_nobody() -> None:
    """Rounding is not a place: what all items share says nothing of any."""
    found = place(np.ones((50, 4), np.float32), np.ones(50, np.bool_))
    assert np.isfinite(found.items).all()


def test_fewer_rows_than_columns_have_the_same_axes() -> None:
    features, present = sample(rows=40, width=60)
    few = principal_axes("image", features, present, CONFIG, seed=0)
    # Rows said twice change neither mean nor covariance, and are as many as there are columns.
    twice = principal_axes("image", np.tile(features, (3, 1)), np.tile(present, 3), CONFIG, seed=0)
    np.testing.assert_allclose(few.mean, twice.mean, atol=1e-6)
    np.testing.assert_allclose(few.leading, twice.leading, atol=1e-4)

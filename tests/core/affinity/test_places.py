"""Where donors lie: the blend, and the share of the anchor that predicts best."""

from __future__ import annotations

import numpy as np
import pytest

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.places import choose_anchor_share, place_items
from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import unit_rows
from tests.support.core_samples import normals, projection_of, random_units

ITEMS = 600


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_donor_lies_between_its_anchor_and_its_projected_feature(share: float) -> None:
    rng = np.random.default_rng(0)
    projected, target = random_units(rng, ITEMS, 8), random_units(rng, ITEMS, 8)
    projected[:5], target[5:10] = 0, 0
    places = place_items(projection_of(projected, target), share)
    assert not places.donors[:5].any()
    np.testing.assert_allclose(places.donors[5:10], projected[5:10], atol=1e-6)
    np.testing.assert_allclose(
        places.donors[10:], unit_rows(share * target[10:] + (1 - share) * projected[10:]), atol=1e-6
    )
    np.testing.assert_array_equal(places.items, target)


def scene(noise_of_anchor: float, noise_of_feature: float) -> tuple[Float32, Float32, Float32]:
    """Features of twenty groups; anchors and projected features that say, with noise, which group an item is of."""
    rng = np.random.default_rng(1)
    group = rng.integers(20, size=ITEMS)
    features = random_units(rng, 20, 16)[group] + np.float32(0.1) * normals(rng, ITEMS, 16)
    centres = random_units(rng, 20, 8)[group]
    anchors = unit_rows(centres + np.float32(noise_of_anchor) * normals(rng, ITEMS, 8))
    return features, unit_rows(centres + np.float32(noise_of_feature) * normals(rng, ITEMS, 8)), anchors


def test_the_share_follows_which_of_the_two_says_more() -> None:
    probability = np.full(ITEMS, np.nan, np.float32)
    chosen = []
    for noise in ((0.6, 0.1), (0.1, 0.6)):
        features, projected, target = scene(*noise)
        projection = projection_of(projected, target)
        chosen.append(choose_anchor_share(features, projection, probability, AffinityConfig(), seed=0))
        assert choose_anchor_share(features, projection, probability, AffinityConfig(anchor_share=0.3), seed=0) == 0.3
    assert chosen[0] < chosen[1]


def test_nothing_to_choose_by_is_the_papers_place() -> None:
    nothing = projection_of(np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32))
    features, probability = np.zeros((3, 2), np.float32), np.full(3, np.nan, np.float32)
    assert choose_anchor_share(features, nothing, probability, AffinityConfig(), seed=0) == 0

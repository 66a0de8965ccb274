"""The expected feature: out of fold, scaled by least squares, of trusted donors and views; and the catalog that comes closer to the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import row_lengths, unit_rows
from rectifier_core.base.records import Plan, Trust
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.expected import Views, fit_expected
from rectifier_core.rectify.rectify import Mixing, Model, decide_status, rectify_rows
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sinkhorn import balance
from tests.support.core_samples import affinity_of, normals
from tests.support.record_samples import good

ITEMS, WIDTH, KNOWN = 800, 12, 6


def trust_in(right: Bool) -> Trust:
    probability = np.where(right, np.float32(0.95), np.float32(0.05))
    fields = good(Trust) | dict.fromkeys(("probability", "probability_upper", "behaviour", "cross_modal"), probability)
    return replace(Trust(**fields), mismatch_rate=float(1 - right.mean()), low=0.1, identifiable=True)


def scene(seed: int, told: float) -> tuple[Float32, Views, Plan, Bool, Float32]:
    """Features of which anchors tell the share ``told``, a fifth of them swapped; the plan joins items with like anchors."""
    rng = np.random.default_rng(seed)
    anchors = unit_rows(normals(rng, ITEMS, KNOWN))
    true = unit_rows(
        np.float32(told) * anchors @ normals(rng, KNOWN, WIDTH) + normals(rng, ITEMS, WIDTH) + np.float32(0.5)
    )
    swapped = rng.choice(ITEMS, ITEMS // 5, replace=False)
    features = true.copy()
    features[swapped] = true[np.roll(swapped, 1)]
    likeness = anchors @ anchors.T
    np.fill_diagonal(likeness, -2)
    near = np.argsort(-likeness, axis=1)[:, :10]
    plan = balance(affinity_of(near, np.take_along_axis(likeness, near, axis=1) / 0.1), SinkhornConfig())
    right = np.ones(ITEMS, np.bool_)
    right[swapped] = False
    return features, Views(anchors, [], []), plan, right, true


def fitted(seed: int, told: float):
    features, views, plan, right, true = scene(seed, told)
    folds = (np.arange(ITEMS) % 5).astype(np.int32)
    trust, everyone = trust_in(right), np.ones(ITEMS, np.bool_)
    lengths = row_lengths(features)
    expected = fit_expected("image", features, lengths, everyone, folds, views, plan, trust, seed=0)
    model = Model(expected=expected, views=views, folds=folds)
    mixing = Mixing(plan=plan, trust=trust, lengths=lengths, config=RectifyConfig(), model=model)
    status = decide_status(everyone, plan, trust, mixing.config)
    return features, true, right, expected, rectify_rows(features, everyone, slice(0, ITEMS), status, mixing)


def closeness(features: Float32, true: Float32) -> Float32:
    return np.einsum("ij,ij->i", unit_rows(features - true.mean(axis=0)), unit_rows(true - true.mean(axis=0)))


@pytest.mark.parametrize("told", [0.0, 0.5, 3.0])
def test_the_catalog_comes_closer_to_the_truth_or_stays(told: float) -> None:
    features, true, right, expected, found = fitted(1, told)
    before, after = closeness(features, true), closeness(found.features, true)
    assert after.mean() >= before.mean() - 0.003
    assert after[right].mean() > 0.99
    if told == 0:
        assert expected.donor_weight < 0.4, "donors that say nothing are shrunk"
    if told == 3:
        assert after[~right].mean() > 0.7 > 0.3 > before[~right].mean()


def test_weights_are_shares_and_the_mean_is_of_trusted_rows() -> None:
    features, _, right, expected, _ = fitted(2, 1.0)
    assert 0 <= expected.donor_weight <= 1
    weight = np.where(right, 0.95, 0.05)
    np.testing.assert_allclose(expected.mean, weight @ unit_rows(features) / weight.sum(), atol=1e-5)


def test_no_map_has_seen_the_items_it_predicts() -> None:
    """Other features in one fold change the maps of all other folds, and not the map that predicts this fold."""
    features, views, plan, right, _ = scene(3, 1.0)
    folds, everyone = (np.arange(ITEMS) % 5).astype(np.int32), np.ones(ITEMS, np.bool_)
    other, few = features.copy(), np.flatnonzero(folds == 2)[:8]
    # Rows exchanged within a fold leave the mean as it was.
    other[few] = np.roll(features[few], 1, axis=0)
    trust = replace(trust_in(right), probability=np.ones(ITEMS, np.float32))
    one, two = (
        fit_expected("image", x, row_lengths(x), everyone, folds, views, plan, trust, seed=0) for x in (features, other)
    )
    # All maps of a fit share one weight.
    change = [
        np.abs(a / np.linalg.norm(one.maps[2]) - b / np.linalg.norm(two.maps[2])).max()
        for a, b in zip(one.maps, two.maps, strict=True)
    ]
    assert change[2] < 1e-5 < 1e-4 < min(change[0], change[1], change[3], change[4])

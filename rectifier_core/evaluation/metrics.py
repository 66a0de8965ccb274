"""Measures that need held-out truth."""

from __future__ import annotations

import numpy as np

from rectifier_core.numerics import unit_rows
from rectifier_core.records import Bool, Float32, Interactions
from rectifier_core.seeding import generator


def pair_closeness(features: Float32, training: Interactions, held_out: Interactions, *, seed: int, draws: int = 40_000) -> float:
    """The chance that a held-out item lies closer to one of its user's training items than a held-out item of another pair does.

    Per draw: a held-out (user, item t), one of the user's training items a, the item n of another held-out pair (so popularity is
    matched); the share of draws with cosine(a, t) > cosine(a, n) on centred features, ties half. 0.5 is chance.
    """
    rng = generator(seed, "metrics", "closeness")
    centred = unit_rows((features - features.mean(axis=0)).astype(np.float32))
    order = np.argsort(training.users, kind="stable")
    first = np.searchsorted(training.users[order], np.arange(training.num_users + 1))
    usable = np.flatnonzero(np.diff(first)[held_out.users] > 0)
    drawn, other = rng.choice(usable, draws), rng.choice(usable, draws)
    users = held_out.users[drawn]
    own = training.items[order][first[users] + (rng.random(draws) * (first[users + 1] - first[users])).astype(np.int64)]
    near, far = (np.einsum("ij,ij->i", centred[own], centred[held_out.items[at]]) for at in (drawn, other))
    return float((near > far).mean() + 0.5 * (near == far).mean())


def calibration_error(probability: Float32, truth: Bool, *, bins: int = 10) -> float:
    """Expected calibration error: the mean over items of how far their bin's mean ``probability`` [N] lies from its share of ``truth`` [N].

    ``bins`` of equal width (Naeini et al., AAAI 2015); NaN without items.
    """
    if not len(probability):
        return float("nan")
    at = np.clip((probability * bins).astype(np.int64), 0, bins - 1)
    said, true = (np.bincount(at, weights=x, minlength=bins) for x in (probability.astype(np.float64), truth.astype(np.float64)))
    return float(np.abs(said - true).sum() / len(probability))

"""The regularised graph against its formula, and what it is for: components too small to say anything."""

from __future__ import annotations

import numpy as np
import pytest

from rectifier_core.anchors.propagation import ITEMS, USERS, InteractionGraph, leading_singular_vectors
from rectifier_core.anchors.spectral import RAISED, SPREAD, regularised, spectral_start
from rectifier_core.base.seeding import generator
from tests.support.core_samples import block_log, log_of


def test_degrees_are_raised_by_a_share_of_the_mean_of_those_that_occur() -> None:
    log = log_of([0, 0, 1, 3], [0, 2, 2, 2], 5, 4)
    users, items = np.array([2, 1, 0, 1, 0]), np.array([1, 0, 3, 0])
    likes = np.zeros((5, 4))
    likes[log.users, log.items] = 1
    wanted = likes / np.sqrt(users + RAISED * 4 / 3)[:, None] / np.sqrt(items + RAISED * 2)[None, :]
    found = regularised(InteractionGraph.of(log))
    assert np.allclose(found.towards[USERS].to_dense().numpy(), wanted, atol=1e-6)
    assert np.array_equal(found.towards[ITEMS].to_dense().numpy(), found.towards[USERS].to_dense().numpy().T)


def test_pairs_that_nothing_else_touches_do_not_lead() -> None:
    """Ten users with an item each that nobody else took, beside four blocks: unregularised, they are the first singular vectors."""
    blocks = block_log(blocks=4, users=120, items=80, seed=0)
    log = log_of(np.append(blocks.users, 120 + np.arange(10)), np.append(blocks.items, 80 + np.arange(10)), 130, 90)
    graph = InteractionGraph.of(log)
    shares = []
    for used in (graph, regularised(graph)):
        _, _, v = leading_singular_vectors(used, 4, generator(0, "svd"))
        shares.append(float((v[80:] ** 2).sum() / (v**2).sum()))
    assert shares[0] > 0.2 and shares[1] < 1e-3


def test_the_start_is_spread_as_said_and_the_same_for_the_same_stream() -> None:
    graph = InteractionGraph.of(block_log(blocks=4, users=120, items=80, seed=0))
    first, again = (spectral_start(graph, 6, generator(1, "start")) for _ in range(2))
    assert first.dtype == np.float32 and first.std() == pytest.approx(SPREAD, rel=1e-5)
    assert first.tobytes() == again.tobytes()


def test_a_log_without_pairs_starts_at_nought() -> None:
    assert not spectral_start(InteractionGraph.of(log_of([], [], 3, 4)), 5, generator(0, "start")).any()

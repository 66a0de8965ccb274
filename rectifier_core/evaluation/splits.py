"""How a log is divided into training, validation and test pairs: per user at random, or by time.

``split_users`` follows the per-user protocol of MMRec's preprocessing, where few pairs make the real shares about 74 / 13 / 13.

Differs from the public protocol:
- The shuffle is seeded.
- A user who gives up pairs gives up first those whose item keeps another training pair, so that an item leaves training only where its
  users have nothing else to give; each item's kept pair is drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.base.arrays import Int64
from rectifier_core.base.pairs import subset
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator

PARTS = ("training", "validation", "test")
FEW = 10
"""Users with fewer pairs than this give one to validation and one to test, whatever the shares."""
FEWEST = 3
"""Users with fewer pairs than this stay in training whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Three disjoint sets of pairs over the same users and items."""

    training: Interactions
    validation: Interactions
    test: Interactions


def split_parts(pairs: Interactions, part: Int64) -> Split:
    """The pairs whose ``part`` [E] is 0 training, 1 validation and 2 test; those of any other part are left out."""
    return Split(**{name: subset(pairs, part == code) for code, name in enumerate(PARTS)})


def split_users(interactions: Interactions, *, seed: int, validation: float = 0.1, test: float = 0.1) -> Split:
    """Hold out pairs of every user at random: floor((validation + test) n) of a user's n pairs, the smaller half for validation.

    Users with 3 to 9 pairs give one to each, those with fewer none. The pairs must be distinct, and keep their order.
    """
    users, rng = interactions.users, generator(seed, "splits", "users")
    count = np.bincount(users, minlength=interactions.num_users)
    for_validation, held_out = _held_out(count, validation, test)
    order = rng.permutation(len(users))
    needed = np.zeros(len(users), np.bool_)
    needed[order[np.unique(interactions.items[order], return_index=True)[1]]] = True
    # Within each user the pairs that can be spared come first, at random.
    queue = order[np.lexsort((needed[order], users[order]))]
    place = np.empty(len(users), np.int64)
    place[queue] = np.arange(len(users)) - np.repeat(np.cumsum(count) - count, count)
    part = np.where(place < for_validation[users], 1, np.where(place < held_out[users], 2, 0))
    return split_parts(interactions, part)


def split_time(interactions: Interactions, *, validation: float = 0.1, test: float = 0.1) -> Split:
    """The last ``test`` share of the log as test, the ``validation`` share before it as validation. Pairs of one moment stay together.

    Validation and test lose the pairs of users who are not in training. Items may be new there, as they are to a model in use. Raises
    ValueError where pairs have no times, or too few different ones for three parts.
    """
    if interactions.times is None:
        raise ValueError("times: wanted a time for every pair, got none")
    times, size = np.sort(interactions.times), len(interactions.times)
    last = _cut(times, round((1 - test) * size))
    first = _cut(times[:last], round((1 - test - validation) * size))
    if not 0 < first < last:
        raise ValueError(
            f"times: wanted enough different ones to cut the log in time, got {len(np.unique(times))} among {size} pairs"
        )
    part = np.searchsorted(times[[first, last]], interactions.times, side="right")
    part[~np.isin(interactions.users, interactions.users[part == 0])] = -1
    return split_parts(interactions, part)


def _held_out(count: Int64, validation: float, test: float) -> tuple[Int64, Int64]:
    """Per user how many pairs go to validation, and how many to both."""
    # The sum of two shares may lie a rounding error below what was meant.
    held_out = np.floor((validation + test) * count + 1e-9).astype(np.int64)
    for_validation = np.floor(held_out * (validation / (validation + test)) + 1e-9).astype(np.int64)
    for_validation[count < FEW], held_out[count < FEW] = 1, 2
    for_validation[count < FEWEST] = held_out[count < FEWEST] = 0
    return for_validation, held_out


def _cut(times: Int64, wanted: int) -> int:
    """The position nearest ``wanted`` in sorted ``times`` at which a new moment begins, 0 where none does."""
    starts = np.flatnonzero(np.diff(times)) + 1
    return int(starts[np.argmin(np.abs(starts - wanted))]) if len(starts) else 0

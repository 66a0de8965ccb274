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

from rectifier_core.base.arrays import Bool, Int64
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator

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

    def __post_init__(self) -> None:
        sizes = {(x.num_users, x.num_items) for x in (self.training, self.validation, self.test)}
        if len(sizes) != 1:
            raise ValueError(
                f"split: wanted the same users and items in all parts, got (users, items) of {sorted(sizes)}"
            )


def subset(pairs: Interactions, chosen: Bool) -> Interactions:
    """The chosen pairs [E], in their order, with their times where there are any."""
    times = None if pairs.times is None else pairs.times[chosen]
    return Interactions(
        users=pairs.users[chosen],
        items=pairs.items[chosen],
        times=times,
        num_users=pairs.num_users,
        num_items=pairs.num_items,
    )


def pair_keys(pairs: Interactions) -> Int64:
    """One number a pair, equal for repeats of a pair: [E]."""
    keys: Int64 = pairs.users.astype(np.int64) * pairs.num_items + pairs.items
    return keys


def split_users(interactions: Interactions, *, seed: int, validation: float = 0.1, test: float = 0.1) -> Split:
    """Hold out pairs of every user at random: floor((validation + test) n) of a user's n pairs, the smaller half for validation.

    Users with 3 to 9 pairs give one to each part that has a share, those with fewer none. The pairs are distinct and keep their order.
    """
    _check_shares(validation, test)
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
    in_validation = place < for_validation[users]
    in_test = ~in_validation & (place < held_out[users])
    return _split(interactions, in_validation, in_test)


def split_time(interactions: Interactions, *, validation: float = 0.1, test: float = 0.1) -> Split:
    """The last ``test`` share of the log as test, the ``validation`` share before it as validation; one moment is never cut in two.

    Pairs of users who are not in training are dropped from validation and test, items may be new there, as they are to a model in use.
    Raises ValueError where pairs have no times, or too few different ones for every part that has a share.
    """
    _check_shares(validation, test)
    if interactions.times is None:
        raise ValueError("times: wanted a time for every pair, got none")
    times, size = np.sort(interactions.times), len(interactions.times)
    last = _cut(times, min(round((1 - test) * size), size - 1)) if test else size
    first = _cut(times[:last], min(round((1 - test - validation) * size), last - 1)) if validation else last
    if not 0 < first <= last <= size or (validation and first == last) or (test and last == size):
        raise ValueError(
            f"times: wanted enough different ones to cut the log in time, got {len(np.unique(times))} among {size} pairs"
        )
    later = np.zeros(size, np.int64)
    if validation:
        later += interactions.times >= times[first]
    if test:
        later += (1 if validation else 2) * (interactions.times >= times[last])
    known = np.zeros(interactions.num_users, np.bool_)
    known[interactions.users[later == 0]] = True
    later[(later > 0) & ~known[interactions.users]] = -1
    return _split(interactions, later == 1, later == 2, later == 0)


def _held_out(count: Int64, validation: float, test: float) -> tuple[Int64, Int64]:
    """Per user how many pairs go to validation, and how many to both."""
    # The sum of two shares may lie a rounding error below what was meant.
    held_out = np.floor((validation + test) * count + 1e-9).astype(np.int64)
    for_validation = np.floor(held_out * (validation / max(validation + test, 1e-9)) + 1e-9).astype(np.int64)
    few = count < FEW
    for_validation[few], held_out[few] = int(validation > 0), int(validation > 0) + int(test > 0)
    held_out[count < FEWEST] = for_validation[count < FEWEST] = 0
    return for_validation, held_out


def _cut(times: Int64, wanted: int) -> int:
    """The position nearest ``wanted`` in sorted ``times`` at which a new moment begins, or their number where none does."""
    if not 0 < wanted < len(times):
        return max(0, min(wanted, len(times)))
    before, after = (int(np.searchsorted(times, times[wanted], side=side)) for side in ("left", "right"))
    if before == 0:
        return after
    return before if after == len(times) or wanted - before <= after - wanted else after


def _split(whole: Interactions, validation: Bool, test: Bool, training: Bool | None = None) -> Split:
    chosen = ~(validation | test) if training is None else training
    return Split(training=subset(whole, chosen), validation=subset(whole, validation), test=subset(whole, test))


def _check_shares(validation: float, test: float) -> None:
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise ValueError(f"{name}: wanted a share in [0, 1), got {share}")
    if not validation + test < 1:
        raise ValueError(f"validation + test: wanted below 1, got {validation + test}")

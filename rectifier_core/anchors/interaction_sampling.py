"""Draw from a log of pairs: held-out pairs and negatives, and test which pairs it holds."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from rectifier_core.base.arrays import Bool, Int32
from rectifier_core.base.records import Interactions


def hold_out(interactions: Interactions, share: float, rng: np.random.Generator) -> tuple[Interactions, Interactions]:
    """The training pairs and about ``share`` of the pairs held out, never a user's or an item's only pair."""
    count = len(interactions.users)
    order = rng.permutation(np.arange(count, dtype=np.int32 if count < 2**31 else np.int64))
    needed = np.zeros(count, dtype=np.bool_)
    for nodes, number in ((interactions.users, interactions.num_users), (interactions.items, interactions.num_items)):
        first = np.full(number, -1, order.dtype)
        # NumPy keeps the last write to an index, so each node gets its earliest pair in ``order``.
        first[nodes[order[::-1]]] = order[::-1]
        needed[first[first >= 0]] = True
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[order[~needed[order]][: int(share * count)]] = True
    return _subset(interactions, ~chosen), _subset(interactions, chosen)


def _subset(whole: Interactions, at: Bool) -> Interactions:
    return Interactions(
        users=whole.users[at], items=whole.items[at], times=None, num_users=whole.num_users, num_items=whole.num_items
    )


class PairSet:
    """Membership of (user, item) pairs. ``matrix`` [U, I] is bool CSR, True where the pair is in the set."""

    def __init__(self, pairs: Interactions) -> None:
        shape = (pairs.num_users, pairs.num_items)
        self.matrix = sp.csr_array((np.ones(len(pairs.users), np.bool_), (pairs.users, pairs.items)), shape=shape)
        self.matrix.sum_duplicates()

    def contains(self, users: Int32, items: Int32) -> Bool:
        """True where the pair is in the set. ``users`` and ``items`` broadcast against each other."""
        users, items = np.broadcast_arrays(users, items)
        if not users.size:
            return np.zeros(users.shape, np.bool_)
        return np.asarray(self.matrix[users.ravel(), items.ravel()]).reshape(users.shape)


class NegativeSampler:
    """Draws items of the log uniformly, rejecting the user's own positives."""

    def __init__(self, training: Interactions) -> None:
        self._pool = np.flatnonzero(np.bincount(training.items, minlength=training.num_items)).astype(np.int32)
        self._positives = PairSet(training)

    def __call__(self, users: Int32, rng: np.random.Generator) -> Int32:
        """One negative a user [N] int32. After 20 rounds, a user with (nearly) every item keeps the last draw."""
        drawn = self._pool[rng.integers(len(self._pool), size=len(users))]
        pending = np.arange(len(users))
        for _ in range(20):
            pending = pending[self._positives.contains(users[pending], drawn[pending])]
            if not len(pending):
                break
            drawn[pending] = self._pool[rng.integers(len(self._pool), size=len(pending))]
        return drawn

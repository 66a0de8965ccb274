"""Pairs of a log: held-out ones, membership, and negatives; a leaf of whatever trains on interactions."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import scipy.sparse as sp

from rectifier_core.base.arrays import Bool, Int32
from rectifier_core.base.records import Interactions
from rectifier_core.base.threads import even_bounds, in_shards, kernel, num_shards, read_only


def hold_out(interactions: Interactions, share: float, rng: np.random.Generator) -> tuple[Interactions, Interactions]:
    """Split off about ``share`` of the pairs, never a user's or an item's only one, so that everything trained stays trained."""
    count = len(interactions.users)
    order = rng.permutation(np.arange(count, dtype=np.int32 if count < 2**31 else np.int64))
    needed = np.zeros(count, dtype=np.bool_)
    for nodes, number in ((interactions.users, interactions.num_users), (interactions.items, interactions.num_items)):
        first = np.full(number, -1, order.dtype)
        # The earliest in ``order`` is written last, and the last write stays.
        first[nodes[order[::-1]]] = order[::-1]
        needed[first[first >= 0]] = True
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[order[~needed[order]][: int(share * count)]] = True
    return _chosen(interactions, ~chosen), _chosen(interactions, chosen)


def _chosen(whole: Interactions, at: Bool) -> Interactions:
    return Interactions(
        users=whole.users[at], items=whole.items[at], times=None, num_users=whole.num_users, num_items=whole.num_items
    )


_INDEX = read_only(numba.int32, 1)


@kernel(numba.void(_INDEX, _INDEX, _INDEX, _INDEX, numba.bool_[::1], numba.intp, numba.intp))
def _find(indptr: Any, listed: Any, users: Any, items: Any, found: Any, first: Any, last: Any) -> None:
    """Whether each item is in its user's sorted list, by bisection."""
    for at in range(first, last):
        item, low, high = items[at], indptr[users[at]], indptr[users[at] + 1]
        while low < high:
            middle = (low + high) // 2
            if listed[middle] < item:
                low = middle + 1
            else:
                high = middle
        found[at] = low < indptr[users[at] + 1] and listed[low] == item


class PairSet:
    """Membership of (user, item) pairs, many at a time: each user's items, sorted."""

    def __init__(self, pairs: Interactions) -> None:
        shape = (pairs.num_users, pairs.num_items)
        matrix = sp.csr_array((np.ones(len(pairs.users), np.int8), (pairs.users, pairs.items)), shape=shape)
        matrix.sum_duplicates()
        self._starts, self._items = (
            matrix.indptr.astype(np.int32, copy=False),
            matrix.indices.astype(np.int32, copy=False),
        )

    def __contains__(self, pair: tuple[int, int]) -> bool:
        return bool(self.contains(np.array([pair[0]], np.int32), np.array([pair[1]], np.int32))[0])

    def contains(self, users: Int32, items: Int32) -> Bool:
        """True where the pair is in the set; ``users`` and ``items``, of the log's range, broadcast against each other."""
        shape = np.broadcast_shapes(users.shape, items.shape)
        flat = [np.ascontiguousarray(np.broadcast_to(x, shape)).reshape(-1) for x in (users, items)]
        found = np.empty(len(flat[0]), np.bool_)
        bounds = even_bounds(len(found), num_shards(50 * len(found)))
        in_shards(lambda first, last: _find(self._starts, self._items, *flat, found, first, last), bounds)
        return found.reshape(shape)


class NegativeSampler:
    """Uniform negatives over the items of the log, rejecting the user's own positives; a whole batch a call."""

    def __init__(self, training: Interactions) -> None:
        self._pool = np.flatnonzero(np.bincount(training.items, minlength=training.num_items)).astype(np.int32)
        self._positives = PairSet(training)

    def __call__(self, users: Int32, rng: np.random.Generator) -> Int32:
        """One negative per user, int32; after 20 rounds a user who took (nearly) every item keeps the last draw."""
        drawn = self._pool[rng.integers(len(self._pool), size=len(users))]
        pending = np.arange(len(users))
        for _ in range(20):
            pending = pending[self._positives.contains(users[pending], drawn[pending])]
            if not len(pending):
                break
            drawn[pending] = self._pool[rng.integers(len(self._pool), size=len(pending))]
        return drawn

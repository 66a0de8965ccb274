"""Recall@20 on held-out pairs of a sample of users, by counting what ranks above each; a leaf of whatever stops early by it."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import scipy.sparse as sp
import torch

from rectifier_core.anchors.interaction_sampling import PairSet
from rectifier_core.anchors.row_products import dense_product
from rectifier_core.base.arrays import Float32, Int32, Int64
from rectifier_core.base.devices import full_float32, to_device
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.records import Interactions
from rectifier_core.base.threads import even_bounds, in_shards, kernel, num_shards, read_only

DEPTH = 20
JUDGES = 2000
BLOCK = 1008
"""Items scored at a time: their scores stay in the cache until they are counted. No multiple of 1,024, which would crowd one set of it."""

DEVICE_PLACES = 2**26
"""Scores that a device compares at a time."""

_INDEX, _SIZE = read_only(numba.int32, 1), numba.intp


@kernel(
    numba.void(
        read_only(numba.float32, 2), _INDEX, _INDEX, read_only(numba.float32, 1), numba.int64[::1], _SIZE, _SIZE, _SIZE
    )
)
def _count_above(
    scores: Any, rows: Any, items: Any, wanted: Any, above: Any, start: Any, first: Any, last: Any
) -> None:
    """Add to ``above`` how many of the items from ``start`` on rank above each pair, ties by number; what is no number does."""
    for at in range(first, last):
        row, score, count = scores[rows[at]], wanted[at], 0
        middle = min(max(items[at] - start, 0), len(row))
        for other in range(middle):
            count += not row[other] < score
        for other in range(middle + (start <= items[at]), len(row)):
            count += not row[other] <= score
        above[at] += count


class HeldOutRecall:
    """Recall@20 over at most ``JUDGES`` held-out users, all items ranked, their training items masked."""

    def __init__(self, training: Interactions, held_out: Interactions, rng: np.random.Generator) -> None:
        users = np.unique(held_out.users)
        self._users = np.sort(rng.choice(users, min(JUDGES, len(users)), replace=False))
        known, wanted = (_items_of(self._users, pairs) for pairs in (training, held_out))
        pairs = wanted.tocoo()
        self._rows, self._items = pairs.row.astype(np.int32), pairs.col.astype(np.int32)
        self._masked = PairSet(training).contains(self._users[self._rows], self._items)
        self._shares = 1 / np.diff(wanted.indptr)[self._rows]
        self._known = known.tocsc()

    def __call__(self, final: Float32 | torch.Tensor) -> float:
        """Mean recall of ``final`` [U + I, A], an array or a tensor on the device that is to judge it; 0 when nothing is held out."""
        if not len(self._users):
            return 0.0
        above = self._above(final) if isinstance(final, np.ndarray) else self._above_on_device(final)
        return float(self._shares[above < DEPTH].sum() / len(self._users))

    def _above(self, final: Float32) -> Int64:
        """How many items rank above each held-out pair."""
        users, items = final[self._users], final[-self._known.shape[1] :]
        wanted = np.einsum("ij,ij->i", users[self._rows], items[self._items])
        wanted[self._masked] = -np.inf
        above = np.zeros(len(wanted), np.int64)
        for block in row_blocks(len(items), BLOCK):
            scores = dense_product(users, np.ascontiguousarray(items[block].T))
            known = self._known[:, block].tocoo()
            scores[known.row, known.col] = -np.inf
            self._count(scores, wanted, above, block.start)
        return above

    def _above_on_device(self, final: torch.Tensor) -> Int64:
        with torch.inference_mode(), full_float32():
            rows, own, masked = (to_device(x, str(final.device)) for x in (self._rows, self._items, self._masked))
            users, items = (
                final.index_select(0, to_device(self._users, str(final.device))),
                final[-self._known.shape[1] :],
            )
            wanted = (
                (users.index_select(0, rows) * items.index_select(0, own))
                .sum(dim=1)
                .masked_fill_(masked, -torch.inf)[:, None]
            )
            above = torch.zeros(len(rows), dtype=torch.int64, device=final.device)
            for block in row_blocks(len(items), max(1, DEVICE_PLACES // max(len(rows), len(users)))):
                scores, known = users @ items[block].T, self._known[:, block].tocoo()
                at = (to_device(x.astype(np.int64), str(final.device)) for x in (known.row, known.col))
                scores[tuple(at)] = -torch.inf
                scores, places = (
                    scores.index_select(0, rows),
                    torch.arange(block.start, block.stop, device=final.device),
                )
                ahead = torch.where(places < own[:, None], ~(scores < wanted), ~(scores <= wanted))
                above += (ahead & (places != own[:, None])).sum(dim=1)
            counted: Int64 = above.cpu().numpy()
        return counted

    def _count(self, scores: Float32, wanted: Float32, above: Int64, start: int) -> None:
        bounds = even_bounds(len(above), num_shards(len(above) * scores.shape[1]))
        in_shards(
            lambda first, last: _count_above(scores, self._rows, self._items, wanted, above, start, first, last), bounds
        )


def _items_of(users: Int32, pairs: Interactions) -> sp.csr_array:
    """Binary rows of the chosen users, in their order (ascending): [len(users), I]."""
    row = np.searchsorted(users, pairs.users)
    row[row == len(users)] = 0
    of = users[row] == pairs.users if len(users) else np.zeros(len(row), np.bool_)
    matrix = sp.csr_array(
        (np.ones(of.sum(), np.float32), (row[of], pairs.items[of])), shape=(len(users), pairs.num_items)
    )
    matrix.sum_duplicates()
    return matrix

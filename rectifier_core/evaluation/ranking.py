"""Ranking all items for a user, known pairs masked, ties broken by item number."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from rectifier_core.base.arrays import Float32, Int32
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.records import Interactions


def rank_items(
    users: torch.Tensor, items: torch.Tensor, wanted: Int32, known: Interactions, *, depth: int = 20, block: int = 512
) -> Int32:
    """The ``depth`` best items of each user in ``wanted`` [N], best first: int32 [N, depth], -1 where a user knows nearly everything.

    ``users`` [U, R] and ``items`` [I, R] score by inner product. Items of ``known`` pairs are never listed. Equal scores are ordered by
    item number, so that the same representations always give the same list.
    """
    ones = np.ones(len(known.users), np.float32)
    seen = sp.csr_array((ones, (known.users, known.items)), shape=(known.num_users, known.num_items))[wanted]
    depth_there = min(depth, known.num_items)
    ranked = np.full((len(wanted), depth), -1, np.int32)
    with torch.no_grad():
        for rows in row_blocks(len(wanted), block):
            at = torch.from_numpy(wanted[rows].astype(np.int64)).to(users.device)
            scores = (users.detach().index_select(0, at) @ items.detach().T).cpu().numpy()
            masked = seen[rows].tocoo()
            scores[masked.row, masked.col] = -np.inf
            ranked[rows, :depth_there] = _best(scores, depth_there)
    return ranked


def _best(scores: Float32, depth: int) -> Int32:
    """Column numbers of the ``depth`` largest entries of each row, ties by column; -1 for entries of minus infinity."""
    if depth < scores.shape[1]:
        chosen = np.sort(np.argpartition(-scores, depth - 1, axis=1)[:, :depth], axis=1)
        kept = np.take_along_axis(scores, chosen, axis=1)
        last = kept.min(axis=1, keepdims=True)
        # The partition takes any of the entries that tie at the end of the list.
        tied = np.flatnonzero((scores == last).sum(axis=1) > (kept == last).sum(axis=1))
        for row in tied:
            chosen[row] = np.sort(np.argsort(-scores[row], kind="stable")[:depth])
        kept[tied] = np.take_along_axis(scores[tied], chosen[tied], axis=1)
    else:
        chosen = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        kept = scores
    order = np.argsort(-kept, axis=1, kind="stable")[:, :depth]
    best = np.take_along_axis(chosen, order, axis=1).astype(np.int32)
    best[np.take_along_axis(kept, order, axis=1) == -np.inf] = -1
    return best

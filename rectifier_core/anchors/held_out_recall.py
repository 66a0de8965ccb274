"""Recall@20 on held-out pairs of a sample of users. Training stops early by it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from rectifier_core.anchors.interaction_sampling import PairSet
from rectifier_core.base.arrays import Int32
from rectifier_core.base.devices import full_float32, to_device
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.records import Interactions

DEPTH = 20
MOST_USERS = 2000
MOST_SCORES = 2**25
"""Scores of a block of users, float32, held at a time."""


class HeldOutRecall:
    """Recall@20 over at most ``MOST_USERS`` held-out users. All items are ranked, except the user's training items."""

    def __init__(self, training: Interactions, held_out: Interactions, rng: np.random.Generator) -> None:
        users = np.unique(held_out.users)
        self._users = np.sort(rng.choice(users, min(MOST_USERS, len(users)), replace=False))
        self._known, self._wanted = (_items_of(self._users, pairs) for pairs in (training, held_out))

    def __call__(self, final: torch.Tensor) -> float:
        """Mean recall of the node rows ``final`` [U + I, A], computed on their device; 0 when nothing is held out."""
        num_users, num_items = self._known.shape
        if not num_users:
            return 0.0
        total, device = 0.0, str(final.device)
        items = final[-num_items:].T
        with torch.inference_mode(), full_float32():
            for block in row_blocks(num_users, max(1, MOST_SCORES // num_items)):
                scores = final[to_device(self._users[block], device).long()] @ items
                known, wanted = self._known[block].tocoo(), self._wanted[block].tocoo()
                scores[_place(known.row, device), _place(known.col, device)] = -torch.inf
                top = scores.topk(min(DEPTH, num_items), dim=1)
                # NaN ranks highest in torch, but recalls nothing.
                ranked = torch.where(top.values.isfinite(), top.indices, -1).cpu().numpy()
                hits = (ranked[wanted.row] == wanted.col[:, None]).any(axis=1)
                total += float((hits / np.diff(self._wanted.indptr)[block][wanted.row]).sum())
        return total / num_users


def _place(indices: Int32, device: str) -> torch.Tensor:
    return to_device(indices, device).long()


def _items_of(users: Int32, pairs: Interactions) -> sp.csr_array:
    """Binary rows of the chosen users, in their order (ascending): [len(users), I]."""
    matrix = PairSet(pairs).matrix
    chosen: sp.csr_array = matrix[users]
    return chosen

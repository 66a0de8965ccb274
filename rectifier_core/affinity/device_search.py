"""The K largest inner products of many queries with many vectors on a torch device, exact in float32; a leaf.

Scores are made block by block and never kept: of each block, the ``count`` groups of neighbouring columns with the largest maxima are
looked into, for nothing outside them can be among the ``count`` best, and what is best there is merged with what was best before. One pass
over the scores finds the maxima; picking from all of them takes torch four times as long. A score and its column are ordered as one
integer, so that ties go to the lower item wherever blocks and groups are cut.
"""

from __future__ import annotations

import threading

import numpy as np
import torch

from rectifier_core.base.arrays import Float32, Int32, Int64
from rectifier_core.base.devices import free_memory, full_float32, to_device
from rectifier_core.base.numerics import row_blocks

GROUP = 64
MOST_COLUMNS = 2**17
UPLOAD_ROWS = 2**16
_LAST = 2**32 - 1


class DeviceSearch:
    """The rows ``items`` int64 [N], ascending, of ``vectors`` [I, D] float32, held by ``device``.

    ``vectors`` may be a memory map; it is read once, unless its rows would fill more than half of the device's free memory: they then stay
    where they are, and go up block by block for every block of queries. Threads may share one: their turns on the device never overlap.
    """

    name, recall = "flat", 1.0

    def __init__(self, vectors: Float32, items: Int64, device: str) -> None:
        self._vectors, self._items, self._device = vectors, items.astype(np.int32), device
        self._lock = threading.Lock()
        self._held: torch.Tensor | None = None
        if 4 * len(items) * vectors.shape[1] <= free_memory(device) // 2:
            self._held = torch.empty((len(items), vectors.shape[1]), device=device)
            for block in row_blocks(len(items), UPLOAD_ROWS):
                self._held[block] = to_device(vectors[items[block]], device)

    def __call__(self, queries: Float32, count: int) -> Int32:
        """The ``count`` items with the largest product with each of ``queries`` [B, D]: int32 [B, count], -1 where there are fewer.

        By descending product as the device rounds it, ties by ascending item.
        """
        with self._lock, torch.inference_mode(), full_float32():
            asked, width = to_device(queries, self._device), self._columns(len(queries), count)
            best = torch.full((len(queries), count), torch.iinfo(torch.int64).min, device=self._device)
            for block in row_blocks(len(self._items), width):
                best = _merged(best, self._products(asked, block, width), block.start)
            place = (_LAST - (best & _LAST)).cpu().numpy()
        there = place < len(self._items)
        found = np.full(place.shape, -1, np.int32)
        found[there] = self._items[place[there]]
        return found

    def _products(self, asked: torch.Tensor, block: slice, width: int) -> torch.Tensor:
        """Scores [B, width]; a block's missing columns are minus infinity. All blocks have one shape, so that equal rows score equally."""
        held = to_device(self._vectors[self._items[block]], self._device) if self._held is None else self._held[block]
        count = len(held)
        if count < width:
            held = torch.cat([held, held.new_zeros((width - count, held.shape[1]))])
        scores = asked @ held.T
        scores[:, count:] = -torch.inf
        return scores

    def _columns(self, rows: int, count: int) -> int:
        """How many columns to score at a time: in half of what is free, four bytes each and the groups' keys; what is picked takes more."""
        room = free_memory(self._device) // (2 * max(1, rows)) - 32 * GROUP * count
        wanted = min(MOST_COLUMNS, room // 5, -(-len(self._items) // GROUP) * GROUP)
        return max(1, wanted // GROUP) * GROUP


def _merged(best: torch.Tensor, scores: torch.Tensor, start: int) -> torch.Tensor:
    """The keys [B, K] of the best so far and of ``scores`` [B, C], whose first column is ``start``, falling."""
    rows, count = best.shape
    within = torch.arange(GROUP, device=scores.device)
    maxima = scores.view(rows, -1, GROUP).amax(dim=2)
    keys = _keys(maxima, torch.arange(maxima.shape[1], device=scores.device))
    groups = _LAST - (keys.topk(min(count, maxima.shape[1]), dim=1).values & _LAST)
    columns = (groups[:, :, None] * GROUP + within).view(rows, -1)
    return torch.cat([best, _keys(scores.gather(1, columns), columns + start)], dim=1).topk(count, dim=1).values


def _keys(scores: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Integers that are ordered as the scores are, and of equal scores the lower place first."""
    # Adding zero makes minus zero plus zero; the bits of negative numbers run backwards.
    bits = (scores + 0.0).view(torch.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    return ordered * 2**32 + (_LAST - places)

"""Exact search for the nearest rows on a torch device: the same interface as ``index.NearestRows``."""

from __future__ import annotations

import threading

import numpy as np
import torch

from rectifier_core.affinity.index import EXTRA
from rectifier_core.base.arrays import Float32, Int32, Int64
from rectifier_core.base.devices import free_memory, full_float32, to_device
from rectifier_core.base.numerics import row_blocks

MOST_COLUMNS = 2**15


class DeviceRows:
    """The rows ``rows`` int64 [N] of ``vectors`` [I, D] (float32, may be a memory map) for search on ``device``.

    The rows stay on the device where half of its free memory holds them. Otherwise every block of queries uploads them again. Threads may
    share one object: the device works for one at a time.
    """

    name, recall = "flat", 1.0

    def __init__(self, vectors: Float32, rows: Int64, device: str) -> None:
        self.vectors, self._rows, self._device = vectors, rows, device
        self._lock = threading.Lock()
        self._blocks = list(row_blocks(len(rows), MOST_COLUMNS))
        fits = 4 * len(rows) * vectors.shape[1] <= free_memory(device) // 2
        self._held = [self._upload(block) for block in self._blocks] if fits else None

    @classmethod
    def of(cls, vectors: Float32, device: str) -> DeviceRows | None:
        """All rows of ``vectors`` that are not zero; None where all are."""
        rows = np.flatnonzero(vectors.any(axis=1))
        return cls(vectors, rows, device) if len(rows) else None

    def order(self, queries: Float32, rows: Int64, *, threads: int = 1) -> Int64:
        """``rows`` as they are: their order does not matter here."""
        return rows

    def candidates(self, queries: Float32, count: int) -> Int32:
        """At most ``count`` + ``EXTRA`` rows with the largest product with each of ``queries`` [B, D]: int32, in no particular order."""
        width = min(count + EXTRA, len(self._rows))
        with self._lock, torch.inference_mode(), full_float32():
            asked = to_device(queries, self._device)
            best, places = asked.new_empty((len(queries), 0)), asked.new_empty((len(queries), 0), dtype=torch.int64)
            for at, block in enumerate(self._blocks):
                held = self._upload(block) if self._held is None else self._held[at]
                top = (asked @ held.T).topk(min(width, len(held)), dim=1)
                best, places = torch.cat([best, top.values], 1), torch.cat([places, top.indices + block.start], 1)
                chosen = best.topk(min(width, best.shape[1]), dim=1)
                best, places = chosen.values, places.gather(1, chosen.indices)
            return np.asarray(self._rows[places.cpu().numpy()], np.int32)

    def _upload(self, block: slice) -> torch.Tensor:
        return to_device(self.vectors[self._rows[block]], self._device)

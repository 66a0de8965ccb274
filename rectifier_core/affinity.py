"""Stage: affinity, per item the K features that fit its anchor best.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730: top-K cosine between anchors and projected features over a
temperature,
the diagonal always in. Search: FAISS inner product over unit rows (Douze et al., 2024), exact or IVF.

Differs from the paper:
- Only items with an anchor ask and only items with a feature are found, so the problem may be rectangular; the paper assumes every item
  has both.
- Beyond ``exact_pairs`` the search is approximate, with nprobe raised until the measured recall reaches ``target_recall``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import faiss
import numpy as np

from rectifier_core.numerics import Progress, row_blocks, silent
from rectifier_core.records import NO_NEIGHBOUR, Affinity, Float32, Int64, Projection
from rectifier_core.seeding import derive_seed, generator

RECALL_SAMPLE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityConfig:
    """Hyperparameters of the search.

    ``index = "auto"`` searches exactly up to ``exact_pairs`` (queries times features) and by IVF beyond. ``temperature`` divides the
    cosine; 0.05 to 0.2
    is stable in the paper, 0.5 over-smooths.
    """

    num_neighbours: int = 20
    temperature: float = 0.1
    index: Literal["auto", "flat", "ivf"] = "auto"
    target_recall: float = 0.99
    exact_pairs: float = 2.5e9
    block_rows: int = 8192

    def __post_init__(self) -> None:
        for name in ("num_neighbours", "block_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        if not self.temperature >= 1e-3:
            raise ValueError(f"temperature: wanted at least 0.001, got {self.temperature}")
        if not 0 < self.target_recall <= 1:
            raise ValueError(f"target_recall: wanted a share in (0, 1], got {self.target_recall}")


def find_neighbours(projection: Projection, config: AffinityConfig, *, seed: int, progress: Progress = silent) -> Affinity:
    """The ``num_neighbours`` best features of every item with an anchor, its own (where it has one) always among them.

    Returns rows sorted by descending score, ties by ascending item; a small catalog leaves unused slots at -1.
    """
    rows = np.flatnonzero(projection.target.any(axis=1))
    columns = np.flatnonzero(projection.projected.any(axis=1))
    num_items, width = len(projection.target), config.num_neighbours
    neighbours = np.full((num_items, width), NO_NEIGHBOUR, np.int32)
    scores = np.full((num_items, width), -np.inf, np.float32)
    if not len(rows) or not len(columns):
        return Affinity(modality=projection.modality, neighbours=neighbours, scores=scores, recall=1.0, index="none")
    features = np.ascontiguousarray(projection.projected[columns])
    exact = config.index == "flat" or (config.index == "auto" and float(len(rows)) * len(columns) <= config.exact_pairs)
    index, name, recall = (_flat(features), "flat", 1.0) if exact else _tuned_ivf(features, projection.target, rows, config, seed)
    owns = np.zeros(num_items, np.bool_)
    owns[columns] = True
    for block in row_blocks(len(rows), config.block_rows):
        at = rows[block]
        found = index.search(np.ascontiguousarray(projection.target[at]), min(width, len(columns)))[1]
        neighbours[at, : found.shape[1]], scores[at, : found.shape[1]] = _finish(projection, at, columns, found, owns[at])
        progress(f"affinity of {projection.modality} ({name})", block.stop, len(rows))
    return Affinity(
        modality=projection.modality, neighbours=neighbours, scores=(scores / np.float32(config.temperature)), recall=recall, index=name
    )


def _finish(
    projection: Projection,
    rows: Int64,
    columns: Int64,
    found: np.ndarray[tuple[int, int], np.dtype[np.int64]],
    owns: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.int32]], Float32]:
    """Map found positions to items, force the diagonal in, score again and sort: no trace is left of how the search was blocked."""
    items = np.where(found >= 0, columns[found], NO_NEIGHBOUR)
    absent = owns & ~(items == rows[:, None]).any(axis=1)
    items[absent, -1] = rows[absent]
    cosine = np.einsum("ij,ikj->ik", projection.target[rows], projection.projected[items])
    cosine = np.where(items == NO_NEIGHBOUR, -np.inf, cosine).astype(np.float32)
    order = np.lexsort((items, -cosine), axis=1)
    return np.take_along_axis(items, order, axis=1).astype(np.int32), np.take_along_axis(cosine, order, axis=1)


def _flat(features: Float32) -> faiss.Index:
    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features)
    return index


def _tuned_ivf(features: Float32, targets: Float32, rows: Int64, config: AffinityConfig, seed: int) -> tuple[faiss.Index, str, float]:
    """An inverted-file index with nprobe doubled until recall@K on a sample reaches the target (or every list is probed)."""
    lists = int(np.clip(4 * np.sqrt(len(features)), 1, max(1, len(features) // 39)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(features.shape[1]), features.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = derive_seed(seed, "affinity", "kmeans") % (1 << 31)
    index.train(features)
    index.add(features)
    rng = generator(seed, "affinity", "recall")
    sample = np.ascontiguousarray(targets[np.sort(rng.choice(rows, min(RECALL_SAMPLE, len(rows)), replace=False))])
    width = min(config.num_neighbours, len(features))
    truth = _flat(features).search(sample, width)[1]
    index.nprobe, recall = 1, 0.0
    while True:
        found = index.search(sample, width)[1]
        recall = float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(truth, found, strict=True)])) / width
        if recall >= config.target_recall or index.nprobe >= lists:
            return index, f"ivf{lists} nprobe {index.nprobe}", recall
        index.nprobe = min(lists, 2 * index.nprobe)

"""Summaries of constant size: histograms, thinned curves, concentration, and stage arrays read in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.records import NO_NEIGHBOUR
from tasks.store.store import Ref

Array = NDArray[Any]
Facts = dict[str, Any]
MAX_POINTS = 200
PAIRED_BINS = 48
BLOCK_BYTES = 16 << 20


def tidy(value: float | None) -> float | None:
    """``value`` to six significant digits; None where it is not finite, for JSON has no NaN."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.6g}")


def stream(ref: Ref, name: str, *, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[slice, Array]]:
    """Blocks of rows of ``<name>.npy`` with the slice each covers, about ``block_bytes`` at a time.

    Every block has its own memory map. One map over a 16 GB matrix would count as 16 GB resident, because pages that were read stay
    charged to the map.
    """
    whole = ref.array(name)
    num_rows, row_bytes = len(whole), max(1, whole.nbytes // max(1, len(whole)))
    del whole
    for rows in row_blocks(num_rows, max(1, block_bytes // row_bytes)):
        yield rows, np.array(ref.array(name)[rows])


def histogram(values: Array, low: float, high: float, *, bins: int) -> Facts:
    """Counts of the finite ``values`` over ``bins`` equal bins of [low, high]: ``{edges, counts, total}``; outliers go to the end bins."""
    finite = values[np.isfinite(values)]
    counts, edges = np.histogram(np.clip(finite, low, high), bins=bins, range=(low, high))
    return {"edges": [tidy(edge) for edge in edges], "counts": counts.tolist(), "total": len(finite)}


def paired_histograms(matched: Array, null: Array) -> tuple[Facts, Facts]:
    """Histograms of two samples over the same bins, which span the finite values of both."""
    both = np.concatenate([matched, null])
    both = both[np.isfinite(both)]
    low, high = (float(both.min()), float(both.max())) if len(both) else (-1.0, 1.0)
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    return histogram(matched, low, high, bins=PAIRED_BINS), histogram(null, low, high, bins=PAIRED_BINS)


def curve(values: Array, *, start: int = 0) -> Facts:
    """``{x, y, length}`` of a series counted from ``start``, thinned to at most 200 points; first, last, least and greatest survive."""
    length = len(values)
    if not length:
        return {"x": [], "y": [], "length": 0}
    at = np.unique(np.linspace(0, length - 1, min(length, MAX_POINTS - 2)).round().astype(np.int64))
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite):
        extremes = [finite[np.argmin(values[finite])], finite[np.argmax(values[finite])]]
        at = np.union1d(at, np.asarray(extremes, dtype=np.int64))
    return {"x": (at + start).tolist(), "y": [tidy(float(values[i])) for i in at], "length": length}


def concentration(use: Array) -> Facts | None:
    """How unevenly features are used, from ``use`` [J] >= 0: max over mean, share of the top 1 %, Gini, never-used count, sorted curve.

    The curve is use over its mean (1 is a fair share) by rank, ranks spaced evenly in the logarithm. None if nothing is used.
    """
    total = float(use.sum(dtype=np.float64))
    if not len(use) or total <= 0:
        return None
    falling = np.sort(use.astype(np.float64))[::-1]
    number = len(falling)
    top = math.ceil(number / 100)
    ranks = np.unique(np.geomspace(1, number, MAX_POINTS).round().astype(np.int64))
    weight = number + 1 - 2 * np.arange(1, number + 1, dtype=np.float64)
    return {
        "features": number,
        "max_over_mean": tidy(falling[0] * number / total),
        "top_features": top,
        "top_share": tidy(falling[:top].sum() / total),
        "gini": tidy(float(weight @ falling) / (number * total)),
        "never_used": int((falling == 0).sum()),
        "curve": {"rank": ranks.tolist(), "use": [tidy(x) for x in falling[ranks - 1] * (number / total)]},
    }


def top_k_use(affinity: Ref) -> tuple[Array, Array, int]:
    """How much each item's feature is picked, float64 [I]: as top-K picks over K, and as row-softmax weights; and how many rows pick."""
    shape = affinity.array("neighbours").shape
    picked, softmax = np.zeros(shape[0]), np.zeros(shape[0])
    rows_with = 0
    if shape[1] == 0:
        return picked, softmax, rows_with
    blocks = zip(stream(affinity, "neighbours"), stream(affinity, "scores"), strict=True)
    for (_, neighbours), (_, scores) in blocks:
        valid = neighbours != NO_NEIGHBOUR
        rows_with += int(valid.any(axis=1).sum())
        columns = neighbours[valid]
        picked += np.bincount(columns, minlength=shape[0])
        lifted = np.where(valid, scores.astype(np.float64), -np.inf)
        peak = lifted.max(axis=1, keepdims=True)
        weights = np.exp(lifted - np.where(np.isfinite(peak), peak, 0.0))
        sums = weights.sum(axis=1, keepdims=True)
        softmax += np.bincount(columns, weights=(weights / np.where(sums > 0, sums, 1.0))[valid], minlength=shape[0])
    return picked / shape[1], softmax, rows_with

"""Stage: rectified, each item's feature mixed with what its donors say it should be.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730: e_hat = P e, e_rect = lambda e + (1 - lambda) e_hat; lambda is
``keep_original`` here, about 0.6 best in the paper at 20 % corruption, and ``mix = "constant"`` is the paper's mixing.

Differs from the paper:
- ``mix = "adaptive"``, the default, keeps ``keep_trusted * probability ** sharpness`` of each item's own feature, so that a trusted item
  hardly moves and a suspect one is replaced, and weighs every donor by its own trust, the item itself not among them.
- Averaging shrinks rows; each row is scaled back to its input's length, because some recommenders read scale.
- An item without an anchor, or in a modality where nothing can be told, passes through bit for bit; an item with an anchor and no
  feature, or with a placeholder for one, is imputed by e_hat alone when asked, at the mean length of its donors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rectifier_core.numerics import row_blocks, unit_rows
from rectifier_core.records import Bool, Float32, Int64, Plan, Status, Trust
from rectifier_core.shards import in_shards

MOST_DONATED = 64 << 20
"""Bytes of donors' features that a thread gathers at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RectifyConfig:
    """``keep_original`` belongs to ``mix = "constant"``: 1 returns the input bit for bit. ``keep_trusted`` and ``sharpness`` belong to
    ``mix = "adaptive"``. ``impute`` fills features that are missing, or placeholders, where an anchor allows it."""

    mix: Literal["adaptive", "constant"] = "adaptive"
    keep_original: float = 0.6
    keep_trusted: float = 0.97
    sharpness: float = 2.0
    impute: bool = False
    block_rows: int = 4096

    def __post_init__(self) -> None:
        if self.mix not in ("adaptive", "constant"):
            raise ValueError(f'mix: wanted "adaptive" or "constant", got {self.mix!r}')
        for name in ("keep_original", "keep_trusted"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: wanted a share in [0, 1], got {getattr(self, name)}")
        if not self.sharpness > 0:
            raise ValueError(f"sharpness: wanted above 0, got {self.sharpness}")
        if self.block_rows < 1:
            raise ValueError(f"block_rows: wanted at least 1, got {self.block_rows}")


def decide_status(present: Bool, plan: Plan, trust: Trust, config: RectifyConfig, placeholder: Bool | None = None) -> NDArray[np.int8]:
    """What will be done to each item, as ``Status.code`` int8 [I]; ``placeholder`` [I] marks features that say nothing of their item."""
    own = present if placeholder is None else present & ~placeholder
    act = (np.diff(plan.indptr) > 0) & trust.identifiable
    status = np.full(len(present), Status.MISSING.code, np.int8)
    status[present] = Status.PASSED_THROUGH.code
    if config.mix == "adaptive":
        status[own & act & ~np.isnan(trust.probability)] = Status.RECTIFIED.code
    elif config.keep_original < 1:
        status[own & act] = Status.RECTIFIED.code
    if config.impute:
        status[~own & act] = Status.IMPUTED.code
    return status


def rectify_rows(
    features: Float32, rows: slice | Int64, status: NDArray[np.int8], plan: Plan, trust: Trust, config: RectifyConfig
) -> Float32:
    """The published features of ``rows``, a run of them or ascending numbers: [len, D] float32, zeros where the status is MISSING.

    ``features`` [I, D] may be a memory map; only the donors of these rows are read, ``MOST_DONATED`` bytes of them at a time.
    """
    own = np.array(features[rows], dtype=np.float32)
    code = status[rows]
    act = np.isin(code, (Status.RECTIFIED.code, Status.IMPUTED.code))
    own[code == Status.MISSING.code] = 0
    if not act.any():
        return own
    weights = donor_weights(plan, rows, trust, config)
    donated = _donated(weights, features)
    mended = (code == Status.RECTIFIED.code) & np.any(donated != 0, axis=1)
    keep = kept_share(trust.probability[rows][mended], config)[:, None]
    mixed = keep * own[mended] + (1 - keep) * donated[mended]
    length = np.linalg.norm(own[mended], axis=1, keepdims=True)
    own[mended] = np.where(np.any(mixed != 0, axis=1, keepdims=True), unit_rows(mixed) * length, own[mended])
    imputed = np.flatnonzero(code == Status.IMPUTED.code)
    if len(imputed):
        used = np.unique(weights[imputed].indices)
        lengths = np.zeros(len(features), np.float32)
        for block in row_blocks(len(used), max(1, MOST_DONATED // (4 * features.shape[1]))):
            lengths[used[block]] = np.linalg.norm(features[used[block]], axis=1)
        own[imputed] = unit_rows(donated[imputed]) * (weights[imputed] @ lengths)[:, None]
    return own


def _donated(weights: sp.csr_array, features: Float32) -> Float32:
    """``weights`` [N, I] times ``features`` [I, D]: [N, D] float32, a few rows' donors in memory at a time."""
    width = features.shape[1]
    donated = np.zeros((weights.shape[0], width), np.float32)
    runs = list(_runs(weights.indptr, max(1, MOST_DONATED // (4 * width))))

    def give(first: int, last: int) -> None:
        for start, stop in runs[first:last]:
            part = weights[start:stop]
            used, at = np.unique(part.indices, return_inverse=True)
            donated[start:stop] = sp.csr_array((part.data, at, part.indptr), (stop - start, len(used))) @ np.asarray(features[used])

    in_shards(give, list(range(len(runs) + 1)))
    return donated


def _runs(indptr: NDArray[np.integer[Any]], most: int) -> Iterator[tuple[int, int]]:
    """Runs of whole rows of at most ``most`` entries, or of one row that has more."""
    start, rows = 0, len(indptr) - 1
    while start < rows:
        stop = max(start + 1, int(np.searchsorted(indptr, indptr[start] + most, side="right")) - 1)
        yield start, stop
        start = stop


def kept_share(probability: Float32, config: RectifyConfig) -> Float32:
    """The share of its own feature that each item keeps, by its trust: [N] -> [N] float32."""
    if config.mix == "constant":
        return np.full(len(probability), config.keep_original, np.float32)
    kept: Float32 = (config.keep_trusted * probability.astype(np.float64) ** config.sharpness).astype(np.float32)
    return kept


def donor_weights(plan: Plan, rows: slice | Int64, trust: Trust, config: RectifyConfig) -> sp.csr_array:
    """The plan's rows [len, I]; adaptive: times the donors' trust, without the item itself, each row summing to 1 or empty."""
    num_items = len(plan.indptr) - 1
    numbers: Int64 = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
    start, stop = (int(numbers[0]), int(numbers[-1]) + 1) if len(numbers) else (0, 0)
    first, last = int(plan.indptr[start]), int(plan.indptr[stop])
    run = (np.array(plan.weights[first:last]), plan.indices[first:last], plan.indptr[start : stop + 1] - first)
    chosen = sp.csr_array(run, shape=(stop - start, num_items))
    if not isinstance(rows, slice):
        chosen = chosen[numbers - start]
    indptr, indices, weights = chosen.indptr, chosen.indices, chosen.data
    if config.mix == "adaptive":
        # A donor that nothing is known of is as good as the average one.
        unknown = np.float32(1 - (trust.mismatch_rate or 0.0))
        believed = trust.probability[indices]
        weights *= np.where(np.isnan(believed), unknown, believed)
        weights[indices == np.repeat(numbers, np.diff(indptr))] = 0
        sums = np.add.reduceat(np.append(weights, np.float32(0)), indptr[:-1]) * (np.diff(indptr) > 0)
        weights /= np.repeat(np.maximum(sums, np.finfo(np.float32).tiny), np.diff(indptr))
    return sp.csr_array((weights, indices, indptr), shape=(len(numbers), num_items))

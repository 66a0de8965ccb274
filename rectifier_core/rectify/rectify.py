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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Plan, Trust
from rectifier_core.base.threads import balanced_bounds, in_shards, num_shards
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.mixing import mix_rows

MOST_DONATED = 64 << 20
"""Bytes of donors' features that a thread gathers at a time."""


def decide_status(
    present: Bool, plan: Plan, trust: Trust, config: RectifyConfig, placeholder: Bool | None = None
) -> NDArray[np.int8]:
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
    features: Float32, rows: slice, status: NDArray[np.int8], plan: Plan, trust: Trust, config: RectifyConfig
) -> Float32:
    """The published features of a run of ``rows``: [len, D] float32, zeros where the status is MISSING.

    Of a plain array ``features`` [I, D] the donors are read where they lie. Of any other, such as a memory map, those of these rows alone
    are fetched, ``MOST_DONATED`` bytes of them at a time. Neither changes a bit.
    """
    own = np.array(features[rows], dtype=np.float32)
    code = np.ascontiguousarray(status[rows])
    own[code == Status.MISSING.code] = 0
    if not np.isin(code, (Status.RECTIFIED.code, Status.IMPUTED.code)).any():
        return own
    indptr, indices, weights = donor_weights(plan, rows, trust, config)
    keep = kept_share(trust.probability[rows], config)
    if type(features) is np.ndarray and features.flags.c_contiguous and features.dtype == np.float32:
        bounds = balanced_bounds(indptr, num_shards(len(indices) * own.shape[1]))
        in_shards(
            lambda first, last: mix_rows(features, indptr, indices, weights, keep, code, own, first, last), bounds
        )
        return own
    runs = list(_runs(indptr, max(1, MOST_DONATED // (4 * own.shape[1]))))

    def mix(first: int, last: int) -> None:
        for start, stop in runs[first:last]:
            entries = slice(int(indptr[start]), int(indptr[stop]))
            used, at = np.unique(indices[entries], return_inverse=True)
            donors = np.ascontiguousarray(features[used], dtype=np.float32)
            part = slice(start, stop)
            pointers = indptr[start : stop + 1] - entries.start
            mix_rows(
                donors,
                pointers,
                at.astype(np.int32),
                weights[entries],
                keep[part],
                code[part],
                own[part],
                0,
                stop - start,
            )

    in_shards(mix, list(range(len(runs) + 1)))
    return own


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


def donor_weights(plan: Plan, rows: slice, trust: Trust, config: RectifyConfig) -> tuple[Int64, Int32, Float32]:
    """The plan's rows as pointers, donors and weights; adaptive: times the donors' trust, nothing of the item itself, each row's sum 1 or
    0."""
    indptr = np.asarray(plan.indptr[rows.start : rows.stop + 1], dtype=np.int64)
    entries = slice(int(indptr[0]), int(indptr[-1]))
    indptr, indices, weights = (
        indptr - entries.start,
        np.asarray(plan.indices[entries], dtype=np.int32),
        np.array(plan.weights[entries]),
    )
    if config.mix == "adaptive":
        # A donor that nothing is known of is as good as the average one.
        unknown = np.float32(1 - (trust.mismatch_rate or 0.0))
        believed = trust.probability[indices]
        weights *= np.where(np.isnan(believed), unknown, believed)
        weights[indices == np.repeat(np.arange(rows.start, rows.stop), np.diff(indptr))] = 0
        sums = np.add.reduceat(np.append(weights, np.float32(0)), indptr[:-1]) * (np.diff(indptr) > 0)
        weights /= np.repeat(np.maximum(sums, np.finfo(np.float32).tiny), np.diff(indptr))
    return indptr, indices, weights

"""Stage: rectify. Mix each item's feature with the features of its donors.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730: e_hat = P e, e_rect = lambda e + (1 - lambda) e_hat. Here lambda
is ``keep_original``; about 0.6 was best in the paper at 20 % corruption. ``mix = "constant"`` is the paper's mixing.

Differs from the paper:
- ``mix = "adaptive"``, the default, keeps the share ``keep_trusted * probability ** sharpness`` of each item's own feature. A trusted item
  moves little, and a suspect one is replaced. Donors are weighted by their own trust. No item is its own donor.
- Averaging shrinks rows. Each row is scaled back to its input's length, because some recommenders read the scale.
- An item without an anchor, or in a modality that is not identifiable, passes through bit for bit.
- With ``impute``, an item with an anchor but no feature (or a placeholder) gets e_hat at the mean length of its donors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Plan, Trust
from rectifier_core.base.threads import in_shards
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.mixing import mix_rows

MOST_DONATED = 64 << 20
"""Most bytes of donors' features that a thread gathers at a time."""


def decide_status(
    present: Bool, plan: Plan, trust: Trust, config: RectifyConfig, placeholder: Bool | None = None
) -> NDArray[np.int8]:
    """Return what will be done to each item, as ``Status.code`` [I] int8. ``placeholder`` [I] marks features that are placeholders."""
    own = present if placeholder is None else present & ~placeholder
    mixable = (np.diff(plan.indptr) > 0) & trust.identifiable
    status = np.full(len(present), Status.MISSING.code, np.int8)
    status[present] = Status.PASSED_THROUGH.code
    if config.mix == "adaptive":
        status[own & mixable & ~np.isnan(trust.probability)] = Status.RECTIFIED.code
    elif config.keep_original < 1:
        status[own & mixable] = Status.RECTIFIED.code
    if config.impute:
        status[~own & mixable] = Status.IMPUTED.code
    return status


def rectify_rows(
    features: Float32, rows: slice, status: NDArray[np.int8], plan: Plan, trust: Trust, config: RectifyConfig
) -> Float32:
    """Return the published features of ``rows``: [len, D] float32, zeros where the status is MISSING.

    ``features`` [I, D] may be a memory map. Only the rows and their donors are read, ``MOST_DONATED`` bytes of donors at a time.
    """
    own = np.array(features[rows], dtype=np.float32)
    code = np.ascontiguousarray(status[rows])
    own[code == Status.MISSING.code] = 0
    if not np.isin(code, (Status.RECTIFIED.code, Status.IMPUTED.code)).any():
        return own
    indptr, indices, weights = donor_weights(plan, rows, trust, config)
    keep = kept_share(trust.probability[rows], config)
    # Whole rows whose donors fit into the budget: more entries than that belong to one row alone.
    entries = max(1, MOST_DONATED // (4 * own.shape[1]))
    bounds = [0]
    while bounds[-1] < len(own):
        fitting = int(np.searchsorted(indptr, indptr[bounds[-1]] + entries, side="right")) - 1
        bounds.append(max(bounds[-1] + 1, fitting))

    def mix(first: int, last: int) -> None:
        part, span = slice(first, last), slice(indptr[first], indptr[last])
        used, places = np.unique(indices[span], return_inverse=True)
        donors = np.ascontiguousarray(features[used], dtype=np.float32)
        pointers = indptr[first : last + 1] - indptr[first]
        mix_rows(donors, pointers, places.astype(np.int32), weights[span], keep[part], code[part], own[part])

    in_shards(mix, bounds)
    return own


def kept_share(probability: Float32, config: RectifyConfig) -> Float32:
    """Return the share of its own feature that each item keeps, from its trust: [N] float32."""
    if config.mix == "constant":
        return np.full(len(probability), config.keep_original, np.float32)
    kept: Float32 = (config.keep_trusted * probability.astype(np.float64) ** config.sharpness).astype(np.float32)
    return kept


def donor_weights(plan: Plan, rows: slice, trust: Trust, config: RectifyConfig) -> tuple[Int64, Int32, Float32]:
    """Return pointers, donors and weights of the plan's ``rows``.

    With adaptive mixing a weight is the plan's times the donor's trust, and 0 for the item itself. Each row then sums to 1 or 0.
    """
    indptr = np.asarray(plan.indptr[rows.start : rows.stop + 1], dtype=np.int64)
    span = slice(int(indptr[0]), int(indptr[-1]))
    indptr = indptr - span.start
    indices, weights = np.asarray(plan.indices[span], dtype=np.int32), np.array(plan.weights[span])
    if config.mix == "adaptive":
        # A donor of unknown trust counts as an average one.
        average = np.float32(1 - (trust.mismatch_rate or 0.0))
        trusted = trust.probability[indices]
        weights *= np.where(np.isnan(trusted), average, trusted)
        weights[indices == np.repeat(np.arange(rows.start, rows.stop), np.diff(indptr))] = 0
        sums = np.add.reduceat(np.append(weights, np.float32(0)), indptr[:-1]) * (np.diff(indptr) > 0)
        weights /= np.repeat(np.maximum(sums, np.finfo(np.float32).tiny), np.diff(indptr))
    return indptr, indices, weights

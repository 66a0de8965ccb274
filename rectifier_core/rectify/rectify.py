"""Stage: rectify. Mix each item's feature with the feature that is expected of it.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730: e_hat = P e, e_rect = lambda e + (1 - lambda) e_hat. Here lambda
is ``keep_original``; about 0.6 was best in the paper at 20 % corruption. ``mix = "constant"`` is the paper's mixing.

Differs from the paper:
- ``mix = "adaptive"``, the default, publishes the expected value of the item's true feature: ``p * own + (1 - p) * expected``, where p is
  the item's trust. Where the mismatch rate may be zero, p is the upper bound of the trust, so that doubt alone moves little.
- The expected feature (``expected``) is the donors' mean and a regression on the item's anchor and other modalities, scaled by least squares.
  Donors are weighted by their own trust. No item is its own donor.
- Averaging shrinks rows. Each row is scaled back to its input's length, because some recommenders read the scale.
- An item without an anchor, or in a modality that is not identifiable, passes through bit for bit. So does a row that would move by less than .001.
- With ``impute``, an item with an anchor but no feature (or a placeholder) gets the expected feature at the mean length of its donors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Plan, Trust
from rectifier_core.base.threads import in_shards
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.donors import donors_of
from rectifier_core.rectify.expected import ExpectedFeature, Views, fit_expected
from rectifier_core.rectify.mixing import mix_rows

MOST_DONATED = 64 << 20
"""Most bytes of donors' features that a thread gathers at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The fitted ``expected`` feature, what it reads of each item, and the folds [I] that its maps were fitted without."""

    expected: ExpectedFeature
    views: Views
    folds: Int32


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """What rows of one modality are mixed by. ``model`` is None for the paper's constant mixing."""

    plan: Plan
    trust: Trust
    config: RectifyConfig
    model: Model | None = None


@dataclass(frozen=True, slots=True)
class RectifiedRows:
    """Published ``features`` [N, D] float32, their ``status`` [N] (``Status.code``, int8), and how far they ``moved`` [N] float32.

    ``moved`` is 1 - cosine between the feature that was read and the published one, NaN for an item that has no feature of its own.
    """

    features: Float32
    status: NDArray[np.int8]
    moved: Float32

    def put(self, rows: slice, part: RectifiedRows) -> None:
        """Copy ``part`` to the given rows."""
        self.features[rows], self.status[rows], self.moved[rows] = part.features, part.status, part.moved


def decide_status(
    present: Bool, plan: Plan, trust: Trust, config: RectifyConfig, placeholder: Bool | None = None
) -> NDArray[np.int8]:
    """Return what is to be done to each item, as ``Status.code`` [I] int8. ``placeholder`` [I] marks features that are placeholders."""
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


def prepare_mixing(
    features: Float32,
    present: Bool,
    placeholder: Bool,
    folds: Int32,
    views: Views,
    plan: Plan,
    trust: Trust,
    config: RectifyConfig,
    *,
    seed: int,
) -> tuple[NDArray[np.int8], Mixing]:
    """Return what is to be done to each item, as ``decide_status`` does, and what its rows are mixed by.

    The expected feature is fitted to the items that are to be rectified. ``folds`` [I] are the items' folds, -1 for an item without one.
    """
    status, model = decide_status(present, plan, trust, config, placeholder), None
    known = status == Status.RECTIFIED.code
    if config.mix == "adaptive" and known.any():
        expected = fit_expected(trust.modality, features, known, folds, views, plan, trust, seed=seed)
        model = Model(expected=expected, views=views, folds=folds)
    return status, Mixing(plan=plan, trust=trust, config=config, model=model)


def rectify_rows(
    features: Float32, present: Bool, rows: slice, status: NDArray[np.int8], mixing: Mixing
) -> RectifiedRows:
    """Return the published features of ``rows``, zeros where the status is MISSING.

    ``features`` [I, D] may be a memory map. Only the rows and their donors are read, ``MOST_DONATED`` bytes of donors at a time.
    ``present`` [I] are the items with a feature, ``status`` [I] is what ``decide_status`` returns.
    """
    own = np.array(features[rows], dtype=np.float32)
    code = np.array(status[rows])
    own[code == Status.MISSING.code] = 0
    moved = np.zeros(len(own), np.float32)
    if np.isin(code, (Status.RECTIFIED.code, Status.IMPUTED.code)).any():
        _mix(features, own, code, moved, np.arange(rows.start, rows.start + len(own)), mixing)
    moved[~present[rows]] = np.nan
    return RectifiedRows(own, code, moved)


def _mix(features: Float32, own: Float32, code: NDArray[np.int8], moved: Float32, items: Int64, mixing: Mixing) -> None:
    """Mix the rows ``own`` of ``items`` in place."""
    adaptive, width = mixing.config.mix == "adaptive", own.shape[1]
    donors = donors_of(mixing.plan, items, mixing.trust, adaptive=adaptive)
    keep = kept_share(mixing.trust, items, mixing.config)
    if mixing.model is None:
        mean, maps = np.zeros(width, np.float32), np.zeros((1, 0, width), np.float32)
        views, folds, donor_weight = np.zeros((len(own), 0), np.float32), np.zeros(len(own), np.int32), 1.0
    else:
        expected = mixing.model.expected
        mean, maps, donor_weight = expected.mean, expected.maps, expected.donor_weight
        # An item without a fold was in no fit, so any map may predict it.
        views, folds = mixing.model.views.of(items), np.maximum(mixing.model.folds[items], 0)
    # Whole rows whose donors fit into the budget: more entries than that belong to one row alone.
    entries, bounds = max(1, MOST_DONATED // (4 * width)), [0]
    while bounds[-1] < len(own):
        fitting = int(np.searchsorted(donors.indptr, donors.indptr[bounds[-1]] + entries, side="right")) - 1
        bounds.append(max(bounds[-1] + 1, fitting))

    def mix(first: int, last: int) -> None:
        part, span = slice(first, last), slice(donors.indptr[first], donors.indptr[last])
        used, places = np.unique(donors.indices[span], return_inverse=True)
        given = np.ascontiguousarray(features[used], dtype=np.float32)
        mix_rows(
            given,
            np.linalg.norm(given, axis=1).astype(np.float32),
            donors.indptr[first : last + 1] - donors.indptr[first],
            places.astype(np.int32),
            donors.weights[span],
            mean,
            np.float32(donor_weight),
            maps,
            views[part],
            folds[part],
            keep[part],
            adaptive,
            code[part],
            own[part],
            moved[part],
        )

    in_shards(mix, bounds)


def kept_share(trust: Trust, items: Bool | Int64, config: RectifyConfig) -> Float32:
    """Return the share of its own feature that each of ``items`` keeps: float32, 1 where the trust is unknown and mixing is adaptive."""
    sure = trust.low is not None and trust.low > 0
    believed = (trust.probability if sure else trust.probability_upper)[items]
    if config.mix == "constant":
        return np.full(len(believed), config.keep_original, np.float32)
    return np.where(np.isnan(believed), np.float32(1), believed)

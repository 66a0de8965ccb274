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
from rectifier_core.base.numerics import row_blocks, row_dots, row_lengths, unit_rows
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Plan, Trust
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.donors import donors_of
from rectifier_core.rectify.expected import ExpectedFeature, Views, fit_expected
from rectifier_core.rectify.mixing import mix_rows

MOST_MIXED = 1 << 19
"""Bytes of rows that are mixed at a time. Mixing passes over them about ten times, so they should stay in the processor's cache."""
LEAST_MOVED = 0.001
"""A row that would move by less (1 - cosine) is left as it is."""
SURELY_KEPT = 0.99
"""With this share of its own feature, a row cannot move by ``LEAST_MOVED``: no feature is more than three unit lengths from the expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The fitted ``expected`` feature, what it reads of each item, and the folds [I] that its maps were fitted without."""

    expected: ExpectedFeature
    views: Views
    folds: Int32


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """What rows of one modality are mixed by.

    ``lengths`` [I] float32 are those of the features that were read. ``model`` is None for the paper's constant mixing.
    """

    plan: Plan
    trust: Trust
    lengths: Float32
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
    status, model, lengths = decide_status(present, plan, trust, config, placeholder), None, row_lengths(features)
    known = status == Status.RECTIFIED.code
    if config.mix == "adaptive" and known.any():
        expected = fit_expected(trust.modality, features, lengths, known, folds, views, plan, trust, seed=seed)
        model = Model(expected=expected, views=views, folds=folds)
    return status, Mixing(plan=plan, trust=trust, lengths=lengths, config=config, model=model)


def rectify_rows(
    features: Float32, present: Bool, rows: slice, status: NDArray[np.int8], mixing: Mixing
) -> RectifiedRows:
    """Return the published features of ``rows``, zeros where the status is MISSING.

    ``features`` [I, D] may be a memory map. Only the rows and their donors are read.
    ``present`` [I] are the items with a feature, ``status`` [I] is what ``decide_status`` returns.
    """
    own = np.array(features[rows], dtype=np.float32)
    code = np.array(status[rows])
    own[code == Status.MISSING.code] = 0
    moved = np.zeros(len(own), np.float32)
    if np.isin(code, (Status.RECTIFIED.code, Status.IMPUTED.code)).any():
        _mix(features, own, code, moved, rows.start, mixing)
    moved[~present[rows]] = np.nan
    return RectifiedRows(own, code, moved)


def _mix(features: Float32, own: Float32, code: NDArray[np.int8], moved: Float32, first: int, mixing: Mixing) -> None:
    """Mix the rows ``own`` of the items from ``first`` on in place."""
    adaptive = mixing.config.mix == "adaptive"
    keep = kept_share(mixing.trust, slice(first, first + len(own)), mixing.config)
    if adaptive:
        code[(code == Status.RECTIFIED.code) & (keep >= SURELY_KEPT)] = Status.PASSED_THROUGH.code
    to_mix = np.flatnonzero(np.isin(code, (Status.RECTIFIED.code, Status.IMPUTED.code)))
    for block in row_blocks(len(to_mix), max(1, MOST_MIXED // own[:1].nbytes)):
        rows = to_mix[block]
        expected = _expected(features, rows + first, mixing)
        units, to_rectify = unit_rows(own[rows]), code[rows] == Status.RECTIFIED.code
        share = np.where(to_rectify, keep[rows], np.float32(0))
        mixed, differs = mix_rows(units if adaptive else own[rows], expected.difference, expected.mean, share)
        far = np.where(differs & units.any(axis=1), np.maximum(0, 1 - row_dots(mixed, units)), 0)
        stays = to_rectify & ((far < LEAST_MOVED) | ~expected.predicted)
        lengths = np.where(to_rectify, mixing.lengths[rows + first], expected.lengths)
        changed = rows[~stays]
        own[changed], moved[changed] = (lengths[:, None] * mixed)[~stays], far[~stays]
        code[rows[stays]] = Status.PASSED_THROUGH.code


@dataclass(frozen=True, slots=True)
class _Expected:
    """The expected ``difference`` [N, D] from ``mean`` [D], which rows [N] anything predicts, and the mean ``lengths`` [N] of their donors."""

    difference: Float32
    mean: Float32
    predicted: Bool
    lengths: Float32


def _expected(features: Float32, items: Int64, mixing: Mixing) -> _Expected:
    """Return what the items' features are expected to be: in the paper's constant mixing their donors' mean, which is no unit row."""
    adaptive = mixing.config.mix == "adaptive"
    donors = donors_of(mixing.plan, items, mixing.trust, adaptive=adaptive)
    sums, totals, lengths = donors.sums(features, mixing.lengths, unit=adaptive)
    if mixing.model is None:
        return _Expected(sums, np.zeros(sums.shape[1], np.float32), totals > 0, lengths)
    fitted, views = mixing.model.expected, mixing.model.views.of(items)
    # An item without a fold was in no fit, so any map may predict it.
    by_views = fitted.by_views(views, np.maximum(mixing.model.folds[items], 0))
    difference = np.float32(fitted.donor_weight) * (sums - totals[:, None] * fitted.mean) + by_views
    return _Expected(difference, fitted.mean, (totals > 0) | views.any(axis=1), lengths)


def kept_share(trust: Trust, items: Bool | Int64 | slice, config: RectifyConfig) -> Float32:
    """Return the share of its own feature that each of ``items`` keeps: float32, 1 where the trust is unknown and mixing is adaptive."""
    sure = trust.low is not None and trust.low > 0
    believed = (trust.probability if sure else trust.probability_upper)[items]
    if config.mix == "constant":
        return np.full(len(believed), config.keep_original, np.float32)
    return np.where(np.isnan(believed), np.float32(1), believed)

"""Which rows of an earlier run can be published as they are, because nothing that they are mixed from has moved by much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rectifier_core.incremental.carried import Carried
from rectifier_core.numerics import row_blocks
from rectifier_core.records import Bool, Float32, Int64, Plan, Status, Trust
from rectifier_core.rectify import RectifyConfig, donor_weights, kept_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """What a run mixed one modality's rows from."""

    plan: Plan
    trust: Trust
    status: NDArray[np.int8]


def moved_rows(now: Mixing, before: Mixing, moved_before: Float32, carried: Carried, tolerance: float, config: RectifyConfig) -> Float32:
    """By how much each row that could stay as it is would be off, [I] float32; infinite where it has to be mended anew.

    With the kept share k and donors' weights w, a row may be off by 2 |k' - k| + (1 - k') sum |w' - w| times the length of a feature,
    donors whose feature changed counting with both their weights; to which comes ``moved_before`` [J], what it was off already. Rows that
    would be off by more than ``tolerance``, or have another status or feature than before, are mended anew.
    """
    moved = np.full(len(carried.before), np.inf, np.float32)
    stays = carried.same & (carried.rows(before.status, -1) == now.status)
    acted: Bool = np.isin(now.status, (Status.RECTIFIED.code, Status.IMPUTED.code))
    moved[stays & ~acted] = 0
    num_before = len(before.status)
    # A column of the earlier run is the item's now where its feature stayed, and one of its own beyond all items where it did not.
    column = len(moved) + np.arange(num_before)
    column[carried.before[carried.same]] = np.flatnonzero(carried.same)
    rows = np.flatnonzero(stays & acted)
    for block in row_blocks(len(rows), config.block_rows):
        at = rows[block]
        then = carried.before[at]
        shift = _weight_shift(now, before, at, then, column, config)
        keep = kept_share(now.trust.probability[at], config)
        shift = 2 * np.abs(keep - kept_share(before.trust.probability[then], config)) + (1 - keep) * shift
        moved[at] = shift + moved_before[then]
    moved[~(moved <= tolerance)] = np.inf
    return moved


def _weight_shift(now: Mixing, before: Mixing, at: Int64, then: Int64, column: Int64, config: RectifyConfig) -> Float32:
    """Sum of absolute differences of each row's donor weights."""
    mine = donor_weights(now.plan, at, now.trust, config)
    order = np.argsort(then, kind="stable")
    theirs = donor_weights(before.plan, then[order], before.trust, config)
    width = len(now.status) + len(before.status)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    moved = sp.csr_array((theirs.data, column[theirs.indices], theirs.indptr), shape=(len(at), width))[back]
    # Two columns of the earlier run never become one, so nothing is summed twice.
    mine = sp.csr_array((mine.data, mine.indices.astype(np.int64), mine.indptr), shape=(len(at), width))
    shift: Float32 = np.asarray(np.abs(mine - moved).sum(axis=1), dtype=np.float32)
    return shift

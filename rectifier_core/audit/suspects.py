"""Suspects: the items whose feature is least likely their own, with the expected share of false alarms in the list.

Source: Efron, "Large-Scale Inference" (2010), chapter 5. ``probability`` is the local false-discovery rate of each item, so its mean over a
list is the expected share of false alarms (innocent items). This holds if the probabilities are calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.base.arrays import Float32, Float64, Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectList:
    """Suspect items, least trusted first.

    ``rows`` [S] are items, ties in catalog order. It is empty where no list has a small enough share of innocents. ``innocent_share`` [S] is
    the expected share of innocents in the list down to each item. ``judged`` is the number of items with a probability.
    """

    rows: Int64
    innocent_share: Float64
    judged: int


def suspects_at_fdr(probability: Float32, fdr: float) -> SuspectList:
    """The longest list, least trusted first, whose mean ``probability`` [I] of being innocent is at most ``fdr``; NaN is never listed.

    That mean is the expected share of false alarms. Pass upper bounds of the probabilities for a conservative list. Items of equal
    probability are all listed or all left out, so the list does not depend on the catalog's order. A larger ``fdr`` only adds to it.
    Raises ValueError unless 0 <= fdr <= 1.
    """
    if not 0 <= fdr <= 1:
        raise ValueError(f"fdr: wanted a share in [0, 1], got {fdr}")
    order, share = _ranked(probability)
    known = probability[order]
    # A list may only end where the next item is trusted more than its last.
    ends = np.flatnonzero(np.append(known[1:] > known[:-1], True)[: len(known)])
    allowed = ends[share[ends] <= fdr]
    length = int(allowed[-1]) + 1 if len(allowed) else 0
    return SuspectList(rows=order[:length], innocent_share=share[:length], judged=len(order))


def worst(probability: Float32, top: int) -> SuspectList:
    """The ``top`` least trusted of the judged items, whatever share of them is innocent. Raises ValueError unless top >= 0."""
    if top < 0:
        raise ValueError(f"top: wanted at least 0, got {top}")
    order, share = _ranked(probability)
    return SuspectList(rows=order[:top], innocent_share=share[:top], judged=len(order))


def _ranked(probability: Float32) -> tuple[Int64, Float64]:
    """The judged items by rising probability, and the running mean of it."""
    judged = np.flatnonzero(~np.isnan(probability)).astype(np.int64)
    order = judged[np.argsort(probability[judged], kind="stable")]
    return order, innocent_share(probability, order)


def innocent_share(probability: Float32, rows: Int64) -> Float64:
    """The share of a list of judged ``rows`` [S] expected to be innocent, down to each of them: the running mean of ``probability`` [I]."""
    share: Float64 = np.cumsum(probability[rows], dtype=np.float64) / np.arange(1, len(rows) + 1)
    return share

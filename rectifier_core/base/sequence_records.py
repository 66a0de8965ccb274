"""The frozen records of sequence modalities; they check themselves as those of ``rectifier_core.base.records`` do.

Shape letters beyond those: S segments of all items, in the order of the items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.base.arrays import Float32, Float64, Int32, check_array

NO_LAG = int(np.iinfo(np.int32).min)
"""Stands for "cannot be told" in ``TimeOffset.item_lags``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """How likely each segment of a sequence modality goes with its item: one value a segment, sequence by sequence, items in order.

    It is the odd segments of a sequence that this finds. Whether the sequence as a whole is the item's own is what ``Trust`` judges by the
    pooled feature, and a segment is to be trusted no further than that.

    ``alignment`` is the cosine of a segment with its item's anchor and ``consensus`` that with its item's other segments, NaN where there
    is no such thing; ``evidence`` is the log of how many times likelier the two are for an item's own segment than for a random one.
    ``probability`` is NaN where nothing can be told, everywhere when the modality is not ``identifiable``; ``wrong_rate`` is the share of
    odd segments (None then). ``separation`` is the AUC of actual against re-paired alignment that this was
    judged on, ``ridge`` the chosen penalty (None: nothing was fitted) and ``reason`` the judgement in words.
    """

    modality: str
    alignment: Float32
    consensus: Float32
    evidence: Float32
    probability: Float32
    wrong_rate: float | None
    identifiable: bool
    separation: float
    ridge: float | None
    reason: str

    def __post_init__(self) -> None:
        for name in ("alignment", "consensus", "evidence", "probability"):
            check_array(name, getattr(self, name), self.probability.shape[:1], np.float32)
        known = self.probability[~np.isnan(self.probability)]
        if known.size and (known.min() < 0 or known.max() > 1):
            raise ValueError(f"probability: wanted values in [0, 1], got [{known.min()}, {known.max()}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeOffset:
    """By how many segments one sequence modality runs behind another: what ``first`` shows at segment t, ``second`` shows at t + ``lag``.

    ``correlation[k]`` is the held-out correlation at ``lags[k]`` and ``null_correlation`` the same for items paired with another's
    sequence. ``lag`` is None where not ``identifiable``: no common time course, or no lag that clearly wins. ``support`` is the share of
    resamples of the items in which the best lag wins. ``item_lags[i]`` is what item i alone says, ``NO_LAG`` where it says nothing.
    """

    first: str
    second: str
    lag: int | None
    identifiable: bool
    lags: Int32
    correlation: Float64
    null_correlation: Float64
    support: float
    item_lags: Int32
    reason: str

    def __post_init__(self) -> None:
        check_array("lags", self.lags, (None,), np.int32)
        check_array("correlation", self.correlation, self.lags.shape, np.float64)
        check_array("null_correlation", self.null_correlation, (None,), np.float64)
        check_array("item_lags", self.item_lags, (None,), np.int32)

"""The frozen records of sequence modalities. They check themselves like those of ``rectifier_core.base.records``.

Shape letters: S segments of all items, in the order of the items. The others are those of ``rectifier_core.base.records``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.base.arrays import Float32, Float64, Int32, check_array

NO_LAG = int(np.iinfo(np.int32).min)
"""Marks an unknown lag in ``TimeOffset.item_lags``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """The probability that each segment of a sequence belongs to its item. All arrays are [S] float32, NaN where a value is unknown.

    This finds single wrong segments. ``Trust`` judges the whole sequence, by its pooled feature.

    - ``alignment``: cosine of the segment and its item's anchor.
    - ``consensus``: cosine of the segment and the centre of its item's other segments.
    - ``evidence``: log-likelihood ratio of both scores, own segment against random segment.
    - ``probability``: NaN everywhere where the modality is not ``identifiable``.
    - ``wrong_rate``: estimated share of wrong segments. None where not ``identifiable``.
    - ``separation``: AUC of actual against re-paired alignment. It decides ``identifiable``.
    - ``ridge``: the chosen penalty. None where nothing was fitted.
    - ``reason``: the judgement in words.
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
    """The lag of one sequence modality behind another: ``second`` shows at segment t + ``lag`` what ``first`` shows at segment t.

    ``correlation[k]`` is the held-out correlation at ``lags[k]``. ``null_correlation`` is the same for items paired with another item's
    sequence. ``lag`` is None where not ``identifiable``: no common time course, or no clear best lag. ``support`` is the share of resamples
    of the items in which the best lag wins. ``item_lags[i]`` is the lag of item i alone, ``NO_LAG`` where it is unknown.
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

"""Stage: rectified, each item's feature mixed with what its donors say it should be.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730: e_hat = P e, e_rect = lambda e + (1 - lambda) e_hat; lambda is
``keep_original`` here, about 0.6 best in the paper at 20 % corruption.

Differs from the paper:
- Averaging shrinks rows; each row is scaled back to its input's length, because some recommenders read scale.
- An item without an anchor, or in a modality where nothing can be told, passes through bit for bit; an item with an anchor and no
  feature is
  imputed by e_hat alone when asked, at the mean length of its donors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rectifier_core.numerics import unit_rows
from rectifier_core.records import Bool, Float32, Plan, Status, Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class RectifyConfig:
    """``keep_original`` 1 returns the input bit for bit; ``impute`` fills features that are missing where an anchor allows it."""

    keep_original: float = 0.6
    impute: bool = False
    block_rows: int = 4096

    def __post_init__(self) -> None:
        if not 0 <= self.keep_original <= 1:
            raise ValueError(f"keep_original: wanted a share in [0, 1], got {self.keep_original}")
        if self.block_rows < 1:
            raise ValueError(f"block_rows: wanted at least 1, got {self.block_rows}")


def decide_status(present: Bool, plan: Plan, trust: Trust, config: RectifyConfig) -> NDArray[np.int8]:
    """What will be done to each item, as ``Status.code`` int8 [I]."""
    donors = np.diff(plan.indptr) > 0
    act = donors & trust.identifiable
    status = np.full(len(present), Status.MISSING.code, np.int8)
    status[present] = Status.PASSED_THROUGH.code
    if config.keep_original < 1:
        status[present & act] = Status.RECTIFIED.code
    if config.impute:
        status[~present & act] = Status.IMPUTED.code
    return status


def rectify_rows(features: Float32, rows: slice, status: NDArray[np.int8], plan: Plan, config: RectifyConfig) -> Float32:
    """The published features of ``rows``: [len, D] float32, zeros where the status is MISSING.

    ``features`` [I, D] may be a memory map; only the donors of these rows are touched.
    """
    own = np.array(features[rows], dtype=np.float32)
    code = status[rows]
    act = np.isin(code, (Status.RECTIFIED.code, Status.IMPUTED.code))
    own[code == Status.MISSING.code] = 0
    if not act.any():
        return own
    first, last = int(plan.indptr[rows.start]), int(plan.indptr[rows.stop])
    weights = sp.csr_array(
        (plan.weights[first:last], plan.indices[first:last], plan.indptr[rows.start : rows.stop + 1] - first), (len(own), len(features))
    )
    donated = np.asarray(weights @ features, dtype=np.float32)
    rectified = code == Status.RECTIFIED.code
    mixed = np.float32(config.keep_original) * own + np.float32(1 - config.keep_original) * donated
    length = np.linalg.norm(own, axis=1, keepdims=True)
    usable = rectified & np.any(mixed != 0, axis=1)
    own[usable] = (unit_rows(mixed) * length)[usable]
    imputed = np.flatnonzero(code == Status.IMPUTED.code)
    if len(imputed):
        used = np.unique(weights[imputed].indices)
        lengths = np.zeros(len(features), np.float32)
        lengths[used] = np.linalg.norm(features[used], axis=1)
        own[imputed] = unit_rows(donated[imputed]) * (weights[imputed] @ lengths)[:, None]
    return own

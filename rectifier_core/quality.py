"""Stage: quality gate. Named checks with a value and a bound. A failed check publishes nothing, unless it only warns.

``measure_modality`` reads features by blocks, so that no copy of them is held. ``check_quality`` compares the measures with the bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import row_dots
from rectifier_core.base.published_records import Check, QualityReport, Status
from rectifier_core.base.threads import on_row_blocks
from rectifier_core.config import QualityConfig

MISJOINED = "above it, the catalog and the log probably do not belong together: check the join of their item ids"
FAR = 0.1
"""A feature that moved by more than this (1 - cosine) is another feature."""
TRUSTED = 0.9
"""Rectification must leave an item of this trust or more nearly as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityMeasures:
    """Measures of one modality. ``changed`` of the ``trusted`` items changed.

    ``moved`` is the share of the features that moved by more than ``FAR``, ``rate_low`` the lower end of the mismatch rate; both are None
    where nothing was rectified.

    ``drift`` is None if no previous version has items in common. ``rate_jump`` is None if either day has no mismatch rate.
    """

    not_finite: int
    trusted: int
    changed: int
    norm_ratio: float
    marginal_error: float | None
    drift: float | None
    rate_jump: float | None = None
    moved: float | None = None
    rate_low: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowMeasure:
    """Result of the shadow evaluation: the upper end (``highest``) of the relative change of Recall@20, and the loss that is tolerated."""

    backbone: str
    highest: float
    tolerance: float


def measure_modality(
    original: Float32,
    published: Float32,
    status: np.ndarray[tuple[int], np.dtype[np.int8]],
    trust: Float32,
    moved: Float32,
    config: QualityConfig,
    *,
    marginal_error: float | None,
    drift: float | None,
    rate_jump: float | None = None,
    rate_low: float | None = None,
    block_rows: int = 256,
) -> ModalityMeasures:
    """Compare the ``published`` features with the ``original`` ones. Both [I, D] may be memory maps. ``trust`` [I] is NaN where unknown,
    and ``moved`` [I] is 1 - cosine of the two.

    ``norm_ratio`` is 1 if every published length lies within the input's range. Otherwise it is the factor by which the worst is outside.
    """
    squares = np.empty((len(status), 3))

    def square_block(rows: slice) -> None:
        before, after = original[rows].astype(np.float64), published[rows].astype(np.float64)
        for at, pair in enumerate(((before, before), (after, after), (before, after))):
            squares[rows, at] = row_dots(*pair)

    on_row_blocks(square_block, len(status), block_rows, torch.get_num_threads())
    inputs, lengths = np.sqrt(squares[:, 0]), np.sqrt(squares[:, 1])
    published_rows, own_rows = (
        status != Status.MISSING.code,
        ~np.isin(status, (Status.MISSING.code, Status.IMPUTED.code)),
    )
    ratio = 1.0
    if published_rows.any() and own_rows.any():
        out, into = lengths[published_rows], inputs[own_rows]
        ratio = max(1.0, _times(float(into.min()), float(out.min())), _times(float(out.max()), float(into.max())))
    trusted = own_rows & (trust >= TRUSTED)
    cosine = squares[trusted, 2] / np.maximum(lengths[trusted] * inputs[trusted], np.finfo(np.float64).tiny)
    return ModalityMeasures(
        not_finite=int((~np.isfinite(lengths)).sum()),
        trusted=int(trusted.sum()),
        changed=int((cosine < config.changed_below).sum()),
        norm_ratio=float(ratio),
        marginal_error=marginal_error,
        drift=drift,
        rate_jump=rate_jump,
        moved=float((moved[own_rows] > FAR).mean()) if (status == Status.RECTIFIED.code).any() else None,
        rate_low=rate_low,
    )


def _times(longer: float, shorter: float) -> float:
    """Return ``longer / shorter``, 1 where both are 0."""
    if shorter > 0:
        return longer / shorter
    return np.inf if longer > 0 else 1.0


def check_quality(
    *,
    rows_read: int,
    rows_out: int,
    rows_quarantined: int,
    modalities: Mapping[str, ModalityMeasures],
    config: QualityConfig,
    shadow: ShadowMeasure | None = None,
    unexplained: float | None = None,
    whole_rows_low: float | None = None,
) -> QualityReport:
    """Return every check of the gate in a fixed order. A NaN fails.

    ``unexplained`` is the anchors' median reliability where no modality fits them, None where one does: two halves of the log agree on where
    items belong, and no feature says anything of it. ``whole_rows_low`` is the largest lower end of a rate whose errors come with another
    modality's, None where none does: the features of an item fit each other, and not the log.
    """
    checks = [_check("rows in = rows out + quarantined", rows_out + rows_quarantined, "equal to", rows_read)]
    if unexplained is not None:
        label = f"agreement of two halves of the log where no modality fits it ({MISJOINED})"
        checks.append(_check(label, unexplained, "at most", config.max_unexplained, blocking="join" not in config.warn))
    if whole_rows_low is not None:
        label = f"lower end of the share of items whose modalities fit each other and not the log ({MISJOINED})"
        checks.append(
            _check(label, whole_rows_low, "at most", config.max_whole_rows_low, blocking="join" not in config.warn)
        )
    for name, measures in modalities.items():
        checks += _modality_checks(name, measures, config)
    if shadow is not None:
        label = f"shadow {shadow.backbone}: change of Recall@20 by rectification, relative, upper end of its interval"
        checks.append(
            _check(label, shadow.highest, "at least", -shadow.tolerance, blocking="shadow" not in config.warn)
        )
    return QualityReport(checks=tuple(checks))


def _modality_checks(name: str, measures: ModalityMeasures, config: QualityConfig) -> Iterator[Check]:
    changed = measures.changed / measures.trusted if measures.trusted else None
    yield _check(f"{name}: rows with a value that is not finite", measures.not_finite, "at most", 0)
    for kind, label, value, rule, bound in (
        (
            "moved",
            f"share of the features that move by more than {FAR:g} ({MISJOINED})",
            measures.moved,
            "at most",
            config.max_moved,
        ),
        (
            "rate_low",
            f"lower end of the mismatch rate ({MISJOINED})",
            measures.rate_low,
            "at most",
            config.max_rate_low,
        ),
        (
            "marginal_error",
            "mean column error of the plan",
            measures.marginal_error,
            "at most",
            config.max_marginal_error,
        ),
        (
            "changed",
            f"share of trusted items with a cosine to their input below {config.changed_below:g}",
            changed,
            "at most",
            config.max_changed,
        ),
        (
            "norm_ratio",
            "length outside the input's range, times",
            measures.norm_ratio,
            "at most",
            config.max_norm_ratio,
        ),
        ("drift", "mean cosine to the last published version", measures.drift, "at least", config.min_drift_cosine),
        (
            "rate_jump",
            "mismatch rate above the last published day's, beyond both intervals",
            measures.rate_jump,
            "at most",
            config.max_rate_jump,
        ),
    ):
        if value is not None:
            yield _check(f"{name}: {label}", value, rule, bound, blocking=kind not in config.warn)


def _check(name: str, value: float, rule: str, bound: float, *, blocking: bool = True) -> Check:
    passed = {"equal to": value == bound, "at most": value <= bound, "at least": value >= bound}[rule]
    return Check(name=name, value=float(value), bound=float(bound), rule=rule, passed=bool(passed), blocking=blocking)

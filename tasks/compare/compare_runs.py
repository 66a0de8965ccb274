"""How far apart two runs of one day are: their features, trusts, statuses and rates, and whether no farther than two others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Float32, Float64
from rectifier_core.base.numerics import row_blocks
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref

BLOCK_ROWS = 8192
TOLERANCE = 1.5
"""How many times as far apart as two cold runs of different seeds an incremental and a cold run may be. It was set by what was measured: on
catalogs of 3,000 to 20,000 items a night ended .94 to 1.44 times as far from a cold run (``benchmarks/results/incremental.md``)."""
FARTHER = ("cosine_distance", "trust_difference", "status_disagreement", "rate_difference")
"""The measures that a tolerance is stated for, all the smaller the nearer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayOutputs:
    """One run of a day: what it would publish, and each modality's stages."""

    rectified: Ref
    matched: Mapping[str, ModalityRefs]


def compare_runs(one: DayOutputs, other: DayOutputs) -> dict[str, dict[str, Any]]:
    """Per modality, as JSON: the share of rows ``equal`` bit for bit; 1 less the mean cosine of the features both runs publish, and
    quantiles of the cosine; mean and 99th percentile of the ``trust_difference``; the share of items whose status differs; both rates with
    their intervals. None where there is nothing to compare."""
    return {modality: _compare(modality, one, other) for modality in one.matched}


def _compare(modality: str, one: DayOutputs, other: DayOutputs) -> dict[str, Any]:
    status = [np.asarray(x.rectified.array(f"status-{modality}")) for x in (one, other)]
    trust = [np.asarray(x.rectified.array(f"trust-{modality}"), np.float64) for x in (one, other)]
    equal, cosine = _features(*(x.rectified.array(f"features-{modality}") for x in (one, other)))
    known = cosine[~np.isnan(cosine)]
    apart = np.abs(trust[0] - trust[1])[~np.isnan(trust[0]) & ~np.isnan(trust[1])]
    rates = [
        {name: x.matched[modality].trust.meta[name] for name in ("mismatch_rate", "low", "high")} for x in (one, other)
    ]
    told = [x["mismatch_rate"] for x in rates]
    return {
        "equal": float(equal.mean()),
        "cosine_distance": _mean(1 - known),
        "cosine_quantiles": {f"{q:g}": float(np.quantile(known, q)) for q in (0, 0.001, 0.01, 0.1, 0.5)}
        if len(known)
        else {},
        "trust_difference": _mean(apart),
        "trust_difference_99": float(np.quantile(apart, 0.99)) if len(apart) else None,
        "status_disagreement": float((status[0] != status[1]).mean()),
        "rate_difference": None if None in told else abs(told[0] - told[1]),
        "rates": rates,
    }


def _features(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], Float64]:
    """Which rows are equal, [I] bool, and the cosine of each pair of rows, [I], NaN where either is zero."""
    equal, cosine = np.empty(len(one), np.bool_), np.full(len(one), np.nan)
    for rows in row_blocks(len(one), BLOCK_ROWS):
        a, b = np.asarray(one[rows]), np.asarray(other[rows])
        equal[rows] = (a == b).all(axis=1)
        lengths = _lengths(a) * _lengths(b)
        there = lengths > 0
        products = np.einsum("ij,ij->i", a, b, dtype=np.float64)
        cosine[rows] = np.divide(products, lengths, out=np.full(len(a), np.nan), where=there)
        cosine[rows][equal[rows] & there] = 1
    return equal, np.minimum(cosine, 1)


def _lengths(rows: Float32) -> Float64:
    lengths: Float64 = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return lengths


def _mean(values: Float64) -> float | None:
    return float(values.mean()) if len(values) else None


def within(
    found: Mapping[str, Mapping[str, Any]], yardstick: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, bool]]:
    """Per modality and measure, whether ``found`` is at most ``TOLERANCE`` times as far apart as the ``yardstick``, two cold runs of
    different seeds.

    Two runs' rates may agree by chance, so a rate also passes that lies in the interval of the run it is held against.
    """
    return {
        modality: {name: _no_farther(name, x, yardstick[modality]) for name in FARTHER if x[name] is not None}
        for modality, x in found.items()
    }


def _no_farther(name: str, found: Mapping[str, Any], yardstick: Mapping[str, Any]) -> bool:
    if name == "rate_difference":
        rate, against = found["rates"]
        if against["low"] <= rate["mismatch_rate"] <= against["high"]:
            return True
    return yardstick[name] is None or bool(found[name] <= TOLERANCE * yardstick[name])

"""Compare two runs of one day by features, trusts, statuses and rates, and write the comparison as JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Float64
from rectifier_core.base.numerics import row_blocks
from tasks.store.atomic_files import write_text
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref

BLOCK_ROWS = 8192
TOLERANCE = 1.5
"""How far apart an incremental and a cold run may be, in units of two cold runs of different seeds.

Measured: .94 to 1.44 on catalogs of 3,000 to 20,000 items (``benchmarks/results/incremental.md``)."""
MEASURES = ("cosine_distance", "trust_difference", "status_disagreement", "rate_difference")
"""The measures that the tolerance applies to; smaller is nearer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayOutputs:
    """One run of a day: its rectified features, and the stages of each modality."""

    rectified: Ref
    matched: Mapping[str, ModalityRefs]


def compare_runs(one: DayOutputs, other: DayOutputs) -> dict[str, dict[str, Any]]:
    """The comparison by modality, as JSON-able dicts; None where there is nothing to compare.

    ``equal`` is the share of rows with equal bits. ``cosine_distance`` is 1 - the mean cosine of the features that both runs publish.
    ``trust_difference`` is a mean, ``trust_difference_99`` its 99th percentile. ``status_disagreement`` is the share of items with another
    status. ``rates`` are both mismatch rates with their intervals.
    """
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
    mismatch = [x["mismatch_rate"] for x in rates]
    return {
        "equal": float(equal.mean()),
        "cosine_distance": _mean(1 - known),
        "cosine_quantiles": {f"{q:g}": float(np.quantile(known, q)) for q in (0, 0.001, 0.01, 0.1, 0.5)}
        if len(known)
        else {},
        "trust_difference": _mean(apart),
        "trust_difference_99": float(np.quantile(apart, 0.99)) if len(apart) else None,
        "status_disagreement": float((status[0] != status[1]).mean()),
        "rate_difference": None if None in mismatch else abs(mismatch[0] - mismatch[1]),
        "rates": rates,
    }


def _features(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], Float64]:
    """Whether rows are equal [I], and the cosine of each pair of rows [I], NaN where either is zero."""
    equal, cosine = np.empty(len(one), np.bool_), np.full(len(one), np.nan)
    for rows in row_blocks(len(one), BLOCK_ROWS):
        a, b = np.asarray(one[rows]), np.asarray(other[rows])
        equal[rows] = (a == b).all(axis=1)
        products, first, second = (np.einsum("ij,ij->i", *x, dtype=np.float64) for x in ((a, b), (a, a), (b, b)))
        lengths = np.sqrt(first * second)
        cosine[rows] = np.divide(products, lengths, out=np.full(len(a), np.nan), where=lengths > 0)
        cosine[rows][equal[rows] & (lengths > 0)] = 1
    return equal, np.minimum(cosine, 1)


def _mean(values: Float64) -> float | None:
    return float(values.mean()) if len(values) else None


def within_tolerance(
    comparison: Mapping[str, Mapping[str, Any]], yardstick: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, bool]]:
    """By modality and measure, whether ``comparison`` is at most ``TOLERANCE`` times the ``yardstick``, two cold runs of different seeds.

    A rate also passes if it lies in the interval of the other run's rate, because two runs' rates may agree by chance.
    """
    return {
        modality: {name: _passes(name, x, yardstick[modality]) for name in MEASURES if x[name] is not None}
        for modality, x in comparison.items()
    }


def _passes(name: str, comparison: Mapping[str, Any], yardstick: Mapping[str, Any]) -> bool:
    if name == "rate_difference":
        rate, other = comparison["rates"]
        if other["low"] <= rate["mismatch_rate"] <= other["high"]:
            return True
    return yardstick[name] is None or bool(comparison[name] <= TOLERANCE * yardstick[name])


def write_comparison(folder: Path, result: Mapping[str, Any]) -> str:
    """Write ``comparison.json`` and ``comparison.md`` into ``folder`` and return the path of the latter."""
    text = json.dumps(result, indent=1, allow_nan=False)
    write_text(folder / "comparison.json", text)
    page = folder / "comparison.md"
    write_text(page, "\n".join(comparison_page(result)) + "\n")
    return str(page)


def comparison_page(result: Mapping[str, Any]) -> list[str]:
    """The lines of ``comparison.md``."""
    lines = [
        f"# {result['as_of']}: run {result['run_id']} compared with a cold run",
        "",
        f"The run {result['reason']}. It may differ from a cold run by {TOLERANCE:g} times the yardstick.",
        "The yardstick is the difference of two cold runs with different seeds.",
        "",
        "| modality | measure | difference | yardstick | within tolerance |",
        "|---|---|---|---|---|",
    ]
    for modality, comparison in result["modalities"].items():
        yardstick, within = result["yardstick"][modality], result["within"][modality]
        rows: list[tuple[str, str, str, str]] = []
        for name in MEASURES:
            passed = {True: "yes", False: "**no**"}.get(within.get(name, ""), "-")
            rows.append((name.replace("_", " "), _number(comparison[name]), _number(yardstick[name]), passed))
        rows.append(("share of rows equal", _number(comparison["equal"]), _number(yardstick["equal"]), "-"))
        rows.append(("cosine, by quantile", _quantiles(comparison), _quantiles(yardstick), "-"))
        rows.append(("mismatch rate", _rates(comparison), _rates(yardstick), "-"))
        lines += [f"| {modality} | {' | '.join(row)} |" for row in rows]
    return lines


def _quantiles(comparison: Mapping[str, Any]) -> str:
    return ", ".join(f"{q}: {value:.4f}" for q, value in comparison["cosine_quantiles"].items())


def _rates(comparison: Mapping[str, Any]) -> str:
    return " and ".join(_number(x["mismatch_rate"]) for x in comparison["rates"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"

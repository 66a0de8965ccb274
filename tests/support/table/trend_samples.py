"""Trend entries for tests: runs of one table, one a day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.table.trend import Entry, trend_entry
from tests.support.table.publish_support import identity

Rate = tuple[float, float, float] | None


def facts(rate: Rate, inner: tuple[float, float] | None = None) -> dict[str, Any]:
    """The facts of a modality: (estimate, low, high), None if the rate is unknown, and the interval among unlike items."""
    estimate, low, high = rate or (None, None, None)
    known = {"identifiable": rate is not None, "separation": 0.9 if rate else 0.51}
    ends = {"low_unlike": inner[0], "high_unlike": inner[1]} if inner else {}
    counts = {"rectified": 80, "passed_through": 15, "imputed": 3, "missing": 2}
    others = {"width": 64, "outcome": "CONVERGED", "recall": 1.0}
    return {"mismatch_rate": estimate, "low": low, "high": high, **known, **ends, **counts, **others}


def gate(drift: float | None, *names: str, passed: bool = True) -> list[dict[str, Any]]:
    """One check for each modality, and its drift unless that is None."""

    def check(name: str, value: float, rule: str, bound: float, passed: bool) -> dict[str, Any]:
        return {"name": name, "value": value, "rule": rule, "bound": bound, "passed": passed, "blocking": True}

    checks = [check(f"{m}: mean column error of the plan", 0.01, "at most", 0.05, passed) for m in names]
    for m in names if drift is not None else ():
        checks.append(check(f"{m}: mean cosine to the last published version", drift, "at least", 0.8, drift >= 0.8))
    return checks


def entry(
    day: str,
    rates: Mapping[str, Rate],
    *,
    outcome: str = "published",
    seed: int = 0,
    drift: float | None = 0.97,
    version: int | None = 7,
    inner: tuple[float, float] | None = None,
    model: str | None = None,
) -> Entry:
    """The entry of a run of ``day``. Another ``seed`` is another run. ``model`` is the embedding model of all modalities."""
    modalities = {m: facts(rate, inner) | {"embedding_model": model} for m, rate in rates.items()}
    checks = gate(drift, *rates, passed=outcome != "refused")
    return trend_entry(identity(day, seed), outcome, None if outcome == "refused" else version, modalities, checks)

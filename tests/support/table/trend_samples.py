"""Trend entries for tests: runs of one table, a day each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date
from typing import Any

from tasks.table.config import RunIdentity
from tasks.table.trend import Entry, trend_entry

Rate = tuple[float, float, float] | None


def facts(rate: Rate, inner: tuple[float, float] | None = None) -> dict[str, Any]:
    """What a run found about a modality: (estimate, low, high) or None where no rate can be told, and the interval among unlike items."""
    estimate, low, high = rate or (None, None, None)
    ends = {"low_unlike": inner[0], "high_unlike": inner[1]} if inner else {}
    return {
        **ends,
        **{
            "mismatch_rate": estimate,
            "low": low,
            "high": high,
            "identifiable": rate is not None,
            "separation": 0.9 if rate else 0.51,
        },
        **{
            "rectified": 80,
            "passed_through": 15,
            "imputed": 3,
            "missing": 2,
            "width": 64,
            "outcome": "CONVERGED",
            "recall": 1.0,
        },
    }


def gate(drift: float | None, *names: str, passed: bool = True) -> list[dict[str, Any]]:
    """A gate of one check a modality, and its drift unless that is None."""
    checks = [
        {
            "name": f"{m}: mean column error of the plan",
            "value": 0.01,
            "rule": "at most",
            "bound": 0.05,
            "passed": passed,
            "blocking": True,
        }
        for m in names
    ]
    if drift is not None:
        told = {"value": drift, "rule": "at least", "bound": 0.8, "passed": drift >= 0.8, "blocking": True}
        checks += [{"name": f"{m}: mean cosine to the last published version", **told} for m in names]
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
    """The entry of a run of ``day``; ``seed`` tells two runs of a day apart, ``model`` is its embedding model."""

    def found(rate: Rate) -> dict[str, Any]:
        return facts(rate, inner) | {"embedding_model": model}

    digest = hashlib.blake2b(f"{day}/{seed}".encode(), digest_size=16).hexdigest()
    identity = RunIdentity(
        run_id=f"{day.replace('-', '')}-{digest[:12]}",
        as_of=date.fromisoformat(day),
        digest=digest,
        config_digest="c0ffee",
        inputs_digest="beef",
        code_version="1.2.3",
    )
    checks = gate(drift, *rates, passed=outcome != "refused")
    shown = None if outcome == "refused" else version
    return trend_entry(identity, outcome, shown, {m: found(rate) for m, rate in rates.items()}, checks)

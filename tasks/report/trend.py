"""The report's facts about the last runs: rates with intervals, drift, gate values, and jumps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.report.inputs import ReportInputs
from tasks.report.summaries import Facts, tidy
from tasks.table.embedding_models import EMBEDDING_MODEL, is_another
from tasks.table.trend import find_jumps

MOST_DAYS = 60
_SERIES = ("mismatch_rate", "low", "high", "low_unlike", "high_unlike", "drift", "separation")


def trend_facts(inputs: ReportInputs) -> Facts:
    """The last days of ``inputs.trend``, every series with one value a day, null where that day has none."""
    days = inputs.trend[-MOST_DAYS:]
    return {
        "days": [
            {
                **{name: day[name] for name in ("as_of", "run_id", "outcome", "version")},
                "this": day["run_id"] == inputs.run_id and day["as_of"] == inputs.as_of,
            }
            for day in days
        ],
        "modalities": [_modality(name, days) for name in sorted({m for day in days for m in day["modalities"]})],
        "gate": _gate(days),
        "jumps": find_jumps(days, inputs.as_of),
        "damaged": inputs.trend_damaged,
    }


def _modality(name: str, days: Sequence[Mapping[str, Any]]) -> Facts:
    entries = [day["modalities"].get(name) for day in days]
    series = {key: [None if x is None else tidy(x[key]) for x in entries] for key in _SERIES}
    identifiable = [None if x is None else bool(x["identifiable"]) for x in entries]
    return {"name": name, "identifiable": identifiable, **series, "models": _models(name, days)}


def _models(name: str, days: Sequence[Mapping[str, Any]]) -> list[Facts]:
    """The embedding models of the published days, oldest first, and since when."""
    changes: list[Facts] = []
    for day in days:
        model = day["modalities"].get(name, {}).get(EMBEDDING_MODEL)
        if day["outcome"] == "refused" or model is None:
            continue
        if not changes or is_another(changes[-1]["model"], model):
            changes.append({"model": model, "since": day["as_of"]})
    return changes


def _gate(days: Sequence[Mapping[str, Any]]) -> list[Facts]:
    """One entry a check, in the order of the newest run."""
    names = list(dict.fromkeys(check["name"] for day in reversed(days) for check in day["gate"]))
    by_day = [{check["name"]: check for check in day["gate"]} for day in days]
    return [_check(name, [checks.get(name) for checks in by_day]) for name in names]


def _check(name: str, by_day: list[Mapping[str, Any] | None]) -> Facts:
    made = [x for x in by_day if x is not None]
    numbers = [x["value"] for x in made if x["value"] is not None]
    return {
        "name": name,
        "rule": made[-1]["rule"],
        "bound": tidy(made[-1]["bound"]),
        "values": [None if x is None else tidy(x["value"]) for x in by_day],
        "least": tidy(min(numbers, default=None)),
        "most": tidy(max(numbers, default=None)),
        "failed": {"count": sum(not x["passed"] for x in made), "of": len(made)},
    }

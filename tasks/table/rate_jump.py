"""How far a modality's mismatch rate rose beyond what chance allows since the last published day, for the gate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from tasks.table.config import PublishConfig
from tasks.table.embedding_models import EMBEDDING_MODEL, is_another
from tasks.table.trend import read_trend, shared_interval

LOOK_BACK = 30
"""So many days of the trend are looked at for one that was published."""


def rate_jumps(config: PublishConfig, as_of: date, rates: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """By modality: the lower end of today's interval less the upper end of the last earlier published day's; negative where they meet.

    ``rates`` are today's facts as trust states them (low, high, low_unlike, high_unlike, identifiable), and the embedding model. None where
    a rate cannot be told on one of the two days, another model made it then, or there is no such day. Raises StorageError where the trend
    cannot be read.
    """
    days = [x for x in read_trend(config, LOOK_BACK, until=as_of.isoformat()).days if x["as_of"] < as_of.isoformat()]
    before: Mapping[str, Any] = next((x["modalities"] for x in reversed(days) if x["outcome"] != "refused"), {})
    return {m: _rise(before[m], now) if m in before else None for m, now in rates.items()}


def _rise(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    if not (before["identifiable"] and now["identifiable"]) or is_another(
        before.get(EMBEDDING_MODEL), now.get(EMBEDDING_MODEL)
    ):
        return None
    low, high = shared_interval(before, now)
    return None if now[low] is None or before[high] is None else float(now[low] - before[high])

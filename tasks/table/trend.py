"""What every run found, kept beside the table: one small JSON file a run, so that a change from day to day can be seen.

The files lie at ``<table uri>-trend/<as_of>/<run_id>.json``: beside the table and not in it, because a refused run is recorded too, and the
first one comes before there is a table. An entry's shape::

    format, as_of, run_id, outcome (published, unchanged or refused), version (null where refused), recorded (UTC, ISO)
    modalities  {m: {mismatch_rate, low, high, low_unlike, high_unlike, identifiable, separation, drift, embedding_model,
                rectified, passed_through, imputed, missing}}
    gate        [{name, value, rule, bound, passed, blocking}]

``drift`` is the mean cosine to the last published version as the gate compared it, null where there was none to compare with.
``embedding_model`` is null where it is not named, and an entry without it says the same.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from rectifier_core.base.published_records import Status
from tasks.table.config import PublishConfig, RunIdentity
from tasks.table.embedding_models import EMBEDDING_MODEL, is_another
from tasks.table.files import FileEntry, TableFiles, storage_errors

FORMAT = 1
LEFT_SECONDS = 3600.0
_LEFT = re.compile(r"\d{4}-\d\d-\d\d/\.[^/]+\.tmp")
LATER = "the published rows are not affected; the next run of that day records it again"
_INTERVALS = (("low_unlike", "high_unlike"), ("low", "high"))
_FACTS = (
    "mismatch_rate",
    *_INTERVALS[1],
    *_INTERVALS[0],
    "identifiable",
    "separation",
    *(status.value for status in Status),
)
_CHECK = ("name", "value", "rule", "bound", "passed", "blocking")
_DRIFT = ": mean cosine to the last published version"
Entry = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Entries by day, oldest first, one a day; ``damaged`` counts the files that could not be read and were left out."""

    days: tuple[Entry, ...]
    damaged: int


def trend_entry(
    identity: RunIdentity,
    outcome: str,
    version: int | None,
    modalities: Mapping[str, Mapping[str, Any]],
    gate: Sequence[Mapping[str, Any]],
    recorded: datetime | None = None,
) -> Entry:
    """The entry of one run from what ``modality_facts`` and ``quality_values`` give for it; ``recorded`` is now unless told."""
    drifts = {check["name"].removesuffix(_DRIFT): check["value"] for check in gate if check["name"].endswith(_DRIFT)}
    return {
        "format": FORMAT,
        "as_of": identity.day,
        "run_id": identity.run_id,
        "outcome": outcome,
        "version": version,
        "recorded": (recorded or datetime.now(UTC)).isoformat(timespec="milliseconds"),
        "modalities": {
            m: {name: _finite(found.get(name)) for name in (*_FACTS, EMBEDDING_MODEL)}
            | {"drift": _finite(drifts.get(m))}
            for m, found in modalities.items()
        },
        "gate": [{name: _finite(check[name]) for name in _CHECK} for check in gate],
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def trend_uri(config: PublishConfig) -> str:
    """Where the trend of a table lies."""
    return f"{config.uri.rstrip('/')}-trend"


def record_run(config: PublishConfig, entry: Mapping[str, Any]) -> bool:
    """Keep a run's entry, and drop those of days beyond the newest ``keep_trend``; a repeat that found the same changes nothing.

    Returns whether anything was written. Call it under the table's lock. Raises StorageError where the storage fails: the run itself is
    none the worse for it.
    """
    files, path = TableFiles(trend_uri(config)), f"{entry['as_of']}/{entry['run_id']}.json"
    with storage_errors(config.uri, "recording the run in its trend", LATER):
        known = _read(files, path) if files.entries([path]) else None
        new = known is None or _substance(known) != _substance(entry)
        if new:
            entry = dict(entry) | {"recorded": _last(files, entry)}
            with files.create(path) as sink:
                sink.write((json.dumps(entry, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
        _sweep(files, config.keep_trend)
    return new


def _last(files: TableFiles, entry: Mapping[str, Any]) -> str:
    """When the entry was recorded: after all others of its day, also where the clock went back since."""
    others = [_read(files, x.path) for x in files.walk(str(entry["as_of"])) if x.path.endswith(".json")]
    newest = max((datetime.fromisoformat(x["recorded"]) for x in others if x is not None), default=None)
    mine = datetime.fromisoformat(str(entry["recorded"]))
    return (mine if newest is None else max(mine, newest + timedelta(milliseconds=1))).isoformat(
        timespec="milliseconds"
    )


def _substance(entry: Mapping[str, Any]) -> Any:
    """What makes two entries of a run the same: all but the time, and whether it was the first to publish what it found."""
    kept = {name: value for name, value in entry.items() if name != "recorded"} | {
        "outcome": entry["outcome"] == "refused"
    }
    return json.loads(json.dumps(kept))


def _sweep(files: TableFiles, keep: int) -> None:
    there = files.walk()
    for file in there:
        # Under the table's lock nobody else writes here; an hour is for tables in S3, whose lock is each machine's own.
        if _LEFT.fullmatch(file.path) and file.modified < time.time() - LEFT_SECONDS:
            files.delete(file.path)
    by_day = _by_day(there)
    for day in sorted(by_day)[:-keep]:
        for file in by_day[day]:
            files.delete(file.path)
        files.delete_empty_folder(day)


def _by_day(files: Iterable[FileEntry]) -> dict[str, list[FileEntry]]:
    found: dict[str, list[FileEntry]] = {}
    for file in files:
        day, _, name = file.path.partition("/")
        if _is_day(day) and name.endswith(".json") and not name.startswith(".") and "/" not in name:
            found.setdefault(day, []).append(file)
    return found


def _is_time(text: Any) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def read_trend(config: PublishConfig, last: int = 60, *, until: str | None = None) -> Trend:
    """The newest ``last`` days, none after ``until`` (YYYY-MM-DD): of each the run recorded last, refused ones among them.

    A file that is damaged, or of another format, is left out and counted. Raises StorageError where the storage fails.
    """
    files, days, damaged = TableFiles(trend_uri(config)), list[Entry](), 0
    with storage_errors(config.uri, "reading its trend", LATER):
        by_day = _by_day(files.walk())
        for day in sorted(x for x in by_day if until is None or x <= until)[-last:]:
            read = [_read(files, file.path) for file in by_day[day]]
            damaged += read.count(None)
            usable = [x for x in read if x is not None]
            if usable:
                days.append(max(usable, key=lambda x: (x["recorded"], x["run_id"])))
    return Trend(days=tuple(days), damaged=damaged)


def _read(files: TableFiles, path: str) -> Entry | None:
    """One entry, None where it is not one."""
    try:
        found = json.loads(files.read_text(path))
    except (ValueError, FileNotFoundError, pa.ArrowInvalid):
        return None
    return found if _is_entry(found, path) else None


def _is_entry(found: Any, path: str) -> bool:
    if (
        not isinstance(found, dict)
        or found.get("format") != FORMAT
        or f"{found.get('as_of')}/{found.get('run_id')}.json" != path
    ):
        return False
    modalities, gate = found.get("modalities"), found.get("gate")
    return (
        found.get("outcome") in ("published", "unchanged", "refused")
        and _is_time(found.get("recorded"))
        and isinstance(modalities, dict)
        and all(isinstance(x, dict) and x.keys() >= {*_FACTS, "drift"} for x in modalities.values())
        and isinstance(gate, list)
        and all(isinstance(x, dict) and x.keys() >= set(_CHECK) for x in gate)
    )


def find_jumps(days: Sequence[Mapping[str, Any]], as_of: str) -> list[dict[str, Any]]:
    """The modalities whose rate on ``as_of`` moved beyond both intervals since the last earlier day that was published.

    Each is ``{modality, kind, as_of, since, run_id, among_unlike, before, now}``; ``kind`` is "rate" where the two intervals have nothing
    in common, "identifiable" where a rate can be told on one day only; ``before`` and ``now`` are ``{mismatch_rate, low, high,
    identifiable}``. With ``among_unlike`` the intervals are those of mix-ups among unlike items, taken where both days have them: what
    cannot be told of alike items is the same on both. Modalities that another embedding model made then are left out. Empty where ``days``
    lacks ``as_of`` or an earlier published day.
    """
    today = next((x for x in days if x["as_of"] == as_of), None)
    earlier = [x for x in days if x["as_of"] < as_of and x["outcome"] != "refused"]
    if today is None or not earlier:
        return []
    last = max(earlier, key=lambda x: str(x["as_of"]))
    jumps = []
    for modality in sorted(today["modalities"].keys() & last["modalities"].keys()):
        both = [x["modalities"][modality] for x in (last, today)]
        if is_another(*(x.get(EMBEDDING_MODEL) for x in both)):
            continue
        ends = shared_interval(*both)
        before, now = (_rate(facts, *ends) for facts in both)
        kind = _jump(before, now)
        if kind:
            facts = {"as_of": as_of, "since": last["as_of"], "run_id": today["run_id"], "before": before, "now": now}
            jumps.append({"modality": modality, "kind": kind, "among_unlike": ends == _INTERVALS[0], **facts})
    return jumps


def shared_interval(*found: Mapping[str, Any]) -> tuple[str, str]:
    """The ends of the narrowest interval that all have: of mix-ups among unlike items, else of all."""
    return next(
        (x for x in _INTERVALS if all(facts.get(end) is not None for facts in found for end in x)), _INTERVALS[1]
    )


def _rate(facts: Mapping[str, Any], low: str, high: str) -> dict[str, Any]:
    return {
        "mismatch_rate": facts["mismatch_rate"],
        "low": facts[low],
        "high": facts[high],
        "identifiable": facts["identifiable"],
    }


def _jump(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    if before["identifiable"] != now["identifiable"]:
        return "identifiable"
    if None in (before["low"], before["high"], now["low"], now["high"]):
        return None
    return "rate" if now["low"] > before["high"] or now["high"] < before["low"] else None

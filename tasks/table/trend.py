"""The findings of the last run of each day, kept beside the table to show changes from day to day.

The files are ``<table uri>-trend/<as_of>.json``. They are beside the table because a refused run is recorded too, and the first run comes
before there is a table. An entry's shape::

    format, as_of, run_id, outcome (published, unchanged or refused), version (null if refused)
    modalities  {m: {mismatch_rate, low, high, low_unlike, high_unlike, identifiable, separation, drift, embedding_model,
                rectified, passed_through, imputed, missing}}
    gate        [{name, value, rule, bound, passed, blocking}]

``drift`` is the mean cosine to the last published version, null if there was none to compare with.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from rectifier_core.base.published_records import Status
from tasks.store.store import plain
from tasks.table.config import PublishConfig, RunIdentity
from tasks.table.embedding_models import EMBEDDING_MODEL, is_another
from tasks.table.files import TableFiles, storage_errors

FORMAT = 2
LATER = "the published rows are not affected; the next run of that day records it again"
LOOK_BACK = 30
"""So many days are searched for the last published one."""
_LEFT_SECONDS = 3600.0
OUTCOMES = ("published", "unchanged", "refused")
_DAY = re.compile(r"\d{4}-\d\d-\d\d\.json")
_INTERVALS = (("low_unlike", "high_unlike"), ("low", "high"))
_RATE = ("mismatch_rate", "low", "high", "low_unlike", "high_unlike", "identifiable", "separation")
_FACTS = (*_RATE, *(status.value for status in Status), EMBEDDING_MODEL)
_CHECK = ("name", "value", "rule", "bound", "passed", "blocking")
_DRIFT = ": mean cosine to the last published version"
Entry = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Entries, one a day, oldest first. ``damaged`` counts the files that could not be read and were left out."""

    days: tuple[Entry, ...]
    damaged: int


def trend_entry(
    identity: RunIdentity,
    outcome: str,
    version: int | None,
    modalities: Mapping[str, Mapping[str, Any]],
    gate: Sequence[Mapping[str, Any]],
) -> Entry:
    """Return the entry of one run from the results of ``modality_facts`` and ``quality_values``."""
    drifts = {check["name"].removesuffix(_DRIFT): check["value"] for check in gate if check["name"].endswith(_DRIFT)}
    entry = {
        "format": FORMAT,
        "as_of": identity.day,
        "run_id": identity.run_id,
        "outcome": outcome,
        "version": version,
        "modalities": {
            m: {name: facts.get(name) for name in _FACTS} | {"drift": drifts.get(m)} for m, facts in modalities.items()
        },
        "gate": [{name: check[name] for name in _CHECK} for check in gate],
    }
    return plain(entry)  # type: ignore[no-any-return]


def trend_uri(config: PublishConfig) -> str:
    """Return the folder of a table's trend."""
    return f"{config.uri.rstrip('/')}-trend"


def record_run(config: PublishConfig, entry: Entry) -> bool:
    """Write the entry of a run, delete those of days beyond the newest ``keep_trend``, and return whether the entry was new.

    A repeat of the day's last run writes nothing. Call it under the table's lock. Raises StorageError.
    """
    files, path = TableFiles(trend_uri(config)), f"{entry['as_of']}.json"
    text = json.dumps(entry, indent=1, sort_keys=True, allow_nan=False) + "\n"
    with storage_errors(config.uri, "recording the run in its trend", LATER):
        known = _read(files, path)
        new = known is None or _substance(known) != _substance(json.loads(text))
        if new:
            with files.create(path) as place:
                place.write_text(text)
        stored = files.walk()
        old = [x.path for x in stored if _DAY.fullmatch(x.path)][: -config.keep_trend]
        # Files of killed writers. In S3 another machine may be writing one.
        old += [x.path for x in stored if x.path.endswith(".tmp") and x.mtime.timestamp() < time.time() - _LEFT_SECONDS]
        for name in old:
            files.delete(name)
    return new


def _substance(entry: Entry) -> Entry:
    """Return what two entries of the same run have in common: a repeat finds its rows published already."""
    return entry | {"outcome": entry["outcome"] == "refused"}


def read_trend(config: PublishConfig, last: int = 60, *, until: str | None = None) -> Trend:
    """Return the newest ``last`` days, none after ``until`` (YYYY-MM-DD), the refused ones included.

    A damaged file, or one of another format, is left out and counted. Raises StorageError.
    """
    files = TableFiles(trend_uri(config))
    with storage_errors(config.uri, "reading its trend", LATER):
        paths = [x.path for x in files.walk() if _DAY.fullmatch(x.path)]
        entries = [_read(files, x) for x in paths if until is None or x <= f"{until}.json"][-last:]
    return Trend(days=tuple(x for x in entries if x is not None), damaged=entries.count(None))


def _read(files: TableFiles, path: str) -> Entry | None:
    """Return one entry, None if the file is missing, damaged or of another format."""
    try:
        entry: Entry = json.loads(files.read_text(path))
        valid = (entry["format"], f"{entry['as_of']}.json", entry["outcome"] in OUTCOMES) == (FORMAT, path, True)
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return None
    return entry if valid else None


def _last_published(days: Sequence[Mapping[str, Any]], as_of: str) -> Mapping[str, Any]:
    earlier = [x for x in days if x["as_of"] < as_of and x["outcome"] != "refused"]
    return max(earlier, key=lambda x: str(x["as_of"]), default={})


def rate_jumps(config: PublishConfig, as_of: date, rates: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return by modality how far today's interval lies above that of the last published day. It is negative if they overlap.

    ``rates`` are today's facts from trust (low, high, low_unlike, high_unlike, identifiable), and the embedding model. The value is None if
    a rate is unknown on one of the two days, another model made it then, or there is no such day. Raises StorageError.
    """
    day = as_of.isoformat()
    before = _last_published(read_trend(config, LOOK_BACK, until=day).days, day).get("modalities", {})
    return {m: _rise(before[m], now) if m in before else None for m, now in rates.items()}


def _rise(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    if not (before["identifiable"] and now["identifiable"]) or _is_another(before, now):
        return None
    low, high = _shared_interval(before, now)
    return None if now[low] is None or before[high] is None else float(now[low] - before[high])


def find_jumps(days: Sequence[Mapping[str, Any]], as_of: str) -> list[dict[str, Any]]:
    """Return the modalities whose rate on ``as_of`` moved beyond both intervals since the last published day before it.

    Each is ``{modality, kind, as_of, since, run_id, among_unlike, before, now}``. ``kind`` is "rate" if the two intervals do not overlap,
    "identifiable" if the rate is known on one of the days only. ``before`` and ``now`` are ``{mismatch_rate, low, high, identifiable}``.
    ``among_unlike`` means that the intervals are those of mix-ups among unlike items. Modalities with another embedding model then are left
    out. The list is empty if ``days`` lacks ``as_of`` or an earlier published day.
    """
    today, last = next((x for x in days if x["as_of"] == as_of), None), _last_published(days, as_of)
    if today is None or not last:
        return []
    jumps = []
    for m in sorted(today["modalities"].keys() & last["modalities"].keys()):
        before, now = last["modalities"][m], today["modalities"][m]
        kind = None
        if before["identifiable"] != now["identifiable"] and not _is_another(before, now):
            kind = "identifiable"
        elif any((gap or 0) > 0 for gap in (_rise(before, now), _rise(now, before))):
            kind = "rate"
        if kind:
            ends = _shared_interval(before, now)
            facts = {"as_of": as_of, "since": last["as_of"], "run_id": today["run_id"]}
            rates = {"before": _rate(before, *ends), "now": _rate(now, *ends)}
            jumps.append({"modality": m, "kind": kind, "among_unlike": ends == _INTERVALS[0], **facts, **rates})
    return jumps


def _rate(facts: Mapping[str, Any], low: str, high: str) -> dict[str, Any]:
    kept = {name: facts[name] for name in ("mismatch_rate", "identifiable")}
    return kept | {"low": facts[low], "high": facts[high]}


def _shared_interval(*facts: Mapping[str, Any]) -> tuple[str, str]:
    """Return the keys of the narrowest interval that all have: of mix-ups among unlike items, else of all mix-ups."""
    inner, outer = _INTERVALS
    return inner if all(x.get(end) is not None for x in facts for end in inner) else outer


def _is_another(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return is_another(before.get(EMBEDDING_MODEL), now.get(EMBEDDING_MODEL))

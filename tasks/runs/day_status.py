"""What state each day of a table is in, from the journal, the table, and what a run would be made from now.

``done``: the table shows the day, made from what is there now. ``stale``: it shows it, made from other inputs, config or code.
``missing``: it does not show it. ``failed``, ``refused``: the last run of the day ended so, whatever the table shows. ``running``: a live
process runs it. ``dead``: a run of it was killed. ``no-data``: it has no data of its own. Nothing is computed: config and code are
compared by their digests, inputs by their prints (``input_prints``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from tasks.errors import InputError
from tasks.runs.config import RunSettings
from tasks.runs.day_journal import Entry, is_held, read_days
from tasks.runs.identity import code_version, config_digest, load_summary, section_digests
from tasks.source.config import SourceConfig
from tasks.source.fingerprints import Inputs, changed_inputs, recorded_prints
from tasks.table.config import PublishConfig
from tasks.table.files import TableFiles, storage_errors
from tasks.table.log import LOOK, open_table, read_log, visible_files

STATES = ("done", "stale", "running", "dead", "failed", "refused", "missing", "no-data")
MOST_DAYS = 3660


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the table shows for a day: the commit that brought it, and what that says it was made from."""

    version: int | None
    run_id: str | None
    rows: int
    commit: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayStatus:
    """One day: its state and why, in words; what the table shows of it; the journal's entry, and how long its last good run took."""

    day: date
    state: str
    why: str
    shown: Shown | None = None
    entry: Entry | None = None

    @property
    def seconds(self) -> float | None:
        """What the run took that did the day last, if it computed anything."""
        if self.entry is None or self.entry["state"] != "done" or "rectify" not in self.entry["seconds"]:
            return None
        return float(sum(self.entry["seconds"].values()))

    @property
    def values(self) -> dict[str, Any]:
        """As JSON."""
        entry = self.entry or {}
        return {
            "day": self.day.isoformat(),
            "state": self.state,
            "why": self.why,
            "version": None if self.shown is None else self.shown.version,
            "run_id": None if self.shown is None else self.shown.run_id,
            "rows": None if self.shown is None else self.shown.rows,
            "seconds": self.seconds,
            "last_run": {
                name: entry.get(name)
                for name in (
                    "state",
                    "run_id",
                    "started",
                    "ended",
                    "heartbeat",
                    "stage",
                    "exit_code",
                    "message",
                    "flow_run_id",
                )
            }
            if entry
            else None,
        }


def asked_of(source: SourceConfig, shaping: Mapping[str, Any], day: date) -> dict[str, Any]:
    """What a run of that day would be made from now: ``code``, ``config`` a section, ``inputs``."""
    return {"code": code_version(), "config": section_digests(shaping), "inputs": recorded_prints(source, day)}


def read_status(
    source: SourceConfig,
    publish: PublishConfig,
    settings: RunSettings,
    shaping: Mapping[str, Any],
    shown: Mapping[date, Shown],
    start: date | None,
    end: date | None,
) -> list[DayStatus]:
    """The state of every day from ``start`` to ``end``, oldest first; ``shown`` is what ``shown_days`` gives.

    By default ``end`` is the newest day of the data or of the table, and ``start`` so far back that there are as many days as the table
    keeps, but not before the data. Raises InputError or StorageError.
    """
    inputs = Inputs.listed(source)
    entries, data = read_days(settings.folder, publish), inputs.days()
    known = sorted({*data, *shown, *entries})
    if not known and (start is None or end is None):
        raise InputError(f"{source.interactions}: no day has data; say --start and --end")
    end = end or max(known[-1], start or known[-1])
    start = start or min(end, max(known[0], end - timedelta(days=publish.keep_snapshots - 1)))
    _check_range(start, end)
    config = {"sections": section_digests(shaping), "code": code_version()}
    own = set(data)
    found = []
    for day in (start + timedelta(days=x) for x in range((end - start).days + 1)):
        entry, held = entries.get(day), is_held(settings.folder, publish, day)
        now = {"code": config["code"], "config": config["sections"], "inputs": inputs.prints(day)}
        made = _made(entry, shown.get(day), settings, shaping)
        state, why = judge_day(entry, held=held, shown=shown.get(day), made=made, now=now, data=day in own)
        found.append(DayStatus(day=day, state=state, why=why, shown=shown.get(day), entry=entry))
    return found


def _check_range(start: date, end: date) -> None:
    if start > end:
        raise InputError(f"--start {start}: is after --end {end}")
    if (end - start).days >= MOST_DAYS:
        raise InputError(f"--start {start}: {(end - start).days + 1:,} days up to {end}; ask for at most {MOST_DAYS:,}")


def shown_days(publish: PublishConfig) -> dict[date, Shown]:
    """What the table's newest version shows, by day, oldest first; nothing where there is no table. Raises StorageError."""
    table = open_table(publish.uri)
    if table is None:
        return {}
    with storage_errors(publish.uri, "reading its versions", LOOK):
        files, log = visible_files(table), read_log(TableFiles(publish.uri))
    by_path = {path: entry for entry in log if "run_id" in entry.info for path in entry.added}
    found = {}
    for day in sorted({x.day for x in files}):
        of_day = [x for x in files if x.day == day]
        commit = by_path.get(of_day[0].path)
        found[date.fromisoformat(day)] = Shown(
            version=None if commit is None else commit.version,
            run_id=of_day[0].run_id,
            rows=sum(x.rows or 0 for x in of_day),
            commit={} if commit is None else commit.info,
        )
    return found


def latest_day(shown: Mapping[date, Shown]) -> str | None:
    """The newest day that the table shows, which readers take for the latest."""
    return max(shown).isoformat() if shown else None


def _made(
    entry: Entry | None, shown: Shown | None, settings: RunSettings, shaping: Mapping[str, Any]
) -> dict[str, Any]:
    """What the shown rows were made from: as the journal has it if it is of that run, else as the run's summary or their commit says."""
    if shown is None:
        return {}
    if entry is not None and entry["state"] == "done" and entry["run_id"] == shown.run_id and entry["asked"]:
        return dict(entry["asked"])
    summary = load_summary(settings, shown.run_id) if shown.run_id else None
    if summary is not None and summary.get("asked"):
        return dict(summary["asked"])
    whole = config_digest(shaping, None if summary is None else summary.get("base"))
    same = shown.commit.get("config_digest") == whole
    return {
        "code": shown.commit.get("code_version"),
        "config": section_digests(shaping) if same else None,
        "inputs": None,
    }


def judge_day(
    entry: Entry | None, *, held: bool, shown: Shown | None, made: Mapping[str, Any], now: Mapping[str, Any], data: bool
) -> tuple[str, str]:
    """The state of one day, and why."""
    if held:
        if entry is None or entry["state"] != "running":
            return "running", "it begins"
        return "running", f"at {entry['stage']} since {entry['heartbeat'][:19]} UTC, pid {entry['pid']}"
    if entry is not None and entry["state"] == "running":
        return "dead", f"killed at {entry['stage']}, last heard of {entry['heartbeat'][:19]} UTC"
    if entry is not None and entry["state"] in ("failed", "refused"):
        return entry["state"], f"exit {entry['exit_code']}: {entry['message']}"
    if shown is not None:
        reasons = stale_reasons(made, now)
        unsure = (
            ""
            if made.get("inputs")
            else "published before its inputs were recorded, so whether they changed cannot be told"
        )
        return ("stale", "; ".join(reasons)) if reasons else ("done", unsure)
    if entry is not None:
        return "missing", f"was version {entry['version']}; rolled back, or beyond publish.keep_snapshots"
    return ("missing", "never run") if data else ("no-data", "no data of its own")


def stale_reasons(made: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What the rows were made from and is another now, in words; what was not recorded is not held against them."""
    found = []
    if made.get("inputs"):
        found += changed_inputs(made["inputs"], now["inputs"] or {}) if now["inputs"] else ["its inputs are gone"]
    if made.get("config") is None:
        found.append("config changed")
    elif made["config"] != now["config"]:
        both = made["config"].keys() | now["config"].keys()
        found.append(
            f"config changed: {', '.join(sorted(x for x in both if made['config'].get(x) != now['config'].get(x)))}"
        )
    if made.get("code") != now["code"]:
        found.append(f"code changed: {_short(made.get('code'))}, {_short(now['code'])} now")
    return found


def _short(version: str | None) -> str:
    """A version with the first digits of its digest."""
    name, _, digest = (version or "unknown").partition("+")
    return f"{name}+{digest[:8]}" if digest else name

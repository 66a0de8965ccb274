"""The state of each day of a table, from the journal, the table, and what a run would be made from now.

- `done`: the table shows the day, made from what is there now.
- `stale`: the table shows it, made from other inputs, another config or other code.
- `missing`: the table does not show it. `no-data`: it has no data of its own.
- `rolled-back`: a rollback took it out of the table. It runs again only where that is asked for.
- `failed`, `refused`: the last run of the day ended so, whatever the table shows.
- `running`: a live process runs it. `dead`: its run was killed.

Nothing is computed: config and code are compared by digests, inputs by `tasks.source.fingerprints`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from tasks.errors import InputError
from tasks.runs.config import RunSettings
from tasks.runs.day_journal import DayJournal, Entry
from tasks.runs.folders import load_summary
from tasks.runs.identity import code_version, config_digest, section_digests
from tasks.runs.table_days import PublishedDay, TableDays
from tasks.source.config import SourceConfig
from tasks.source.fingerprints import Inputs, changed_inputs, input_fingerprints
from tasks.table.config import PublishConfig

STATES = ("done", "stale", "running", "dead", "failed", "refused", "rolled-back", "missing", "no-data")
MAX_DAYS = 3660


@dataclass(frozen=True, slots=True, kw_only=True)
class DayStatus:
    """The state of one day and why, what the table shows of it, and its entry in the journal."""

    day: date
    state: str
    why: str
    published: PublishedDay | None = None
    entry: Entry | None = None

    @property
    def seconds(self) -> float | None:
        """The seconds of the last run, None unless it succeeded and computed anything."""
        if self.entry is None or self.entry["state"] != "done" or "rectify" not in self.entry["seconds"]:
            return None
        return float(sum(self.entry["seconds"].values()))

    @property
    def values(self) -> dict[str, Any]:
        """The status as JSON values."""
        names = ("state", "run_id", "started", "ended", "heartbeat", "stage", "exit_code", "message", "flow_run_id")
        return {
            "day": self.day.isoformat(),
            "state": self.state,
            "why": self.why,
            **{name: getattr(self.published, name, None) for name in ("version", "run_id", "rows")},
            "seconds": self.seconds,
            "last_run": None if self.entry is None else {name: self.entry.get(name) for name in names},
        }


def made_from_now(source: SourceConfig, shaping: Mapping[str, Any], day: date) -> dict[str, Any]:
    """What a run of that day would be made from now: `code`, `config` by section, and `inputs`."""
    return {"code": code_version(), "config": section_digests(shaping), "inputs": input_fingerprints(source, day)}


def read_status(
    source: SourceConfig,
    publish: PublishConfig,
    settings: RunSettings,
    shaping: Mapping[str, Any],
    table: TableDays,
    start: date | None,
    end: date | None,
) -> list[DayStatus]:
    """The state of every day from `start` to `end`, oldest first; `table` is what `read_table_days` returns.

    By default `end` is the newest day of the data or of the table. `start` goes back as many days as the table keeps, but not before
    the data. Raises InputError or StorageError.
    """
    inputs = Inputs.listed(source)
    journal, data = DayJournal(settings.folder, publish), set(inputs.days())
    entries = journal.read_all()
    known = sorted({*data, *table.published, *entries})
    if not known and (start is None or end is None):
        raise InputError(f"{source.interactions}: no day has data; give --start and --end")
    end = end or max(known[-1], start or known[-1])
    start = start or min(end, max(known[0], end - timedelta(days=publish.keep_snapshots - 1)))
    _check_range(start, end)
    now = {"code": code_version(), "config": section_digests(shaping)}
    statuses = []
    for day in (start + timedelta(days=x) for x in range((end - start).days + 1)):
        entry, shown, held = entries.get(day), table.published.get(day), journal.is_held(day)
        made = {} if shown is None else _made_from(entry, shown, settings, shaping)
        of_day = now | {"inputs": inputs.fingerprints(day)}
        gone = table.rolled_back.get(day)
        state, why = judge_day(
            entry, held=held, published=shown, made=made, now=of_day, data=day in data, rolled_back=gone
        )
        statuses.append(DayStatus(day=day, state=state, why=why, published=shown, entry=entry))
    return statuses


def _check_range(start: date, end: date) -> None:
    if start > end:
        raise InputError(f"--start {start}: is after --end {end}")
    if (end - start).days >= MAX_DAYS:
        raise InputError(f"--start {start}: {(end - start).days + 1:,} days up to {end}; ask for at most {MAX_DAYS:,}")


def _made_from(
    entry: Entry | None, shown: PublishedDay, settings: RunSettings, shaping: Mapping[str, Any]
) -> dict[str, Any]:
    """What the published rows were made from, by the journal if its entry is of that run, else by their commit.

    The journal also has the files of the inputs, even of a later run that read the same rows from other files.
    """
    if entry is not None and entry["state"] == "done" and entry["run_id"] == shown.run_id:
        return dict(entry["made_from"])
    summary = load_summary(settings, shown.run_id) if shown.run_id else None
    same_config = shown.commit.get("config_digest") == config_digest(shaping, (summary or {}).get("base"))
    config = section_digests(shaping) if same_config else None
    return {"code": shown.commit.get("code_version"), "config": config, "inputs": None}


def judge_day(
    entry: Entry | None,
    *,
    held: bool,
    published: PublishedDay | None,
    made: Mapping[str, Any],
    now: Mapping[str, Any],
    data: bool,
    rolled_back: int | None = None,
) -> tuple[str, str]:
    """The state of one day, and why. ``rolled_back`` is the version of the rollback that took it out of the table."""
    state = None if entry is None else entry["state"]
    if held:
        if entry is None or state != "running":
            return "running", "it starts"
        return "running", f"at {entry['stage']} since {entry['heartbeat'][:19]} UTC, pid {entry['pid']}"
    if entry is not None and state == "running":
        return "dead", f"killed at {entry['stage']}, last sign of life {entry['heartbeat'][:19]} UTC"
    if entry is not None and state in ("failed", "refused"):
        return entry["state"], f"exit {entry['exit_code']}: {entry['message']}"
    if published is not None:
        # Compaction moves rows between files. Whatever else another tool does may change them.
        compacted = published.rewritten is not None and published.rewritten.startswith("OPTIMIZE")
        foreign = [published.rewritten] if published.rewritten and not compacted else []
        if reasons := [*foreign, *stale_reasons(made, now)]:
            return "stale", "; ".join(reasons)
        unknown = [] if made.get("inputs") else ["its inputs were not recorded, so a change in them cannot be seen"]
        return "done", "; ".join([*([published.rewritten] if published.rewritten else []), *unknown])
    if rolled_back is not None:
        was = "" if entry is None or entry["version"] is None else f"was version {entry['version']}; "
        return "rolled-back", f"{was}taken out by the rollback of version {rolled_back}"
    if entry is not None:
        return "missing", f"was version {entry['version']}; beyond publish.keep_snapshots"
    return ("missing", "never run") if data else ("no-data", "no data of its own")


def stale_reasons(made: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed since the rows were made. What was not recorded counts as unchanged."""
    reasons = []
    if made.get("inputs"):
        reasons += changed_inputs(made["inputs"], now["inputs"]) if now["inputs"] else ["its inputs are gone"]
    if made.get("config") is None:
        reasons.append("config changed")
    elif made["config"] != now["config"]:
        both = made["config"].keys() | now["config"].keys()
        changed = sorted(name for name in both if made["config"].get(name) != now["config"].get(name))
        reasons.append(f"config changed: {', '.join(changed)}")
    if made.get("code") != now["code"]:
        reasons.append(f"code changed: {_short(made.get('code'))}, {_short(now['code'])} now")
    return reasons


def _short(version: str | None) -> str:
    """A code version with the first digits of its digest."""
    name, _, digest = (version or "unknown").partition("+")
    return f"{name}+{digest[:8]}" if digest else name

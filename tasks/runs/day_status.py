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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from tasks.errors import InputError
from tasks.runs.config import RunSettings
from tasks.runs.day_journal import Entry, is_held, read_days
from tasks.runs.folders import load_summary
from tasks.runs.identity import code_version, config_digest, section_digests
from tasks.source.config import SourceConfig
from tasks.source.fingerprints import Inputs, changed_inputs, input_fingerprints
from tasks.table.config import PublishConfig
from tasks.table.files import TableFiles, storage_errors
from tasks.table.log import LOOK, LogEntry, open_table, read_log, visible_files

STATES = ("done", "stale", "running", "dead", "failed", "refused", "rolled-back", "missing", "no-data")
MAX_DAYS = 3660


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedDay:
    """What the table shows for a day, and the commit that published it. ``rewritten`` names what another tool did to its files since."""

    version: int | None
    run_id: str | None
    rows: int
    commit: Mapping[str, Any]
    rewritten: str | None = None


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
    published: Mapping[date, PublishedDay],
    start: date | None,
    end: date | None,
) -> list[DayStatus]:
    """The state of every day from `start` to `end`, oldest first; `published` is what `published_days` returns.

    By default `end` is the newest day of the data or of the table. `start` goes back as many days as the table keeps, but not before
    the data. Raises InputError or StorageError.
    """
    inputs = Inputs.listed(source)
    entries, data = read_days(settings.folder, publish), set(inputs.days())
    known = sorted({*data, *published, *entries})
    if not known and (start is None or end is None):
        raise InputError(f"{source.interactions}: no day has data; give --start and --end")
    end = end or max(known[-1], start or known[-1])
    start = start or min(end, max(known[0], end - timedelta(days=publish.keep_snapshots - 1)))
    _check_range(start, end)
    now = {"code": code_version(), "config": section_digests(shaping)}
    statuses, rolled_back = [], rolled_back_days(publish)
    for day in (start + timedelta(days=x) for x in range((end - start).days + 1)):
        entry, shown, held = entries.get(day), published.get(day), is_held(settings.folder, publish, day)
        made = {} if shown is None else _made_from(entry, shown, settings, shaping)
        of_day = now | {"inputs": inputs.fingerprints(day)}
        gone = rolled_back.get(day)
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


def published_days(publish: PublishConfig) -> dict[date, PublishedDay]:
    """What the newest version of the table shows, by day, oldest first; empty without a table. Raises StorageError."""
    table = open_table(publish.uri)
    if table is None:
        return {}
    with storage_errors(publish.uri, "reading its versions", LOOK):
        files, log = visible_files(table), read_log(TableFiles(publish.uri))
    commits, changes = _publishing_commits(log)
    days = {}
    for day in sorted({file.day for file in files}):
        of_day = [file for file in files if file.day == day]
        commit = commits.get(day)
        days[date.fromisoformat(day)] = PublishedDay(
            version=None if commit is None else commit.version,
            run_id=of_day[0].run_id or (None if commit is None else commit.info["run_id"]),
            rows=sum(file.rows or 0 for file in of_day),
            commit={} if commit is None else commit.info,
            rewritten=changes.get(day),
        )
    return days


def _publishing_commits(log: Sequence[LogEntry]) -> tuple[dict[str, LogEntry], dict[str, str]]:
    """Of each day the commit whose rows the table shows, and what another tool did to the day's files since, in words."""
    of_path: dict[str, LogEntry] = {}
    commits: dict[str, LogEntry] = {}
    changes: dict[str, str] = {}
    for entry in log:
        operation = str(entry.info.get("operation", "unknown"))
        for path, day in entry.added.items():
            if "run_id" in entry.info:
                commits[day] = of_path[path] = entry
                changes.pop(day, None)
            elif operation == "RESTORE" and path in of_path:
                commits[day] = of_path[path]
                changes.pop(day, None)
            elif day in commits:
                # The rows of a file that another tool wrote are still those of the day's run, as it read them.
                of_path[path] = commits[day]
                changes[day] = f"{operation} of another tool in version {entry.version}"
    return commits, changes


def rolled_back_days(publish: PublishConfig) -> dict[date, int]:
    """The days that a rollback took out of the table, and the version of the rollback. Raises StorageError."""
    if open_table(publish.uri) is None:
        return {}
    with storage_errors(publish.uri, "reading its versions", LOOK):
        log = read_log(TableFiles(publish.uri))
    shown: dict[str, str] = {}
    gone: dict[str, int] = {}
    for entry in log:
        before = set(shown.values())
        shown = {path: day for path, day in shown.items() if path not in entry.removed} | entry.added
        now = set(shown.values())
        if entry.info.get("operation") == "RESTORE":
            gone |= dict.fromkeys(before - now, entry.version)
        gone = {day: version for day, version in gone.items() if day not in now}
    return {date.fromisoformat(day): version for day, version in sorted(gone.items())}


def latest_day(published: Mapping[date, PublishedDay]) -> str | None:
    """The newest day of the table, which readers get by default."""
    return max(published).isoformat() if published else None


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

"""Which days a backfill runs and why, and whether the table has room for them. Nothing is computed here."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from tasks.errors import InputError
from tasks.runs.day_journal import entry_version
from tasks.runs.day_status import STATES, DayStatus

DEFAULT = ("missing", "failed")
REPROCESS = {
    "missing": frozenset({"missing", "dead"}),
    "failed": frozenset({"failed", "refused", "dead"}),
    "stale": frozenset({"stale"}),
    "rolled-back": frozenset({"rolled-back"}),
    "all": frozenset(STATES) - {"running", "no-data"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDay:
    """One day: its state and why, whether it runs and why, and the `entry_version` of the day's entry that the plan has seen."""

    day: date
    state: str
    why: str
    run: bool
    reason: str
    seen: str

    @property
    def values(self) -> dict[str, Any]:
        """The day as JSON values."""
        names = {"day": self.day.isoformat(), "state": self.state, "why": self.why}
        return names | {"action": "run" if self.run else "skip", "reason": self.reason}


def parse_reprocess(text: str | None, *, force: bool) -> frozenset[str]:
    """The states to run, from the values of `--reprocess` and `--force`. Raises InputError that names the option."""
    if force and text not in (None, "all"):
        raise InputError(f"--force, --reprocess {text}: give one of the two; --force is --reprocess all")
    names = ["all"] if force else list(DEFAULT) if text is None else [x.strip() for x in text.split(",")]
    strange = next((x for x in names if x not in REPROCESS), None)
    if strange is not None:
        raise InputError(f"--reprocess {strange}: wanted {', '.join(REPROCESS)}, or several by commas")
    return frozenset().union(*(REPROCESS[x] for x in names))


def plan_days(
    days: Iterable[DayStatus], wanted: Collection[str], today: date, *, newest_first: bool = False
) -> list[PlannedDay]:
    """The plan of each day, in the order of running. Days in a `wanted` state run, but none after `today`: its events are not all there."""
    return [
        PlannedDay(
            day=day.day,
            state=day.state,
            why=day.why,
            run=day.state in wanted and day.day <= today,
            reason=_reason(day, wanted, today),
            seen=entry_version(day.entry),
        )
        for day in sorted(days, key=lambda day: day.day, reverse=newest_first)
    ]


def _reason(day: DayStatus, wanted: Collection[str], today: date) -> str:
    if day.state in wanted and day.day <= today:
        return f"is {day.state}"
    if day.state == "running":
        return "another run works on it"
    if day.state == "no-data":
        return "has no data of its own"
    if day.day > today:
        return "is after today; rectify --allow-future runs it"
    option = next(name for name, states in REPROCESS.items() if day.state in states)
    return f"is {day.state}; --reprocess {option} runs it"


def dropped_days(plan: Iterable[PlannedDay], shown: Iterable[date], keep_snapshots: int) -> list[date]:
    """The days in the table that the plan pushes out: the table keeps the newest `keep_snapshots` days.

    Raises InputError if a day that would run is itself too old to stay.
    """
    run = {planned.day for planned in plan if planned.run}
    newest_first = sorted(run | set(shown), reverse=True)
    kept, gone = newest_first[:keep_snapshots], newest_first[keep_snapshots:]
    lost = sorted(run & set(gone))
    if lost:
        raise InputError(
            f"publish.keep_snapshots: the table keeps {keep_snapshots} days, here {min(kept)} to {max(kept)}, and {len(lost)} of the"
            f" {len(run)} days to run are older ({_span(lost)}): they would be dropped; raise it to {newest_first.index(lost[0]) + 1}"
            f" or start at {min(kept)}"
        )
    return sorted(gone)


def expected_seconds(days: Iterable[DayStatus]) -> float | None:
    """The median seconds of the days that earlier runs computed, None without any."""
    known = [day.seconds for day in days if day.seconds is not None]
    return statistics.median(known) if known else None


def windows(plan: Iterable[PlannedDay], parallel: int) -> list[list[PlannedDay]]:
    """The days to run, `parallel` at a time."""
    run = [planned for planned in plan if planned.run]
    return [run[at : at + parallel] for at in range(0, len(run), parallel)]


def exit_code(codes: Iterable[int]) -> int:
    """One exit status for all days: that of the failed days if they agree, else 1."""
    failed = set(codes) - {0}
    return 0 if not failed else failed.pop() if len(failed) == 1 else 1


def _span(days: Sequence[date]) -> str:
    return f"{days[0]}" if len(days) == 1 else f"{days[0]} to {days[-1]}"

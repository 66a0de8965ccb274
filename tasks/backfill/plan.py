"""What a backfill would do to each day, and whether the table has room for it: decided before anything is spent."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from tasks.errors import InputError
from tasks.runs.day_journal import mark
from tasks.runs.day_status import STATES, DayStatus

DEFAULT = ("missing", "failed")
REPROCESS = {
    "missing": frozenset({"missing", "dead"}),
    "failed": frozenset({"failed", "refused", "dead"}),
    "stale": frozenset({"stale"}),
    "all": frozenset(STATES) - {"running", "no-data"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDay:
    """One day: its state and why, whether it is run and in words why or why not; ``since`` is the ``mark`` of its journal's entry."""

    day: date
    state: str
    why: str
    run: bool
    reason: str
    since: str

    @property
    def values(self) -> dict[str, Any]:
        """As JSON."""
        action = "run" if self.run else "skip"
        return {
            "day": self.day.isoformat(),
            "state": self.state,
            "why": self.why,
            "action": action,
            "reason": self.reason,
        }


def parse_reprocess(text: str | None, *, force: bool) -> frozenset[str]:
    """The states to run, from ``missing,failed`` or the like and ``--force``. Raises InputError naming the option."""
    if force and text not in (None, "all"):
        raise InputError(f"--force, --reprocess {text}: give one of the two; --force is --reprocess all")
    names = ["all"] if force else list(DEFAULT) if text is None else [x.strip() for x in text.split(",")]
    strange = next((x for x in names if x not in REPROCESS), None)
    if strange is not None:
        raise InputError(f"--reprocess {strange}: wanted {', '.join(REPROCESS)}, or several by commas")
    return frozenset().union(*(REPROCESS[x] for x in names))


def plan_days(days: Iterable[DayStatus], wanted: Collection[str], *, newest_first: bool = False) -> list[PlannedDay]:
    """Each day once, in the order in which they are run: those in a ``wanted`` state are."""
    order = sorted(days, key=lambda x: x.day, reverse=newest_first)
    return [
        PlannedDay(
            day=x.day, state=x.state, why=x.why, run=x.state in wanted, reason=_reason(x, wanted), since=mark(x.entry)
        )
        for x in order
    ]


def _reason(day: DayStatus, wanted: Collection[str]) -> str:
    if day.state in wanted:
        return f"is {day.state}"
    if day.state == "running":
        return "another run is at it"
    if day.state == "no-data":
        return "has no data of its own"
    option = next(name for name, states in REPROCESS.items() if day.state in states)
    return f"is {day.state}; --reprocess {option} runs it"


def dropped_days(plan: Iterable[PlannedDay], shown: Iterable[date], keep_snapshots: int) -> list[date]:
    """The days that the table shows, are not run, and would go because newer ones come: it keeps the newest ``keep_snapshots``.

    Raises InputError where a day that would be run is itself too old to stay.
    """
    run, there = {x.day for x in plan if x.run}, set(shown)
    newest_first = sorted(run | there, reverse=True)
    kept, gone = newest_first[:keep_snapshots], newest_first[keep_snapshots:]
    lost = sorted(run & set(gone))
    if lost:
        raise InputError(
            f"publish.keep_snapshots: the table keeps {keep_snapshots} days, here {min(kept)} to {max(kept)}, and {len(lost)} of the"
            f" {len(run)} days to run are older ({_span(lost)}): they would be dropped again; raise it to {newest_first.index(lost[0]) + 1}"
            f" or start at {min(kept)}"
        )
    return sorted(gone)


def expected_seconds(days: Iterable[DayStatus]) -> float | None:
    """What a day may take, by the days of the table that were computed before; None where none was."""
    known = [x.seconds for x in days if x.seconds is not None]
    return statistics.median(known) if known else None


def windows(plan: Iterable[PlannedDay], parallel: int) -> list[list[PlannedDay]]:
    """The days to run, so many at a time."""
    run = [x for x in plan if x.run]
    return [run[at : at + parallel] for at in range(0, len(run), parallel)]


def exit_code(codes: Iterable[int]) -> int:
    """One status for all days: the failed days' own where they agree, else 1."""
    failed = set(codes) - {0}
    return 0 if not failed else failed.pop() if len(failed) == 1 else 1


def _span(days: Sequence[date]) -> str:
    return f"{days[0]}" if len(days) == 1 else f"{days[0]} to {days[-1]}"

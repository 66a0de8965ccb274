"""Days as lines for a terminal: their states, and what a backfill would do or did."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any


def told_status(found: Mapping[str, Any]) -> str:
    """A line a day, oldest first, and how many of each state."""
    lines = [f"{'day':10}  {'':3}  {'state':8}  {'version':>7}  {'rows':>11}  {'seconds':>8}  why"]
    for x in found["days"]:
        version, rows, seconds = (
            _number(x[name], digits) for name, digits in (("version", 0), ("rows", 0), ("seconds", 1))
        )
        line = f"{x['day']}  {date.fromisoformat(x['day']):%a}  {x['state']:8}  {version:>7}  {rows:>11}  {seconds:>8}  {x['why']}"
        lines.append(line.rstrip())
    counts = ", ".join(f"{count} {state}" for state, count in found["counts"].items())
    latest = f"latest {found['latest']}" if found["latest"] else "nothing published"
    lines.append(f"{found['start']} to {found['end']}: {counts}; {latest}; table {found['table']}")
    return "\n".join([*lines, *([f"picture: {found['picture']}"] if found["picture"] else [])])


def told_plan(found: Mapping[str, Any]) -> str:
    """What a backfill would do to each day."""
    lines = [
        f"{x['day']}  {x['state']:8}  {x['action']:4}  {x['reason']}" + (f": {x['why']}" if x["why"] else "")
        for x in found["days"]
    ]
    time = "" if found["expected_seconds"] is None else f", about {duration(found['expected_seconds'])}"
    lines.append(
        f"{found['to_run']} of {len(found['days'])} days would run, {found['parallel']} at a time{time}; nothing was done"
    )
    return "\n".join(lines + dropped_lines(found))


def told_backfill(found: Mapping[str, Any]) -> str:
    """What became of each day."""
    lines = [_outcome(x) for x in found["days"]]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found["counts"].items()) or "nothing to do"
    lines.append(
        f"{found['start']} to {found['end']}: {counts} in {duration(found['seconds'])}; latest {found['latest'] or 'none'}"
    )
    return "\n".join(lines + dropped_lines(found))


def dropped_lines(found: Mapping[str, Any]) -> list[str]:
    """A warning where days leave the table to make room."""
    gone = found["dropped"]
    if not gone:
        return []
    which = gone[0] if len(gone) == 1 else f"{gone[0]} to {gone[-1]}"
    return [f"warning: publish.keep_snapshots: the newest days push {len(gone)} out of the table: {which}"]


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _outcome(x: Mapping[str, Any]) -> str:
    if x["outcome"] == "skipped":
        return f"{x['day']}  skipped    {x['reason']}"
    if x["exit_code"]:
        return f"{x['day']}  {x['outcome']:9}  exit {x['exit_code']}: {x['message']}"
    return f"{x['day']}  {x['outcome']:9}  version {x['version']}, {x['rows']:,} rows, {duration(x['seconds'])}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"

"""Text for the terminal: the states of days, and what a backfill would do or did."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any


def status_text(values: Mapping[str, Any]) -> str:
    """One line for each day, oldest first, and the number of days in each state."""
    columns = "{:10}  {:3}  {:11}  {:>7}  {:>11}  {:>8}  {}"
    lines = [columns.format("day", "", "state", "version", "rows", "seconds", "why")]
    for x in values["days"]:
        numbers = _number(x["version"], 0), _number(x["rows"], 0), _number(x["seconds"], 1)
        weekday = f"{date.fromisoformat(x['day']):%a}"
        lines.append(columns.format(x["day"], weekday, x["state"], *numbers, x["why"]).rstrip())
    counts = ", ".join(f"{count} {state}" for state, count in values["counts"].items())
    latest = f"latest {values['latest']}" if values["latest"] else "nothing published"
    lines.append(f"{values['start']} to {values['end']}: {counts}; {latest}; table {values['table']}")
    return "\n".join([*lines, *([f"picture: {values['picture']}"] if values["picture"] else [])])


def _plan_text(values: Mapping[str, Any]) -> str:
    lines = [
        f"{x['day']}  {x['state']:11}  {x['action']:4}  {x['reason']}" + (f": {x['why']}" if x["why"] else "")
        for x in values["days"]
    ]
    time = "" if values["expected_seconds"] is None else f", about {duration(values['expected_seconds'])}"
    lines.append(
        f"{values['to_run']} of {len(values['days'])} days would run, {values['parallel']} at a time{time}; nothing was done"
    )
    return "\n".join(lines + dropped_lines(values))


def backfill_text(values: Mapping[str, Any]) -> str:
    """What a backfill did to each day, or would do."""
    if values.get("dry_run"):
        return _plan_text(values)
    lines = [_outcome(x) for x in values["days"]]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in values["counts"].items()) or "nothing to do"
    lines.append(
        f"{values['start']} to {values['end']}: {counts} in {duration(values['seconds'])}; latest {values['latest'] or 'none'}"
    )
    return "\n".join(lines + dropped_lines(values))


def dropped_lines(values: Mapping[str, Any]) -> list[str]:
    """A warning if days leave the table to make room."""
    dropped = values["dropped"]
    if not dropped:
        return []
    which = dropped[0] if len(dropped) == 1 else f"{dropped[0]} to {dropped[-1]}"
    return [f"warning: publish.keep_snapshots: the newest days push {len(dropped)} out of the table: {which}"]


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

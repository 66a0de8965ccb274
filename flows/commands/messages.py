"""The results of commands as text. ``--json`` gives the same as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_night(result: Mapping[str, Any]) -> str:
    """What a night published, and what it found."""
    from tasks.report.phrases import offset_phrase, rate_phrase, sequence_phrase, stretch_phrase

    done = "published" if result["published"] else "nothing new:"
    lines = [f"{result['as_of']}: {done} version {result['version']} of {result['table']}, {result['rows']:,} rows"]
    if "incremental" in result:
        lines.append(
            f"  incremental: {'computes everything: ' if result['incremental']['base'] is None else ''}{result['incremental']['reason']}"
        )
    for name, x in result["modalities"].items():
        rate = f"{rate_phrase(x)} mismatched" if x["identifiable"] else f"no estimate: {x['reason']}"
        rate += f", {stretch_phrase(x)}" if x["identifiable"] and stretch_phrase(x) else ""
        counts = ", ".join(
            f"{x[status]:,} {status.replace('_', ' ')}"
            for status in ("rectified", "passed_through", "imputed", "missing")
        )
        lines.append(f"  {name}: {rate}; {counts}")
        if "sequence" in x:
            lines.append(f"    {sequence_phrase(x['sequence'])}")
    lines += [f"  {offset_phrase(x)}" for x in result["time_offsets"]]
    lines += [format_refresh(result["feature_store"])] if "feature_store" in result else []
    return "\n".join([*lines, f"report: {result['report']}"])


def format_versions(result: Mapping[str, Any]) -> str:
    """The versions of a table, newest first."""
    lines = [f"{'version':>7}  {'committed (UTC)':19}  {'operation':9}  {'as_of':10}  {'rows':>9}  run"]
    for x in result["versions"]:
        version, when = ("*" if x["current"] else " ") + str(x["version"]), x["timestamp"][:19]
        rows = f"{x['rows']:,}" if x["rows"] is not None else "-"
        lines.append(
            f"{version:>7}  {when}  {x['operation']:9}  {x['as_of'] or '-':10}  {rows:>9}  {x['run_id'] or '-'}"
        )
    return "\n".join(lines)


def format_evaluation(result: Mapping[str, Any]) -> str:
    """What was done, in words."""
    lines = [f"{result['cells']:,} cells, {result['reused']:,} of them from before; results: {result['results']}"]
    return "\n".join(lines + ([f"report: {result['report']}"] if result["report"] else []))


def format_export(result: Mapping[str, Any]) -> str:
    """What was written where."""
    done = "already there:" if result["reused"] else "exported"
    what = f"{done} version {result['version']} as of {result['as_of']} as {result['format']}"
    return f"{what}: {result['rows']:,} rows, {result['files']} files, {result['bytes']:,} bytes in {result['out']}"


_REFRESHED = {
    "rows": "now serves",
    "links": "serves the same rows online, now as part of",
    "unchanged": "already serves",
    "superseded": "serves a newer version than the one asked for:",
}


def format_refresh(result: Mapping[str, Any]) -> str:
    """What readers of the feature store get."""
    what = f"version {result['version']} as of {result['as_of']}, {result['rows']:,} rows of {', '.join(result['modalities'])}"
    return f"feature store {result['folder']} ({result['online']}) {_REFRESHED[result['done']]} {what}; {result['seconds']:.1f} s"


def format_rollback(result: Mapping[str, Any]) -> str:
    """What the table shows again, and what readers of the feature store get."""
    done = f"the table shows version {result['to']} again, as version {result['version']}"
    lines = [done if result["published"] else f"the table already shows {result['to']}"]
    return "\n".join(lines + ([format_refresh(result["feature_store"])] if "feature_store" in result else []))

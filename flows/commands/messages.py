"""The results of commands as text. ``--json`` gives the same as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_night(found: Mapping[str, Any]) -> str:
    """What a night published, and what it found."""
    from tasks.report.phrases import offset_phrase, rate_phrase, sequence_phrase, stretch_phrase

    done = "published" if found["published"] else "nothing new:"
    lines = [f"{found['as_of']}: {done} version {found['version']} of {found['table']}, {found['rows']:,} rows"]
    if "incremental" in found:
        lines.append(
            f"  incremental: {'computes everything: ' if found['incremental']['base'] is None else ''}{found['incremental']['reason']}"
        )
    for name, x in found["modalities"].items():
        rate = f"{rate_phrase(x)} mismatched" if x["identifiable"] else f"no estimate: {x['reason']}"
        rate += f", {stretch_phrase(x)}" if x["identifiable"] and stretch_phrase(x) else ""
        counts = ", ".join(
            f"{x[status]:,} {status.replace('_', ' ')}"
            for status in ("rectified", "passed_through", "imputed", "missing")
        )
        lines.append(f"  {name}: {rate}; {counts}")
        if "sequence" in x:
            lines.append(f"    {sequence_phrase(x['sequence'])}")
    lines += [f"  {offset_phrase(x)}" for x in found["time_offsets"]]
    lines += [format_refresh(found["feature_store"])] if "feature_store" in found else []
    return "\n".join([*lines, f"report: {found['report']}"])


def format_versions(found: Mapping[str, Any]) -> str:
    """The versions of a table, newest first."""
    lines = [f"{'version':>7}  {'committed (UTC)':19}  {'operation':9}  {'as_of':10}  {'rows':>9}  run"]
    for x in found["versions"]:
        version, when = ("*" if x["current"] else " ") + str(x["version"]), x["timestamp"][:19]
        rows = f"{x['rows']:,}" if x["rows"] is not None else "-"
        lines.append(
            f"{version:>7}  {when}  {x['operation']:9}  {x['as_of'] or '-':10}  {rows:>9}  {x['run_id'] or '-'}"
        )
    return "\n".join(lines)


def format_evaluation(found: Mapping[str, Any]) -> str:
    """What was done, in words."""
    lines = [f"{found['cells']:,} cells, {found['reused']:,} of them from before; results: {found['results']}"]
    return "\n".join(lines + ([f"report: {found['report']}"] if found["report"] else []))


def format_export(found: Mapping[str, Any]) -> str:
    """What was written where."""
    done = "already there:" if found["reused"] else "exported"
    what = f"{done} version {found['version']} as of {found['as_of']} as {found['format']}"
    return f"{what}: {found['rows']:,} rows, {found['files']} files, {found['bytes']:,} bytes in {found['out']}"


_REFRESHED = {
    "rows": "now serves",
    "links": "serves the same rows online, now as part of",
    "unchanged": "already serves",
    "superseded": "serves a newer version than the one asked for:",
}


def format_refresh(found: Mapping[str, Any]) -> str:
    """What readers of the feature store get."""
    what = (
        f"version {found['version']} as of {found['as_of']}, {found['rows']:,} rows of {', '.join(found['modalities'])}"
    )
    return f"feature store {found['folder']} ({found['online']}) {_REFRESHED[found['done']]} {what}; {found['seconds']:.1f} s"


def format_rollback(found: Mapping[str, Any]) -> str:
    """What the table shows again, and what readers of the feature store get."""
    done = f"the table shows version {found['to']} again, as version {found['version']}"
    lines = [done if found["published"] else f"the table already shows {found['to']}"]
    return "\n".join(lines + ([format_refresh(found["feature_store"])] if "feature_store" in found else []))

"""The results of commands as text. ``--json`` gives the same as values."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def program() -> str:
    """The command as it can be typed again: the installed one, with its folder unless PATH has that, or the module."""
    called = Path(sys.argv[0])
    if called.name != "catalog-rectifier":
        return "python -m flows"
    found = shutil.which(called.name)
    return called.name if found is not None and called.exists() and called.samefile(found) else str(called)


def format_night(result: Mapping[str, Any]) -> str:
    """What a night published, and what it found."""
    from tasks.report.phrases import (
        moved_phrase,
        offset_phrase,
        rate_phrase,
        sequence_phrase,
        stretch_phrase,
    )

    done = "published" if result["published"] else "nothing new:"
    lines = [f"{result['as_of']}: {done} version {result['version']} of {result['table']}, {result['rows']:,} rows"]
    if "incremental" in result:
        lines.append(
            f"  incremental: {'computes everything: ' if result['incremental']['base'] is None else ''}{result['incremental']['reason']}"
        )
    for name, x in result["modalities"].items():
        rate = f"{rate_phrase(x)} mismatched" if x["identifiable"] else f"no estimate: {x['reason']}"
        rate += f", {stretch_phrase(x)}" if x["identifiable"] and stretch_phrase(x) else ""
        lines.append(f"  {name}: {rate}; {moved_phrase(x['moved'])}")
        if "sequence" in x:
            lines.append(f"    {sequence_phrase(x['sequence'])}")
    lines += [f"  {offset_phrase(x)}" for x in result["time_offsets"]]
    lines += [f"  warning: {x}" for x in result["warnings"]]
    lines += [format_refresh(result["feature_store"])] if "feature_store" in result else []
    return "\n".join([*lines, f"report: {result['report']}"])


def format_versions(result: Mapping[str, Any]) -> str:
    """The versions of a table, newest first: what each did, and which can be restored."""
    heading = ("version", "committed (UTC)", "what", "day", "days", "rows", "changed clearly", "restorable", "run")
    rows = [heading, *(_version_row(x) for x in result["versions"])]
    widths = [max(len(row[at]) for row in rows) for at in range(len(heading))]
    numbers = {0, 4, 5}  # right-aligned
    return "\n".join(
        "  ".join(
            text.rjust(width) if at in numbers else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _version_row(x: Mapping[str, Any]) -> tuple[str, ...]:
    what = x["operation"] if x["restored_version"] is None else f"{x['operation']} to {x['restored_version']}"
    restorable = "shown now" if x["current"] else "yes" if x["restorable"] else "no: files deleted"
    rows = "-" if x["rows"] is None else f"{x['rows']:,}"
    day = x["as_of"] or (x["days"][-1] if x["days"] else "-")
    when = x["timestamp"][:16].replace("T", " ")
    version = f"{'*' if x['current'] else ''}{x['version']}"
    moved = {m: facts["moved"]["more_than_0.1"] for m, facts in x["modalities"].items() if "moved" in facts}
    changed = ", ".join(f"{m} {clearly:,}" for m, clearly in moved.items()) or "-"
    return version, when, what, day, str(len(x["days"])), rows, changed, restorable, x["run_id"] or "-"


def format_validation(result: Mapping[str, Any]) -> str:
    """What each column is taken for, and what is wrong."""
    lines = [f"{result['config']}" + (f": as of {result['as_of']}" if result["as_of"] else "")]
    lines += [f"  {x['input']} {x['column']}: {x['taken_for']}" for x in result["readings"]]
    if result["ids"] is not None:
        known, looked_at = (f"{result['ids'][x]:,}" for x in ("known", "looked_at"))
        lines.append(f"  ids: {known} of {looked_at} item ids of the log's last file are in the catalog")
    lines += [f"  warning: {x}" for x in result["warnings"]]
    lines += [f"  mistake: {x}" for x in result["problems"]]
    if not result["problems"]:
        lines += ["no mistake found", f"next: {program()} rectify --config {shlex.quote(result['config'])}"]
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


def format_audit(result: dict[str, Any]) -> str:
    """What an audit found."""
    from tasks.audit.explanations import describe_audit

    return describe_audit(result)


def format_comparison(result: Mapping[str, Any]) -> str:
    """How far an incremental night is from a cold one."""
    from tasks.compare.compare_runs import comparison_page

    return "\n".join([*comparison_page(result), "", f"written to {result['page']}"])


def format_demo(result: Mapping[str, Any]) -> str:
    """Where the demo is, and the next command."""
    folder = result["folder"]
    return f"demo catalog of {result['last_day']} written to {folder}; run it with: {program()} rectify --config {folder}/run.toml"


def format_init(result: dict[str, Any]) -> str:
    """What the first config holds, and what to do next."""
    from tasks.first_config.write import describe_first_config

    return describe_first_config(result, program())


def format_score(result: dict[str, Any]) -> str:
    """How well a run found what the demo planted."""
    from tasks.demo.score import describe_score

    return describe_score(result)


def format_server_start(result: Mapping[str, Any]) -> str:
    """Where the server is, and the commands that fit it."""
    stop = f"{program()} server stop" + (
        "" if result["default_folder"] else f" --folder {shlex.quote(result['folder'])}"
    )
    return "\n".join(
        [
            f"Prefect is ready after {result['seconds']} s: {result['ui']}",
            f"  deployments: {', '.join(result['deployments'])}; data and logs in {result['folder']}",
            f"  in your shell, first:  export PREFECT_API_URL={result['ui']}/api",
            f"  run the night now:     {result['prefect']} deployment run rectify/nightly -p as_of=YYYY-MM-DD",
            f"  stop it:               {stop}",
        ]
    )


def format_server_stop(result: Mapping[str, Any]) -> str:
    """Whether anything was stopped."""
    return "stopped" if result["stopped"] else f"nothing runs in {result['folder']}"


def format_server_status(result: Mapping[str, Any]) -> str:
    """Whether the server and a worker are up."""
    if not result["server"]:
        return f"no server answers at port {result['port']}"
    return f"server up, worker {'up' if result['worker'] else 'down'}: {result['ui']}"

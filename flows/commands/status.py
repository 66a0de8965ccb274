"""``python -m flows status``: what state each day is in, as a table, as JSON, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.shared import AsJson, ConfigFile, Debug, Overrides, given_day, read_run_config, run_command

Start = Annotated[
    str | None, typer.Option("--start", help="The first day, YYYY-MM-DD; as many days as the table keeps by default.")
]
End = Annotated[
    str | None,
    typer.Option("--end", help="The last day, YYYY-MM-DD; the newest of the data or of the table by default."),
]


def status(
    config: ConfigFile,
    start: Start = None,
    end: End = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw the days into this PNG or SVG file.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say for each day whether it is done, stale, missing, failed, refused, running or dead, and why."""

    def work() -> dict[str, Any]:
        from tasks.runs.day_status import STATES, latest_day, published_days, read_status

        settings = read_run_config(config, overrides)
        first, last = given_day(start, "--start"), given_day(end, "--end")
        shown = published_days(settings.publish)
        days = read_status(settings.source, settings.publish, settings.run, settings.shaping, shown, first, last)
        if picture is not None:
            from tasks.runs.day_picture import draw_days

            draw_days(days, picture)
        return {
            "table": settings.publish.uri,
            "start": days[0].day.isoformat(),
            "end": days[-1].day.isoformat(),
            "latest": latest_day(shown),
            "counts": {state: count for state in STATES if (count := sum(x.state == state for x in days))},
            "days": [x.values for x in days],
            "picture": None if picture is None else str(picture),
        }

    def format_status(result: dict[str, Any]) -> str:
        from tasks.runs.day_text import status_text

        return status_text(result)

    run_command(work, as_json, debug, format_status)

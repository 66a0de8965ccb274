"""``freshness``, ``metrics`` and ``status``: whether the table is late, its metrics over HTTP, and the state of each day."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import typer

from flows.commands.shared import FailedInPart, GivenConfig, Serving, command, given_day
from tasks.runs.day_text import status_text

DEFAULT_PORT = 9464


@command(lambda result: str(result["message"]), prefect=True)
def freshness(
    config: GivenConfig,
    within: Annotated[
        float | None,
        typer.Option(
            "--within", help="Hours since the newest day ended that are not late; alerts.late_after_hours by default."
        ),
    ] = None,
) -> dict[str, Any] | FailedInPart:
    """Say how new the newest published day is; exit status 1 where it is late, with an event to Prefect where a server is configured."""
    from flows.freshness import check_freshness

    result = check_freshness(config.read(), within)
    return FailedInPart(result, 1, result["message"], repeats=True) if result["late"] else result


@command(lambda result: f"metrics: {result['url']}")
def metrics(
    config: GivenConfig,
    port: Annotated[
        int, typer.Option("--port", help="The port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = DEFAULT_PORT,
) -> Serving:
    """Serve the table's metrics to Prometheus until stopped; every scrape reads the table again."""
    from tasks.observe.metrics import serve_metrics

    stop, serving = Event(), ExitStack()
    url = serving.enter_context(serve_metrics(config.read().watch, port))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def serve() -> None:
        with serving:
            stop.wait()

    return Serving({"url": url}, serve)


@command(status_text)
def status(
    config: GivenConfig,
    start: Annotated[
        str | None,
        typer.Option("--start", help="The first day, YYYY-MM-DD; as many days as the table keeps by default."),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--end", help="The last day, YYYY-MM-DD; the newest of the data or of the table by default."),
    ] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw the days into this PNG or SVG file.")] = None,
) -> dict[str, Any]:
    """Say for each day whether it is done, stale, missing, failed, refused, running or dead, and why."""
    from tasks.runs.day_status import STATES, read_status
    from tasks.runs.table_days import read_table_days

    settings = config.read()
    first, last = given_day(start, "--start"), given_day(end, "--end")
    table = read_table_days(settings.publish)
    days = read_status(settings.source, settings.publish, settings.run, settings.shaping, table, first, last)
    if picture is not None:
        from tasks.runs.day_picture import draw_days

        draw_days(days, picture)
    return {
        "table": settings.publish.uri,
        "start": days[0].day.isoformat(),
        "end": days[-1].day.isoformat(),
        "latest": table.latest,
        "counts": {state: count for state in STATES if (count := sum(x.state == state for x in days))},
        "days": [x.values for x in days],
        "picture": None if picture is None else str(picture),
    }

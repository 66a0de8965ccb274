"""``python -m flows freshness`` and ``metrics``: whether the table is late, and its metrics over HTTP."""

from __future__ import annotations

import json
import signal
from threading import Event
from typing import Annotated, Any

import typer

from flows.commands.shared import (
    AsJson,
    ConfigFile,
    Debug,
    Overrides,
    end_with,
    read_run_config,
    run_command,
)

DEFAULT_PORT = 9464


def freshness(
    config: ConfigFile,
    within: Annotated[
        float | None,
        typer.Option(
            "--within", help="Hours since the newest day ended that are not late; alerts.late_after_hours by default."
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say how new the newest published day is; exit status 1 where it is late, with an event to Prefect where a server is configured."""
    late: list[str] = []

    def work() -> dict[str, Any]:
        from flows.freshness import check_freshness

        result = check_freshness(config, overrides or (), within)
        late.extend([result["message"]] if result["late"] else [])
        return result

    run_command(work, as_json, debug, lambda result: str(result["message"]), prefect=True)
    if late:
        end_with(1, late[0])


def metrics(
    config: ConfigFile,
    port: Annotated[
        int, typer.Option("--port", help="The port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = DEFAULT_PORT,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Serve the table's metrics to Prometheus until stopped; every scrape reads the table again."""
    stop = Event()

    def work() -> dict[str, Any]:
        from tasks.observe.metrics import serve_metrics

        settings = read_run_config(config, overrides)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with serve_metrics(settings.watch, port) as url:
            typer.echo(json.dumps({"url": url}) if as_json else f"metrics: {url}")
            stop.wait()
        return {"url": url}

    run_command(work, as_json, debug, lambda found: f"stopped serving {found['url']}")

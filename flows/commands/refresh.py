"""``python -m flows refresh``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.commands.shared import (
    AsJson,
    ConfigFile,
    Debug,
    Overrides,
    hide_tracebacks,
    printed_progress,
    read_run_config,
    run_command,
    set_prefect_defaults,
    told_by,
)


def refresh(
    config: ConfigFile,
    version: Annotated[
        int | None, typer.Option("--version", help="The version to serve; the newest by default.")
    ] = None,
    allow_older: Annotated[
        bool,
        typer.Option("--allow-older", help="Serve it though a newer version, a later day or another table is served."),
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Let readers of the feature store have another version of the table."""

    def work() -> dict[str, Any]:
        set_prefect_defaults()
        settings = read_run_config(config, overrides)
        from flows.refresh import refresh_now

        if not debug:
            hide_tracebacks()
        return refresh_now(settings, version, "serve" if allow_older else "refuse", printed_progress())

    run_command(work, as_json, debug, told_by("told_refresh"))

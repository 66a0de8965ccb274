"""``python -m flows server``: start, stop and register a Prefect server and a worker on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.shared import AsJson, Debug, read_run_config, run_command
from flows.prefect_settings import set_prefect_defaults

Folder = Annotated[Path, typer.Option("--folder", help="Folder of the server's database, settings and logs.")]
Config = Annotated[Path, typer.Option("--config", help="The run config that the deployments use by default.")]
Port = Annotated[int, typer.Option("--port", help="Port of the server on 127.0.0.1.", min=1, max=65535)]

server = typer.Typer(
    no_args_is_help=True, help="A Prefect server and a worker on this machine, with every deployment registered."
)


@server.command()
def start(
    config: Config,
    folder: Folder = Path(".prefect"),
    port: Port = 4200,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start what does not run yet, wait until it is ready, and register all deployments."""

    def work() -> dict[str, Any]:
        settings = read_run_config(config, None)
        from flows.server.local import LocalServer

        return LocalServer(folder.absolute(), port).start(config.absolute(), settings)

    def format_start(result: dict[str, Any]) -> str:
        return "\n".join(
            [
                f"Prefect is ready after {result['seconds']} s: {result['ui']}",
                f"  deployments: {', '.join(result['deployments'])}; data and logs in {result['folder']}",
                "  run the night now:      prefect deployment run rectify/nightly -p as_of=YYYY-MM-DD",
                f"  from any shell, first:  export PREFECT_API_URL={result['ui']}/api",
                "  stop it:                make stop",
            ]
        )

    run_command(work, as_json, debug, format_start)


@server.command()
def stop(folder: Folder = Path(".prefect"), as_json: AsJson = False, debug: Debug = False) -> None:
    """Stop the server, the worker and their runs. A run that was stopped is taken over when the server is back."""

    def work() -> dict[str, Any]:
        from flows.server.local import LocalServer

        return {"stopped": LocalServer(folder.absolute()).stop()}

    run_command(work, as_json, debug, lambda result: "stopped" if result["stopped"] else f"nothing runs in {folder}")


@server.command()
def status(folder: Folder = Path(".prefect"), port: Port = 4200, as_json: AsJson = False, debug: Debug = False) -> None:
    """Say whether the server and a worker are up."""

    def work() -> dict[str, Any]:
        from flows.server.local import LocalServer

        return LocalServer(folder.absolute(), port).status()

    def format_status(result: dict[str, Any]) -> str:
        if not result["server"]:
            return f"no server answers at port {port}"
        return f"server up, worker {'up' if result['worker'] else 'down'}: {result['ui']}"

    run_command(work, as_json, debug, format_status)


@server.command()
def register(config: Config, as_json: AsJson = False, debug: Debug = False) -> None:
    """Register everything with the server that PREFECT_API_URL names, wherever it runs."""

    def work() -> dict[str, Any]:
        set_prefect_defaults()
        from flows.server.register import register as register_all

        return register_all(config.absolute(), read_run_config(config, None))

    run_command(work, as_json, debug, lambda result: f"registered {', '.join(result['deployments'])}")

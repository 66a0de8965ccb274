"""``server``: start, stop and register a Prefect server and a worker on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands import messages
from flows.commands.shared import GivenConfig, command
from flows.config.prefect_settings import set_prefect_defaults

Folder = Annotated[Path, typer.Option("--folder", help="Folder of the server's database, settings and logs.")]
Config = Annotated[Path, typer.Option("--config", help="The run config that the deployments use by default.")]
Port = Annotated[int, typer.Option("--port", help="Port of the server on 127.0.0.1.", min=1, max=65535)]

server = typer.Typer(
    no_args_is_help=True, help="A Prefect server and a worker on this machine, with every deployment registered."
)


@server.command()
@command(messages.format_server_start)
def start(config: Config, folder: Folder = Path(".prefect"), port: Port = 4200) -> dict[str, Any]:
    """Start what does not run yet, wait until it is ready, and register all deployments."""
    settings = GivenConfig(config).read()
    from flows.server.local import LocalServer

    return LocalServer(folder.absolute(), port).start(config.absolute(), settings)


@server.command()
@command(messages.format_server_stop)
def stop(folder: Folder = Path(".prefect")) -> dict[str, Any]:
    """Stop the server, the worker and their runs. A run that was stopped is taken over when the server is back."""
    from flows.server.local import LocalServer

    return {"stopped": LocalServer(folder.absolute()).stop(), "folder": str(folder)}


@server.command()
@command(messages.format_server_status)
def status(folder: Folder = Path(".prefect"), port: Port = 4200) -> dict[str, Any]:
    """Say whether the server and a worker are up."""
    from flows.server.local import LocalServer

    return LocalServer(folder.absolute(), port).status() | {"port": port}


@server.command()
@command(lambda result: f"registered {', '.join(result['deployments'])}")
def register(config: Config) -> dict[str, Any]:
    """Register everything with the server that PREFECT_API_URL names, wherever it runs."""
    set_prefect_defaults()
    from flows.server.register import register as register_all

    return register_all(config.absolute(), GivenConfig(config).read())

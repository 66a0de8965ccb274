"""The command line: ``catalog-rectifier …``, or ``python -m flows …`` where the code is not installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

import rectifier_core
from flows.commands.audit import audit, compare
from flows.commands.backfill import backfill
from flows.commands.demo import demo, score
from flows.commands.evaluate import evaluate
from flows.commands.init import init
from flows.commands.observe import freshness, metrics, status
from flows.commands.rectify import rectify
from flows.commands.server import server
from flows.commands.shared import run_app
from flows.commands.table import export, refresh, rollback, versions
from flows.commands.validate import validate

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find and mend features that belong to another item.",
)
app.add_typer(server, name="server")
COMMANDS: tuple[Callable[..., None], ...] = (
    *(init, validate, demo, rectify, audit, compare, evaluate, versions, rollback, refresh, export, score),
    *(freshness, metrics, status, backfill),
)
for command in COMMANDS:
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"catalog-rectifier {rectifier_core.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Find and mend features that belong to another item."""


def main() -> None:
    """Run the installed command."""
    run_app(app)


if __name__ == "__main__":
    main()

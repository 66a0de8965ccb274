"""The command line: ``python -m flows …``."""

from __future__ import annotations

from collections.abc import Callable

import typer

from flows.commands.audit import audit, compare
from flows.commands.backfill import backfill
from flows.commands.demo import demo, score
from flows.commands.evaluate import evaluate
from flows.commands.observe import freshness, metrics
from flows.commands.rectify import rectify
from flows.commands.server import server
from flows.commands.shared import run_app
from flows.commands.status import status
from flows.commands.table import export, refresh, rollback, versions

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find and mend features that belong to another item.",
)
app.add_typer(server, name="server")
COMMANDS: tuple[Callable[..., None], ...] = (
    *(demo, rectify, audit, compare, evaluate, versions, rollback, refresh, export, score),
    *(freshness, metrics, status, backfill),
)
for command in COMMANDS:
    app.command()(command)

if __name__ == "__main__":
    run_app(app)

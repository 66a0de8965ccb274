"""What the commands share: options, days, progress on the terminal, and how each of them ends."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flows.prefect_settings import hide_tracebacks, set_prefect_defaults
from tasks.errors import InputError, RectifierError, exit_code_of
from tasks.runs.log import error_line, error_text

if TYPE_CHECKING:
    from flows.config.run_config import RunConfig

ConfigFile = Annotated[Path, typer.Option("--config", help="The run config, a TOML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the config: a.b=value. May be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="End standard output with one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")]


def run_command(
    work: Callable[[], dict[str, Any]],
    as_json: bool,
    debug: bool,
    format_result: Callable[[dict[str, Any]], str],
    *,
    prefect: bool = False,
) -> None:
    """Run a command and print its result, as text and with ``--json`` as one JSON object.

    A failure is one line on standard error and its exit status. A traceback is printed only with ``--debug``. ``prefect`` says that the
    command runs a flow.
    """
    if prefect:
        set_prefect_defaults()
        if not debug:
            hide_tracebacks()
    try:
        result = work()
    except BaseException as error:
        # Polars' panics are no Exceptions, and are failures all the same.
        if isinstance(error, SystemExit):
            raise
        if debug:
            traceback.print_exc()
        code, line = exit_code_of(error), error_text(error)
        print(
            error_line(line if isinstance(error, RectifierError) else f"{line} (--debug shows where)", code),
            file=sys.stderr,
        )
        raise typer.Exit(code) from None
    print(format_result(result))
    if as_json:
        print(json.dumps(result, allow_nan=False, default=str))


def end_with(code: int, line: str) -> NoReturn:
    """End a command that has said what it did with one line on what failed, and that exit status."""
    print(error_line(line, code), file=sys.stderr)
    raise typer.Exit(code)


def given_day(text: str | None, option: str = "--as-of") -> date | None:
    """The day that an option says, None where it was not given. Raises InputError for anything else."""
    try:
        return None if text is None else datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise InputError(f"{option} {text}: wanted a day as YYYY-MM-DD") from None


def read_run_config(path: Path, overrides: list[str] | None) -> RunConfig:
    """The run config, whose classes are loaded when there is one to read. Raises InputError."""
    from flows.config.run_config import RunConfig

    return RunConfig.from_toml(path, overrides or ())


def read_config_and_day(path: Path, overrides: list[str] | None, as_of: str | None) -> tuple[RunConfig, date]:
    """The run config, and the day that ``--as-of`` or the data name. Raises InputError."""
    from tasks.source.read import resolve_day

    config = read_run_config(path, overrides)
    return config, resolve_day(config.source, given_day(as_of))


def printed_progress() -> Callable[[str, int, int], None]:
    """Progress as lines on standard error: every step on a terminal, only the end of a piece of work elsewhere."""

    last = ""

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        line = f"{what}: {done:,} of {total:,}"
        if line != last and (sys.stderr.isatty() or done >= total):
            last = line
            print(line, file=sys.stderr)

    return report


def run_app(app: typer.Typer) -> None:
    """Run the command line to its exit status.

    Where the Prefect server of a run is gone it leaves at once: Prefect would try for minutes to send it what is unsent.
    """
    code: Any = 0
    try:
        app()
    except SystemExit as ended:
        code = ended.code
    _ended.append(code if isinstance(code, int) else int(code is not None))
    if "prefect.events" in sys.modules:
        from tasks.observe.events import server_answers

        if not server_answers():
            _leave()
    raise SystemExit(code)


_ended: list[int] = []


@atexit.register
def _leave() -> None:
    """End the process of a command that has ended with its own exit status.

    Registered before any other, this runs when all others have. What comes after them is the end of each library by itself: threads of
    Arrow, Polars and delta-rs that are still about while its globals go have aborted a command that had done its work.
    """
    if _ended:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_ended[0])

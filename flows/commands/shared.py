"""What the commands share: options, days, and how each of them runs and ends."""

from __future__ import annotations

import atexit
import inspect
import io
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flows.config.prefect_settings import check_prefect_home, hide_tracebacks, set_prefect_defaults
from tasks.errors import InputError, RectifierError, exit_code_of
from tasks.runs.log import error_line, error_text

if TYPE_CHECKING:
    from flows.config.run_config import RunConfig

Values = dict[str, Any]
ConfigFile = Annotated[Path, typer.Option("--config", help="The run config, a TOML file.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="The day, YYYY-MM-DD; the newest in the data by default.")]
_Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the config: a.b=value. May be repeated.")
]
_ENDING: dict[str, Any] = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, to stdout.")],
    "verbose": Annotated[bool, typer.Option("--verbose", help="Show the log instead of progress.")],
    "quiet": Annotated[bool, typer.Option("--quiet", help="Show the result alone.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")],
}


@dataclass(frozen=True, slots=True)
class GivenConfig:
    """What ``--config`` and ``--set`` say. A command with a parameter ``config`` of this type has both options."""

    path: Path
    overrides: tuple[str, ...] = ()

    def read(self) -> RunConfig:
        """The run config, whose classes are loaded when there is one to read. Raises InputError."""
        from flows.config.run_config import RunConfig

        return RunConfig.from_toml(self.path, self.overrides)

    def read_with_day(self, as_of: str | None) -> tuple[RunConfig, date]:
        """The run config, and the day that ``--as-of`` or the data name. Raises InputError."""
        from tasks.source.read import resolve_day

        config = self.read()
        return config, resolve_day(config.source, given_day(as_of))


@dataclass(frozen=True, slots=True)
class FailedInPart:
    """The result of a command that did some of its work: it is printed, then ``line`` as the error, with exit status ``code``.

    With ``repeats`` the error line is all that the text of the result would say.
    """

    result: Values
    code: int
    line: str
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Serving:
    """The result of a command that is printed at once; then ``serve`` runs until it is stopped."""

    result: Values
    serve: Callable[[], None]


Result = Values | FailedInPart | Serving


def command(
    format_result: Callable[[Values], str], *, prefect: bool = False
) -> Callable[[Callable[..., Result]], Callable[..., None]]:
    """Make a function that returns values a command with ``--json``, ``--verbose``, ``--quiet`` and ``--debug``.

    ``format_result`` gives the result as text. ``prefect`` says that the command may run a flow.
    """

    def decorate(work: Callable[..., Result]) -> Callable[..., None]:
        own = inspect.signature(work, eval_str=True).parameters
        reads_config = "config" in own and own["config"].annotation is GivenConfig
        options: dict[str, tuple[Any, Any]] = {name: (x.annotation, x.default) for name, x in own.items()}
        if reads_config:
            options |= {"config": (ConfigFile, inspect.Parameter.empty), "overrides": (_Overrides, None)}
        options |= {name: (annotation, False) for name, annotation in _ENDING.items()}

        @wraps(work)
        def run(**given: Any) -> None:
            ending = {name: given.pop(name) for name in _ENDING}
            if reads_config:
                given["config"] = GivenConfig(given["config"], tuple(given.pop("overrides") or ()))
            run_command(lambda: work(**given), format_result, prefect=prefect, **ending)

        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in options.items()
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {name: annotation for name, (annotation, _) in options.items()}
        return run

    return decorate


def run_command(
    work: Callable[[], Result],
    format_result: Callable[[Values], str],
    *,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    debug: bool,
    prefect: bool,
) -> None:
    """Run a command and print its result to stdout, as text or with ``as_json`` as one JSON object.

    ``prefect`` says that it may run a flow. A failure is one line on stderr, the last, and its exit status. A traceback is printed only
    with ``debug``.
    """
    # Imported here: rich is not needed for --help.
    from flows.commands.terminal import terminal

    try:
        if quiet and verbose:
            raise InputError("--quiet, --verbose: give one of the two")
        with terminal(verbose=verbose, quiet=quiet):
            if prefect:
                check_prefect_home()
                set_prefect_defaults()
                if not debug:
                    hide_tracebacks()
            result = work()
    except BaseException as error:
        # Polars' panics are no Exceptions, and are failures all the same.
        if isinstance(error, SystemExit):
            raise
        if debug:
            traceback.print_exc()
        line = error_text(error)
        _end_with(exit_code_of(error), line if isinstance(error, RectifierError) else f"{line} (--debug shows where)")
    values = result if isinstance(result, dict) else result.result
    if as_json:
        print(json.dumps(values, allow_nan=False, default=str), flush=True)
    elif not (isinstance(result, FailedInPart) and result.repeats):
        print(format_result(values), flush=True)
    if isinstance(result, FailedInPart):
        _end_with(result.code, result.line)
    if isinstance(result, Serving):
        result.serve()


def _end_with(code: int, line: str) -> NoReturn:
    print(error_line(line, code), file=sys.stderr)
    raise typer.Exit(code) from None


def given_day(text: str | None, option: str = "--as-of") -> date | None:
    """The day that an option says, None where it was not given. Raises InputError for anything else."""
    return None if text is None else required_day(text, option)


def required_day(text: str, option: str) -> date:
    """The day that an option says. Raises InputError for anything else."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise InputError(f"{option} {text}: wanted a day as YYYY-MM-DD") from None


def run_app(app: typer.Typer) -> None:
    """Run the command line to its exit status.

    Where the Prefect server of a run is gone it leaves at once: Prefect would try for minutes to send it what is unsent.
    """
    # The folder that a command runs in may hold a `flows` of its own, which processes of Python would import first.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    code: Any = 0
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets an escape instead: output must not fail after the work is done.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as ended:
        code = ended.code
    # Prefect's threads send what is left when the process ends, and would log that below the error line.
    logging.disable()
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

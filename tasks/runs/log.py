"""Log lines of a run. Each says the run, its day and its stage: on the terminal as text or JSON, in the day's file as JSON.

The file is `<run.folder>/logs/<as_of>.log`, one for all attempts at a day: a run that fails before its input was read has no id yet.
The run's own folder links to it as `run.log`. Credentials are masked, and so is the value of every environment variable whose name
says that it holds one.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from tasks.errors import RectifierError
from tasks.masking import masked
from tasks.progress import note, stop_showing
from tasks.store.run_context import RunContext, current_run, current_stage

_LOGGER = "catalog-rectifier"
_RUN_LOGGERS = (_LOGGER, "prefect.flow_runs", "prefect.task_runs")
FORMATS = ("text", "json")
# A full file becomes `<as_of>.log.1` and replaces the one before, so a day's log is at most twice this large.
MAX_BYTES = 4 << 20


def default_format() -> str:
    """The format that the environment asks for, else text."""
    return os.environ.get("CATALOG_RECTIFIER_LOG") or "text"


def printable(text: str) -> str:
    """Return `text` on one line, with escapes for control characters: names of columns and items come from other people's data."""
    return "".join(x if x.isprintable() else ascii(x)[1:-1] for x in " ".join(text.split()))


def error_text(error: BaseException) -> str:
    """Return an error in one line, masked. An error that is not meant for users starts with its type."""
    text = masked(printable(str(error)))
    return text if isinstance(error, RectifierError) else f"{type(error).__name__}: {text}".rstrip(": ")


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC, ISO), level, logger, run_id, as_of, stage, message, pid, Prefect's names, and facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        run = current_run()
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "run_id": None if run is None else run.run_id,
            "as_of": None if run is None else run.as_of,
            "stage": current_stage(),
            "message": masked(record.getMessage()),
            "pid": record.process,
        }
        for attribute in ("task_run_name", "flow_run_name", "flow_run_id"):
            if value := getattr(record, attribute, None):
                values[attribute.removesuffix("_name")] = str(value)
        values |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[1] is not None:
            values["traceback"] = masked(self.formatException(record.exc_info))
        return json.dumps(values, ensure_ascii=False, default=str)


class RunLines(logging.Formatter):
    """A record as text that starts with time, level, run and stage. Lines outside a run keep the format that they had."""

    def __init__(self, outside: logging.Formatter | None) -> None:
        super().__init__("%(asctime)s.%(msecs)03d | %(levelname)-7s | %(where)s | %(message)s", "%H:%M:%S")
        self._outside = outside or logging.Formatter("%(asctime)s | %(levelname)-7s | %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        run = current_run()
        if run is None:
            return masked(self._outside.format(record))
        record.where = " ".join(x for x in (run.run_id or run.as_of or "no day", current_stage()) if x)
        return masked(super().format(record))


class DayLog(RotatingFileHandler):
    """The day's file. If the disk does not take a line, that line is lost, and one warning reports it."""

    def __init__(self, path: Path, run: RunContext) -> None:
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8")
        self._run, self._warned = run, False
        self.setFormatter(JsonLines())

    def filter(self, record: logging.LogRecord) -> bool:
        """Accept the lines of this run, and of threads outside any run."""
        return current_run() in (None, self._run) and bool(super().filter(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Warn once that lines are lost."""
        if not self._warned:
            self._warned = True
            with suppress(OSError, ValueError):
                sys.stderr.write(f"warning: {self.baseFilename}: lines of the log are lost: {sys.exc_info()[1]}\n")


def _mask_record(record: logging.LogRecord) -> bool:
    """Mask a record for every handler, also for the one that sends it to Prefect's server."""
    text = record.getMessage()
    if (safe := masked(text)) != text:
        record.msg, record.args = safe, None
    return True


def day_log(folder: Path, as_of: str | None) -> Path:
    """The log of a day. Runs that ended before they knew their day share `no-day.log`."""
    return folder / "logs" / f"{as_of or 'no-day'}.log"


@contextmanager
def run_log(run: RunContext) -> Iterator[None]:
    """Write the lines of `run` into its day's file for the block. A run whose file cannot be opened goes on without it."""
    logger, root = logging.getLogger(_LOGGER), logging.getLogger()
    logger.setLevel(logging.INFO)
    for name in _RUN_LOGGERS:
        logging.getLogger(name).addFilter(_mask_record)
    path = day_log(run.folder, run.as_of)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = DayLog(path, run)
    except OSError as error:
        logger.warning("the run goes on without a log file: %s", error)
        yield
        return
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()


def name_run(run_id: str) -> None:
    """Set the id of the current run, and link the day's log into the run's folder as `run.log`."""
    run = current_run()
    if run is None or run.run_id == run_id:
        return
    run.run_id = run_id
    link = run.folder / run_id / "run.log"
    # A file system without hard links has the log in one place only.
    with suppress(OSError):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.link(day_log(run.folder, run.as_of), link)


def log_end(level: int, message: str, facts: Mapping[str, Any], error: BaseException | None = None) -> None:
    """Write the last line of a run into its file only: how it ended, with the traceback of an unforeseen error."""
    trace = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(_LOGGER, level, __file__, 0, message, None, trace)
    record.facts = dict(facts)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, DayLog):
            handler.handle(record)


def sweep_logs(folder: Path, keep: int) -> None:
    """Delete the logs of all but the newest `keep` days that have one."""
    for path in sorted((folder / "logs").glob("????-??-??.log"))[:-keep]:
        for old in (path, path.with_name(f"{path.name}.1")):
            old.unlink(missing_ok=True)


class Warnings(logging.Handler):
    """Shows warnings as lines that stay. What is worse ends the command with a line of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show the warning."""
        if record.levelno == logging.WARNING:
            note(f"warning: {masked(printable(record.getMessage()))}")


# Prefect reads this once, when it is loaded. Processes of a backfill's days inherit it.
_PREFECTS_CONSOLE = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
_OFF = "CRITICAL"
_console: str | None = None


def show_warnings_only() -> None:
    """Show warnings on the terminal instead of the log, unless the config asks for JSON there. The day's file has every line."""
    os.environ.setdefault(_PREFECTS_CONSOLE, _OFF)
    use_console(default_format())


def use_console(chosen: str) -> None:
    """Set the format of the log on the terminal, "text" or "json". Call it again when Prefect has set up its logging."""
    global _console
    _console = chosen
    terminal = _terminal_handlers() or [_add_handler(logging.StreamHandler())]
    if chosen == "json":
        stop_showing()
    elif os.environ.get(_PREFECTS_CONSOLE) == _OFF:
        for handler in terminal:
            handler.setLevel(logging.CRITICAL + 1)
        if not any(isinstance(x, Warnings) for x in logging.root.handlers):
            _add_handler(Warnings())
        return
    for handler in terminal:
        handler.setLevel(logging.NOTSET)
        handler.addFilter(_not_of_prefect)
        if chosen == "json":
            handler.setFormatter(JsonLines())
        elif not isinstance(handler.formatter, RunLines):
            handler.setFormatter(RunLines(handler.formatter))
    logging.captureWarnings(chosen == "json")


def _terminal_handlers() -> list[logging.Handler]:
    others = [x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger)]
    handlers = {handler for logger in [logging.root, *others] for handler in logger.handlers}
    return [x for x in handlers if getattr(getattr(x, "stream", None), "name", None) in ("<stderr>", 2)]


def _add_handler(handler: logging.Handler) -> logging.Handler:
    logging.root.addHandler(handler)
    return handler


def _not_of_prefect(record: logging.LogRecord) -> bool:
    """Whether a line says more than that a task of Prefect has ended well."""
    return record.getMessage() != "Finished in state Completed()"


def error_line(text: str, code: int) -> str:
    """Return the last line of a failed command, in the format of the terminal."""
    line = f"error: {masked(printable(text))}"
    if (_console or default_format()) != "json":
        return line
    record = logging.LogRecord(_LOGGER, logging.ERROR, __file__, 0, line, None, None)
    record.facts = {"exit_code": code}
    return JsonLines().format(record)

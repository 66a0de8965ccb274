"""Log lines of a run: each says the run, its day and stage; to the terminal as text or JSON, and always to a bounded file of JSON lines.

The file is ``<run.folder>/logs/<as_of>.log``, one a day, in which every attempt at the day goes on where the last one stopped: a run's id
is known only once its inputs were read, and the attempts that fail before that are those one wants to read of. The run's own folder holds
it as ``run.log``, the same file by another name. What looks like a credential is masked, and so is the value of every environment variable
whose name says that it holds one.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from tasks.errors import RectifierError
from tasks.masking import masked
from tasks.store.run_context import RunContext, current_run, current_stage

_LOGGER = "catalog-rectifier"
FORMATS = ("text", "json")
FORMAT_VARIABLE = "CATALOG_RECTIFIER_LOG"
LOGS = "logs"
RUN_LOG = "run.log"
MOST_BYTES = 4 << 20
"""A day's log is at most twice this: a full file becomes ``<as_of>.log.1``, in the place of the one before."""
_RUN_LOGGERS = (_LOGGER, "prefect.flow_runs", "prefect.task_runs")


def default_format() -> str:
    """The format that the environment asks for, text where it does not say."""
    return os.environ.get(FORMAT_VARIABLE) or "text"


def printable(text: str) -> str:
    """``text`` on one line; what would move a terminal's cursor or change its colours is shown as an escape.

    Names of columns, files and items come from other people's data.
    """
    return "".join(x if x.isprintable() else ascii(x)[1:-1] for x in " ".join(text.split()))


def told_in_one_line(error: BaseException) -> str:
    """The one line for a failure, masked; one that is not meant for a user is headed by its type."""
    said = masked(printable(str(error)))
    return said if isinstance(error, RectifierError) else f"{type(error).__name__}: {said}".rstrip(": ")


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC, ISO), level, logger, run_id, as_of, stage, message, pid, and what Prefect calls the run."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
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
        for name, attribute in (
            ("task_run", "task_run_name"),
            ("flow_run", "flow_run_name"),
            ("flow_run_id", "flow_run_id"),
        ):
            if getattr(record, attribute, None):
                values[name] = str(getattr(record, attribute))
        values |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[1] is not None:
            values["traceback"] = masked("".join(traceback.format_exception(record.exc_info[1])))
        return json.dumps(values, ensure_ascii=False, default=str)


class RunLines(logging.Formatter):
    """A record for people, headed by run and stage; lines of no run keep the look that ``otherwise`` gives them."""

    def __init__(self, otherwise: logging.Formatter | None) -> None:
        super().__init__()
        self._otherwise = otherwise or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        run = current_run()
        if run is None:
            return masked(self._otherwise.format(record))
        when = f"{self.formatTime(record, '%H:%M:%S')}.{int(record.msecs):03d}"
        where = " ".join(x for x in (run.run_id or run.as_of or "no day", current_stage()) if x)
        said = record.getMessage() + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")
        return masked(f"{when} | {record.levelname:<7} | {where} | {said}")


class DayLog(RotatingFileHandler):
    """The day's file; a disk that will not take a line loses that line and nothing else, and is told of once."""

    def __init__(self, path: Path, run: RunContext) -> None:
        super().__init__(path, maxBytes=MOST_BYTES, backupCount=1, encoding="utf-8")
        self._run, self._told = run, False
        self.setFormatter(JsonLines())

    def filter(self, record: logging.LogRecord) -> bool:
        """Lines of this run, and of threads that belong to none."""
        run = current_run()
        return (run is None or run is self._run) and bool(super().filter(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say once that lines are lost."""
        if not self._told:
            self._told = True
            why = sys.exc_info()[1]
            with suppress(OSError, ValueError):
                sys.stderr.write(f"warning: {self.baseFilename}: lines of the log are lost: {why}\n")


def _without_credentials(record: logging.LogRecord) -> bool:
    """For whoever takes the record, Prefect's server among them."""
    said = record.getMessage()
    if (kept := masked(said)) != said:
        record.msg, record.args = kept, None
    return True


def day_log(folder: Path, as_of: str | None) -> Path:
    """Where the log of a day lies; of runs that ended before they knew their day, ``no-day.log``."""
    return folder / LOGS / f"{as_of or 'no-day'}.log"


@contextmanager
def run_log(run: RunContext) -> Iterator[None]:
    """Keep the lines of ``run`` in its day's file for the block."""
    logger, root = logging.getLogger(_LOGGER), logging.getLogger()
    logger.setLevel(logging.INFO)
    for name in _RUN_LOGGERS:
        logging.getLogger(name).addFilter(_without_credentials)
    handler: DayLog | None = None
    try:
        path = day_log(run.folder, run.as_of)
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = DayLog(path, run)
    except OSError as error:
        logger.warning("the run goes on without a log of its own: %s", error)
    try:
        if handler is not None:
            root.addHandler(handler)
        yield
    finally:
        if handler is not None:
            root.removeHandler(handler)
            with suppress(OSError):
                handler.close()


def name_run(run_id: str) -> None:
    """The current run's id is known from now on; its folder gets the day's log as ``run.log``."""
    run = current_run()
    if run is None or run.run_id == run_id:
        return
    run.run_id = run_id
    link = run.folder / run_id / RUN_LOG
    # A file system without hard links has the log in one place only.
    with suppress(OSError):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.link(day_log(run.folder, run.as_of), link)


def log_end(level: int, message: str, facts: Mapping[str, Any], error: BaseException | None = None) -> None:
    """The last line of a run, in its log only: how it ended, with the traceback of what was not foreseen."""
    record = logging.LogRecord(
        _LOGGER, level, __file__, 0, message, None, (type(error), error, error.__traceback__) if error else None
    )
    record.facts = dict(facts)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, DayLog):
            handler.handle(record)


def sweep_logs(folder: Path, keep: int) -> None:
    """Drop the logs of all but the newest ``keep`` days that have one."""
    days = sorted((folder / LOGS).glob("????-??-??.log"))
    for path in days[:-keep]:
        for old in (path, path.with_name(f"{path.name}.1")):
            old.unlink(missing_ok=True)


def use_console(chosen: str) -> None:
    """Give what goes to the terminal the look of ``chosen``, "text" or "json". Call it once Prefect has set its logging up."""
    global _console
    _console = chosen
    loggers = [
        logging.getLogger(),
        *(x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger)),
    ]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if not isinstance(handler, logging.StreamHandler) or isinstance(handler, logging.FileHandler):
            continue
        if getattr(handler.stream, "name", None) not in ("<stderr>", 2):
            continue
        if chosen == "json":
            handler.setFormatter(JsonLines())
        elif not isinstance(handler.formatter, RunLines):
            handler.setFormatter(RunLines(handler.formatter))
    logging.captureWarnings(chosen == "json")


_console: str | None = None


def error_line(said: str, code: int) -> str:
    """The one line for a failure, in the look that the terminal was given or the environment asks for."""
    line = masked(printable(said))
    if (_console or default_format()) != "json":
        return f"error: {line}"
    record = logging.LogRecord(_LOGGER, logging.ERROR, __file__, 0, f"error: {line}", None, None)
    record.facts = {"exit_code": code}
    return JsonLines().format(record)

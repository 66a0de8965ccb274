"""Progress of long work as log lines: often enough to see that it moves, seldom enough to read. A terminal gets every step."""

from __future__ import annotations

import logging
import sys
import time

from rectifier_core.base.numerics import Progress
from tasks.progress import advance

LOGGER = "catalog-rectifier"
SECONDS = 3.0


def run_logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The run's logger inside a Prefect run, a plain one outside."""
    # A process that has not loaded Prefect is in no run. Loading it takes a second.
    if "prefect" not in sys.modules:
        return logging.getLogger(LOGGER)
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(LOGGER)


def logged_progress() -> Progress:
    """A progress callback that logs at most every few seconds, and always the end of a piece of work."""
    logger, last, ended = run_logger(), time.monotonic(), ""

    def report(what: str, done: int, total: int) -> None:
        nonlocal last, ended
        advance(what, done, total)
        if done >= total:
            if what == ended:
                return
            ended = what
        if done >= total or time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            logger.info("%s (%s of %s)", what, f"{done:,}", f"{total:,}")

    return report

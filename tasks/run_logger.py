"""Progress of long work as log lines: often enough to see that it moves, seldom enough to read."""

from __future__ import annotations

import logging
import time

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from rectifier_core.base.numerics import Progress

SECONDS = 3.0


def run_logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The run's logger inside a Prefect run, a plain one outside."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("catalog-rectifier")


def logged_progress() -> Progress:
    """A progress callback that logs at most every few seconds, and always the end of a piece of work."""
    logger, last = run_logger(), time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            logger.info("%s (%s of %s)", what, f"{done:,}", f"{total:,}")

    return report

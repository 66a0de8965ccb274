"""One day from the command line; also what fails before there is a day to run is counted, logged and told of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flows.commands.shared import given_day
from flows.monitoring import read_nights_config
from flows.nightly import rectify_catalog
from flows.server.outlast import run_through
from tasks.errors import RectifierError
from tasks.observe.watch import watch_run
from tasks.runs.log import use_console
from tasks.source.read import resolve_day


def rectify_day(path: Path, overrides: Iterable[str], as_of: str | None) -> dict[str, Any]:
    """Publish the day that ``as_of`` names, else the newest in the data; the run's summary."""
    given = given_day(as_of)
    config = read_nights_config(path, overrides, given)
    use_console(config.run.log)
    try:
        day = resolve_day(config.source, given)
    except RectifierError:
        with watch_run(config.watch, given):
            raise
    found: dict[str, Any] = run_through(rectify_catalog, config, day)
    return found

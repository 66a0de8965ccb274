"""A night that is watched from its first line to its last."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import wraps
from typing import Any

from prefect.runtime import flow_run

from flows.run_config import RunConfig
from tasks.run_watch import watch_run

Night = Callable[[RunConfig, date], dict[str, Any]]


def watched(night: Night) -> Night:
    """``night`` with a log, metrics and events of its own, whoever calls it: the command line, a backfill or a Prefect worker."""

    @wraps(night)
    def watched_night(config: RunConfig, as_of: date) -> dict[str, Any]:
        with watch_run(config.watch, as_of, flow_run_id=flow_run.get_id()) as run:
            run.summary = night(config, as_of)
            return run.summary

    return watched_night

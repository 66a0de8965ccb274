"""A night that is watched from its first line to its last."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from prefect.runtime import flow_run

from flows.run_config import RunConfig
from tasks.run_watch import watch_run

P = ParamSpec("P")
Night = Callable[Concatenate[RunConfig, date, P], dict[str, Any]]


def watched(night: Night[P]) -> Night[P]:
    """``night`` with a log, metrics and events of its own, whoever calls it: the command line, a backfill or a Prefect worker."""

    @wraps(night)
    def watched_night(config: RunConfig, as_of: date, /, *args: P.args, **more: P.kwargs) -> dict[str, Any]:
        with watch_run(config.watch, as_of, flow_run_id=flow_run.get_id()) as run:
            run.summary = night(config, as_of, *args, **more)
            return run.summary

    return watched_night

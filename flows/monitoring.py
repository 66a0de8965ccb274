"""Monitoring of a run: its log, metrics and events, and a result that outlives the Prefect server."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from datetime import date
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from prefect.flows import Flow

from flows.config.run_config import RunConfig
from tasks.observe.watch import watch_run
from tasks.progress import advance
from tasks.run_logger import run_logger
from tasks.runs.log import run_log, use_console
from tasks.store.run_context import RunContext, bind_run

P = ParamSpec("P")
T = TypeVar("T")
Night = Callable[Concatenate[RunConfig, date, P], dict[str, Any]]


def monitored(night: Night[P]) -> Night[P]:
    """``night`` with a log, metrics and events. The command line, a backfill and a worker all get them."""

    @wraps(night)
    def monitored_night(config: RunConfig, as_of: date, /, *args: P.args, **more: P.kwargs) -> dict[str, Any]:
        advance("start", 1, 1)
        with watch_run(config.watch, as_of) as run:
            run.summary = night(config, as_of, *args, **more)
            return run.summary

    return monitored_night


def logged(work: Callable[Concatenate[RunConfig, date, P], T]) -> Callable[Concatenate[RunConfig, date, P], T]:
    """``work`` with its log lines in the day's log. For flows that publish nothing."""

    @wraps(work)
    def logged_work(config: RunConfig, as_of: date, /, *args: P.args, **given: P.kwargs) -> T:
        use_console(config.run.log)
        run = RunContext(folder=config.watch.folder, as_of=as_of.isoformat())
        with bind_run(run), run_log(run):
            return work(config, as_of, *args, **given)

    return logged_work


def run_keeping_result(flow: Flow[..., Any], *given: Any) -> Any:
    """``flow(*given)``. If Prefect fails after the work has ended, return or raise what the work did all the same."""
    ended: list[tuple[Any, BaseException | None]] = []

    @wraps(flow.fn)
    def body(*args: Any, **more: Any) -> Any:
        try:
            result = flow.fn(*args, **more)
        except BaseException as error:
            ended.append((None, error))
            raise
        ended.append((result, None))
        return result

    recorded = copy(flow)
    recorded.fn = body
    try:
        return recorded(*given)
    except Exception as error:
        if not ended:
            raise
        result, raised = ended[0]
        if raised is error:
            raise
        run_logger().warning("the Prefect server did not take how the run ended: %s: %s", type(error).__name__, error)
        if raised is not None:
            raise raised from None
        return result

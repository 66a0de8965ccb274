"""A run as those see it who were asleep: its log, its counters and metrics, and an event when it ended badly.

Whatever of that fails is a warning in the log: watching never fails a run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any, TypeVar

from tasks.errors import GateRefusedError, InputError, RectifierError, TableHeldError, exit_code_of
from tasks.masking import masked
from tasks.object_store import StorageUnreachableError
from tasks.observe.config import WatchConfig
from tasks.observe.events import FAILED, REFUSED, emit_night
from tasks.observe.metrics_facts import see_table
from tasks.observe.metrics_page import write_metrics
from tasks.observe.metrics_state import HOLDING, State, change_state
from tasks.observe.publish_events import asset_key
from tasks.run_logger import run_logger
from tasks.runs.day_journal import DayTakenError
from tasks.runs.log import log_end, run_log, told_in_one_line, use_console
from tasks.store.peak_memory import peak_memory_bytes
from tasks.store.run_context import RunContext, bind_run, current_stage
from tasks.table.config import PublishConfig

T = TypeVar("T")


@contextmanager
def watch_run(config: WatchConfig, as_of: date | None, *, flow_run_id: str | None = None) -> Iterator[RunContext]:
    """Watch a run for the block, which leaves the flow's summary in the context; an error passes through.

    ``as_of`` is None for a run that failed before it knew its day.
    """
    day = None if as_of is None else as_of.isoformat()
    run = RunContext(folder=config.folder, as_of=day, flow_run_id=flow_run_id)
    use_console(config.run.log)
    with bind_run(run), run_log(run):
        started = time.time()
        _tolerated("counting the run", lambda: change_state(run.folder, _began))
        try:
            yield run
        except BaseException as error:
            _ended(run, config, started, error)
            raise
        _ended(run, config, started, None)


def _began(state: State) -> None:
    state["started"] += 1


def how_it_ended(run: RunContext, error: BaseException | None) -> tuple[str, int]:
    """The outcome of a run, as the metrics name it, and its exit status."""
    if error is None:
        return ("unchanged" if run.summary is not None and not run.summary["published"] else "published"), 0
    if isinstance(error, RectifierError):
        kinds = ((GateRefusedError, "refused"), (InputError, "bad_input"), (TableHeldError, "held"))
        return next((name for kind, name in kinds if isinstance(error, kind)), "failed"), error.exit_code
    # SystemExit and what Prefect raises on SIGTERM are no Exception either.
    return "failed" if isinstance(error, Exception) else "interrupted", exit_code_of(error)


def _ended(run: RunContext, config: WatchConfig, started: float, error: BaseException | None) -> None:
    outcome, code = how_it_ended(run, error)
    message = "done" if error is None else told_in_one_line(error)
    facts = {
        "outcome": outcome,
        "exit_code": code,
        "seconds": {name: round(x.seconds, 3) for name, x in run.stages.items()},
    }
    log_end(
        logging.INFO if error is None else logging.ERROR,
        message,
        facts,
        None if isinstance(error, RectifierError) else error,
    )
    _tolerated("keeping the metrics", lambda: _keep_metrics(run, config, outcome, code, started, error))
    # A day that another run has had meanwhile is no bad night.
    if error is not None and outcome != "interrupted" and not isinstance(error, DayTakenError):
        told = {
            "as_of": run.as_of,
            "run_id": run.run_id,
            "stage": current_stage(),
            "exit_code": code,
            "message": message,
        }
        event = REFUSED if outcome == "refused" else FAILED
        _tolerated("raising its event", lambda: emit_night(event, asset_key(config.publish), told))


def _keep_metrics(
    run: RunContext, config: WatchConfig, outcome: str, code: int, started: float, error: BaseException | None
) -> None:
    # A store that did not answer the run would keep it waiting once more.
    seen = (
        None
        if isinstance(error, StorageUnreachableError) or outcome in ("held", "interrupted")
        else _looked(config.publish)
    )
    facts = _run_facts(run) | {
        "outcome": outcome,
        "exit_code": code,
        "stage": current_stage(),
        "started": started,
        "ended": time.time(),
    }

    def change(state: State) -> None:
        state["ended"][outcome]["count"] += 1
        state["ended"][outcome]["last"] = facts["ended"]
        state["run"] = facts if outcome in HOLDING or state["run"] is None else state["run"]
        state["seen"] = seen or state["seen"]

    write_metrics(change_state(run.folder, change), config)


def _looked(publish: PublishConfig) -> Mapping[str, Any] | None:
    try:
        return see_table(publish)
    except RectifierError as error:
        run_logger().warning("metrics: the table could not be looked at, they say what it was: %s", masked(str(error)))
        return None


def _run_facts(run: RunContext) -> dict[str, Any]:
    summary = run.summary or {}
    planned = summary.get("planned_memory_bytes", {})
    stages = {
        name: {
            "seconds": spent.seconds,
            "cpu_seconds": spent.cpu_seconds,
            "peak_memory": spent.peak_memory or None,
            "planned_memory": planned.get(name),
        }
        for name, spent in run.stages.items()
    }
    return {
        "as_of": run.as_of,
        "run_id": run.run_id,
        "rows": summary.get("rows"),
        "peak_memory": peak_memory_bytes(),
        "memory_limit": summary.get("memory_limit_bytes"),
        "stages": stages,
    }


def _tolerated(doing: str, work: Callable[[], T]) -> T | None:
    try:
        return work()
    except Exception as error:
        run_logger().warning(
            "%s failed, the run is none the worse for it: %s", doing, masked(f"{type(error).__name__}: {error}")
        )
        return None

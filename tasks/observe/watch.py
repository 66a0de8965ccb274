"""Log, metrics and alert events of a run. A failure of any of them is a warning: watching never fails a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from tasks.errors import GateRefusedError, InputError, RectifierError, TableHeldError, exit_code_of
from tasks.masking import masked
from tasks.object_store import StorageUnreachableError
from tasks.observe.config import WatchConfig
from tasks.observe.events import FAILED, REFUSED, asset_key, emit_night
from tasks.observe.metrics import TableMetrics, change_metrics
from tasks.run_logger import run_logger
from tasks.runs.day_journal import DayTakenError
from tasks.runs.log import error_text, log_end, run_log, use_console
from tasks.store.peak_memory import peak_memory_bytes
from tasks.store.run_context import RunContext, bind_run, current_stage


@contextmanager
def watch_run(config: WatchConfig, as_of: date | None) -> Iterator[RunContext]:
    """Watch a run for the block, which puts the flow's summary into the context. An error of the block passes through.

    `as_of` is None for a run that failed before it knew its day.
    """
    run = RunContext(folder=config.folder, as_of=None if as_of is None else as_of.isoformat())
    use_console(config.run.log)
    with bind_run(run), run_log(run):
        with _only_warn("counting the run"), change_metrics(config) as metrics:
            metrics.count("runs_started", 1)
        try:
            yield run
        except BaseException as error:
            _end(run, config, error)
            raise
        _end(run, config, None)


def outcome_of(run: RunContext, error: BaseException | None) -> tuple[str, int]:
    """The outcome of a run, as the metrics name it, and its exit status."""
    if error is None:
        return ("unchanged" if run.summary is not None and not run.summary["published"] else "published"), 0
    # SystemExit and what Prefect raises on SIGTERM are no Exception.
    outcome = "failed" if isinstance(error, Exception) else "interrupted"
    kinds = ((GateRefusedError, "refused"), (InputError, "bad_input"), (TableHeldError, "held"))
    return next((name for kind, name in kinds if isinstance(error, kind)), outcome), exit_code_of(error)


def _end(run: RunContext, config: WatchConfig, error: BaseException | None) -> None:
    outcome, code = outcome_of(run, error)
    message = "done" if error is None else error_text(error)
    seconds = {name: round(spent.seconds, 3) for name, spent in run.stages.items()}
    unforeseen = None if isinstance(error, RectifierError) else error
    level = logging.INFO if error is None else logging.ERROR
    log_end(level, message, {"outcome": outcome, "exit_code": code, "seconds": seconds}, unforeseen)
    with _only_warn("writing the metrics"), change_metrics(config) as metrics:
        metrics.count("runs", 1, outcome)
        metrics.put("run_last_ended_timestamp_seconds", time.time(), outcome)
        if outcome not in ("held", "bad_input"):
            _set_last_run(metrics, run, code)
        # A store that did not answer the run would keep it waiting once more.
        if outcome not in ("held", "interrupted") and not isinstance(error, StorageUnreachableError):
            with _only_warn("reading the table for the metrics"):
                metrics.set_table()
    # A day that another run did in the meantime is not a failed night.
    if error is not None and outcome != "interrupted" and not isinstance(error, DayTakenError):
        facts = {"as_of": run.as_of, "run_id": run.run_id, "stage": current_stage(), "exit_code": code}
        with _only_warn("sending its event"):
            event = REFUSED if outcome == "refused" else FAILED
            emit_night(event, asset_key(config.publish), facts | {"message": message})


def _set_last_run(metrics: TableMetrics, run: RunContext, code: int) -> None:
    summary = run.summary or {}
    metrics.clear("last_run_")
    # A repeat that computed nothing leaves the seconds of the run that did.
    if "rectify" in run.stages or run.summary is None or run.summary["published"]:
        metrics.clear("stage_")
        for stage, spent in run.stages.items():
            metrics.put("stage_seconds", spent.seconds, stage)
            metrics.put("stage_cpu_seconds", spent.cpu_seconds, stage)
            metrics.put("stage_peak_memory_bytes", spent.peak_memory or None, stage)
    metrics.set_day("last_run", run.as_of)
    metrics.put("last_run_ended_timestamp_seconds", time.time())
    metrics.put("last_run_exit_code", code)
    metrics.put("last_run_peak_memory_bytes", peak_memory_bytes())
    metrics.put("last_run_memory_limit_bytes", summary.get("memory_limit_bytes"))


@contextmanager
def _only_warn(doing: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        text = masked(f"{type(error).__name__}: {error}")
        run_logger().warning("%s failed; the run goes on without it: %s", doing, text)

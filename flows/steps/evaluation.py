"""The evaluation's work as Prefect tasks. Existing outputs are reused, the rest is built in parallel, and a failure stops only what needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from prefect import task
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Failed

from flows.steps.options import PLAIN
from tasks.evaluation.dependencies import Dependency, Results
from tasks.evaluation.grid import Grid
from tasks.evaluation.report import write_evaluation_report, write_evidence
from tasks.evaluation.results import write_results, write_summary
from tasks.evaluation.searches import write_searches
from tasks.evaluation.work_items import Work
from tasks.evaluation.workers import StoppedError, Workers, WorkFailedError
from tasks.progress import advance
from tasks.run_logger import run_logger
from tasks.store.store import Ref, StageStore

Key = TypeVar("Key", bound=Hashable)
TICK = 0.5


@dataclass(slots=True, kw_only=True)
class Tally:
    """How much work of one kind is done, and how long the rest will take at the speed so far."""

    what: str
    total: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str) -> str:
        """Count one more and return a line about the progress."""
        with self.lock:
            self.done += 1
            left = (time.monotonic() - self.started) / self.done * (self.total - self.done)
            done = self.done
        advance(self.what, done, self.total)
        rest = f"about {left / 60:.0f} min left" if left >= 60 else "less than a minute left"
        return f"{self.what} {done:,} of {self.total:,}: {name}" + (f", {rest}" if done < self.total else "")


@task(name="evaluation", task_run_name="{what}: {name}", **PLAIN)
def run_work(what: str, name: str, work: Work, store: StageStore, workers: Workers, tally: Tally) -> Any:
    """Run one piece of work in a worker process."""
    logger = run_logger()
    try:
        ref = workers(Work.run, work, store)
    except StoppedError:
        return Cancelled(message="the evaluation was stopped")
    except WorkFailedError as error:
        logger.debug("%s", error.details)
        tally.count(name)
        return Failed(message=f"{what}: {name}: {error}")
    logger.info("%s", tally.count(name))
    return ref


def perform(
    what: str, dependencies: Mapping[Key, Dependency], store: StageStore, workers: Workers
) -> dict[Key, Ref | str | None]:
    """The output of every dependency by key, ``reused`` if the store had it, or one line that says why there is none.

    The same work under several keys is done once. Must be called inside a flow.
    """
    results: dict[Key, Ref | str | None] = {}
    missing: dict[tuple[str, str], tuple[Work, list[Key]]] = {}
    reused = 0
    for key, dependency in dependencies.items():
        if not isinstance(dependency, Work):
            results[key] = dependency
        elif (ref := dependency.find(store)) is not None:
            results[key] = replace(ref, reused=True)
            reused += 1
        else:
            missing.setdefault((dependency.kind, dependency.key), (dependency, []))[1].append(key)
    if reused and missing:
        run_logger().info("%s: %s of %s outputs are reused", what, f"{reused:,}", f"{len(dependencies):,}")
    outcomes = _run_all(what, [work for work, _ in missing.values()], store, workers)
    for (_, keys), outcome in zip(missing.values(), outcomes, strict=True):
        results |= dict.fromkeys(keys, outcome)
    return results


def _run_all(what: str, works: Sequence[Work], store: StageStore, workers: Workers) -> list[Ref | str]:
    """The output of each work, or why it failed. At any time only as many tasks wait as keep the workers busy."""
    tally, places, futures = Tally(what=what, total=len(works)), 2 * workers.count, []
    advance(what, 0, len(works))
    free = threading.Semaphore(places)
    for work in works:
        _take(free)
        future = run_work.submit(what, work.name, work, store, workers, tally)
        future.add_done_callback(lambda _: free.release())
        futures.append(future)
    for _ in range(places):
        _take(free)
    return [_outcome(what, future) for future in futures]


def _take(free: threading.Semaphore) -> None:
    # Polars' handler of Ctrl-C does not interrupt an unlimited wait.
    while not free.acquire(timeout=TICK):
        pass


def _outcome(what: str, future: PrefectFuture[Any]) -> Ref | str:
    future.wait()
    state = future.state
    if not state.is_completed():
        return state.message or f"{what}: {state.name}"
    ref: Ref = future.result()
    return ref


@task(**PLAIN)
def write_report(
    out: Path,
    evidence: Path | None,
    grid: Grid,
    cells: Results,
    made: Sequence[Results],
    searches: Results,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the tables, the summary, the report and, with ``evidence``, the documents; return the result for ``--json``."""
    done = {cell: ref for cell, ref in cells.items() if isinstance(ref, Ref)}
    failures = [{"cell": cell.name, "reason": reason} for cell, reason in cells.items() if isinstance(reason, str)]
    counts = {"cells": len(cells), "reused": sum(ref.reused for ref in done.values()), "failed": len(failures)}
    parts = {cell: [ref for stage in made if isinstance(ref := stage[cell], Ref)] for cell in done}
    results = write_results(out, grid, done, parts)
    chosen = write_searches(out, searches)
    write_summary(out, dict(about) | counts | {"failures": failures})
    report = write_evaluation_report(out, results) if done else None
    if done and evidence is not None:
        write_evidence(evidence, results)
    brief = [{name: x[name] for name in ("backbone", "seeds", "chosen", "own", "edges")} for x in chosen]
    return counts | {
        "searches": brief,
        "results": str(results),
        "report": None if report is None else str(report),
        "failures": failures,
    }

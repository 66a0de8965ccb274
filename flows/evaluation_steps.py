"""The evaluation's work as Prefect tasks: what is there is found, the rest is made side by side, a failure stops nothing but itself."""

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

from flows.steps import PLAIN
from tasks.evaluation.dependencies import Had, Need
from tasks.evaluation.grid import Grid
from tasks.evaluation.report import write_evaluation_report, write_evidence
from tasks.evaluation.results import write_results, write_summary
from tasks.evaluation.work_items import Work
from tasks.evaluation.workers import StoppedError, Workers, WorkFailedError
from tasks.run_logger import run_logger
from tasks.store.store import Ref, StageStore

Key = TypeVar("Key", bound=Hashable)
TICK = 0.5


@dataclass(slots=True, kw_only=True)
class Tally:
    """How much of one kind of work is done, and how long the rest will take at the pace so far."""

    what: str
    total: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def told(self, name: str) -> str:
        """Count one more, and say so."""
        with self.lock:
            self.done += 1
            left = (time.monotonic() - self.started) / self.done * (self.total - self.done)
            done = self.done
        still = (
            ""
            if done == self.total
            else f", about {left / 60:.0f} min left"
            if left >= 60
            else ", less than a minute left"
        )
        return f"{self.what} {done:,} of {self.total:,}: {name}{still}"


@task(name="evaluation", task_run_name="{what}: {name}", **PLAIN)
def carry_out(what: str, name: str, work: Work, store: StageStore, workers: Workers, tally: Tally) -> Any:
    """Have one piece of work done by a worker process."""
    logger = run_logger()
    try:
        ref = workers(Work.run, work, store)
    except StoppedError:
        return Cancelled(message="the evaluation was stopped")
    except WorkFailedError as error:
        logger.debug("%s", error.details)
        tally.told(name)
        return Failed(message=f"{what}: {name}: {error}")
    logger.info("%s", tally.told(name))
    return ref


def perform(what: str, needs: Mapping[Key, Need], store: StageStore, workers: Workers) -> dict[Key, Ref | str | None]:
    """What comes of ``needs`` by key: the output (``reused`` if it was there), or in one line why there is none.

    The same work under several keys is done once. Must be called inside a flow.
    """
    had: dict[Key, Ref | str | None] = {}
    missing: dict[tuple[str, str], tuple[Work, list[Key]]] = {}
    there = 0
    for key, need in needs.items():
        if not isinstance(need, Work):
            had[key] = need
        elif (found := need.find(store)) is not None:
            had[key] = replace(found, reused=True)
            there += 1
        else:
            missing.setdefault((need.kind, need.key), (need, []))[1].append(key)
    if there and missing:
        run_logger().info("%s: %s of %s were there already", what, f"{there:,}", f"{len(needs):,}")
    outcomes = _carried_out(what, [work for work, _ in missing.values()], store, workers)
    for (_, keys), outcome in zip(missing.values(), outcomes, strict=True):
        had |= dict.fromkeys(keys, outcome)
    return had


def _carried_out(what: str, works: Sequence[Work], store: StageStore, workers: Workers) -> list[Ref | str]:
    """Each work's output or why it failed; no more tasks wait at any time than keep the workers busy."""
    tally, places, futures = Tally(what=what, total=len(works)), 2 * workers.count, []
    free = threading.Semaphore(places)
    for work in works:
        _take(free)
        future = carry_out.submit(what, work.name, work, store, workers, tally)
        future.add_done_callback(lambda _: free.release())
        futures.append(future)
    for _ in range(places):
        _take(free)
    return [_outcome(what, future) for future in futures]


def _take(free: threading.Semaphore) -> None:
    # Polars' own handler of Ctrl-C leaves the system call going that an unlimited wait sits in.
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
    out: Path, evidence: Path | None, grid: Grid, cells: Had, made: Sequence[Had], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the tables, the summary and the report, and the evidence where it is asked for; return what ``--json`` gives."""
    done = {cell: ref for cell, ref in cells.items() if isinstance(ref, Ref)}
    failures = [{"cell": cell.name, "reason": told} for cell, told in cells.items() if isinstance(told, str)]
    counts = {"cells": len(cells), "reused": sum(ref.reused for ref in done.values()), "failed": len(failures)}
    parts = {cell: [ref for stage in made if isinstance(ref := stage[cell], Ref)] for cell in done}
    results = write_results(out, grid, done, parts)
    write_summary(out, dict(about) | counts | {"failures": failures})
    report = write_evaluation_report(out, results) if done else None
    if done and evidence is not None:
        write_evidence(evidence, results)
    return counts | {"results": str(results), "report": None if report is None else str(report), "failures": failures}

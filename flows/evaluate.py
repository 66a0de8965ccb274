"""Evaluate recommenders on raw and rectified features, cell by cell of a grid, and report the differences."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.config.run_config import RunConfig
from flows.monitoring import logged
from flows.steps import night as steps
from flows.steps.evaluation import perform, write_report
from tasks.evaluation.dependencies import Chain
from tasks.evaluation.grid import plan_grid
from tasks.evaluation.workers import Workers
from tasks.runs.identity import without_places
from tasks.stages.trust import category_numbers
from tasks.store.store import Ref, StageStore

FOLDER = "evaluation"


def evaluate_catalog(config: RunConfig, as_of: date) -> dict[str, Any]:
    """Evaluate the grid of ``config.evaluation`` and return the counts and paths.

    Outputs of an earlier run are reused, also of one that was stopped. A cell that fails stops no other and counts in ``failed``. Raises
    InputError or StorageError with one line for the user.
    """
    workers = config.evaluation.workers or len(os.sched_getaffinity(0))
    # Each thread waits for one worker process.
    runner: Any = ThreadPoolTaskRunner(max_workers=workers)
    found: dict[str, Any] = evaluate_rectification.with_options(task_runner=runner)(config, as_of, workers)
    return found


@flow(name="evaluate-rectification", flow_run_name="evaluate {as_of}", validate_parameters=False, persist_result=False)
@logged
def evaluate_rectification(config: RunConfig, as_of: date, workers: int) -> dict[str, Any]:
    """Read, split, damage, learn anchors, make features, train and test each recommender, report."""
    folder = Path(config.run.folder) / FOLDER
    store = StageStore(folder / "stages")
    store.sweep(keep_seconds=config.run.keep_days * 86400)
    with store.in_use(), Workers(workers) as at:
        source = steps.read(config.source, as_of, store)
        chain = _chain(config, as_of, source)
        splits = perform("split", chain.splits(), store, at)
        searches = perform("search", chain.searches(splits), store, at)
        pairs = perform("clicks", chain.pairs(splits), store, at)
        priors = perform("prior", chain.priors(pairs), store, at)
        alignments = perform("alignment", chain.alignments(pairs), store, at)
        edited = perform("editing", chain.edited(pairs, priors, alignments), store, at)
        damaged = perform("damage", chain.damaged(), store, at)
        anchors = perform("anchors", chain.anchors(pairs, edited), store, at)
        features = perform("features", chain.features(pairs, damaged, anchors), store, at)
        cells = perform("cell", chain.trials(pairs, edited, damaged, features, searches), store, at)
        out = Path(config.evaluation.out or folder)
        evidence = None if config.evaluation.evidence is None else Path(config.evaluation.evidence)
        found: dict[str, Any] = write_report(
            out, evidence, chain.grid, cells, (features, edited), searches, _about(config, as_of, source)
        )
        return found


def _chain(config: RunConfig, as_of: date, source: Ref) -> Chain:
    categories = category_numbers(source) is not None
    grid = plan_grid(
        config.evaluation, config.pipeline, list(config.source.modalities), categories=categories, seed=config.seed
    )
    return Chain(grid=grid, source=source, as_of=as_of, reading=config.source, config=config.evaluation)


def _about(config: RunConfig, as_of: date, source: Ref) -> dict[str, Any]:
    parts = config.shaping | {"evaluation": config.evaluation}
    return {"as_of": as_of.isoformat(), "source": source.digest, "config": without_places(parts)}


def format_failed_cells(found: Mapping[str, Any]) -> str:
    """In one line how many cells failed and why the first did."""
    first = found["failures"][0]
    return f"{found['failed']:,} of {found['cells']:,} cells failed, the first: {first['cell']}: {first['reason']}"

"""Compare an incremental night with a cold run of the same day, and two cold runs of different seeds with each other."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from prefect import flow

from flows.anchors import anchors_of_published_run, make_cold_anchors
from flows.config.run_config import RunConfig
from flows.matching import match_catalog
from flows.monitoring import logged
from flows.steps import night as steps
from tasks.compare.compare_runs import DayOutputs, compare_runs, within_tolerance, write_comparison
from tasks.resources.memory_plan import check_memory
from tasks.resources.process import use_resources
from tasks.stages.previous_run import PreviousRun
from tasks.store.store import Ref, StageStore


@flow(name="compare-nights", flow_run_name="compare {as_of}", validate_parameters=False, persist_result=False)
@logged
def compare_nights(config: RunConfig, as_of: date, out: Path | None = None) -> dict[str, Any]:
    """Compare the day's incremental run with a cold run and write the result into ``out``, by default beside the day's report.

    Nothing is published. The tolerance is ``tasks.compare.compare_runs.TOLERANCE`` times the difference of two cold runs with different
    seeds. It reuses the night's stage outputs and costs two cold runs. Raises InputError or StorageError with one line for the user.
    """
    use_resources(config.resources)
    with config.run.store.in_use():
        store = config.run.store
        source = steps.read(config.source, as_of, store)
        start = anchors_of_published_run(config, as_of, source, store)
        night = _outputs(config, source, start.anchors, start.previous, store)
        cold = _cold(config, as_of, source, store)
        other = _cold(replace(config, seed=config.seed + 1), as_of, source, store)
        difference, yardstick = compare_runs(night, cold), compare_runs(other, cold)
        result: dict[str, Any] = {
            "run_id": start.identity.run_id,
            "as_of": as_of.isoformat(),
            "base": None if start.previous is None else start.previous.run_id,
            "reason": start.reason,
            "modalities": difference,
            "yardstick": yardstick,
            "within": within_tolerance(difference, yardstick),
        }
        folder = out or config.run.run_folder(start.identity.run_id) / "comparison"
        return result | {"page": write_comparison(folder, result)}


def _cold(config: RunConfig, as_of: date, source: Ref, store: StageStore) -> DayOutputs:
    return _outputs(
        config, source, make_cold_anchors(config, as_of, source, store, "for comparison").anchors, None, store
    )


def _outputs(
    config: RunConfig, source: Ref, anchors: Ref, previous: PreviousRun | None, store: StageStore
) -> DayOutputs:
    check_memory(source, config.pipeline, config.resources)
    matched = match_catalog(source, anchors, config, store, previous)
    rectified = steps.rectify(source, matched, config.rectify, config.segments, config.seed, store)
    return DayOutputs(rectified=rectified, matched=matched)

"""The anchors that a night and an audit start with, and the run they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from flows.config.run_config import RunConfig
from flows.rectify_day import find_published_run
from flows.steps import night as steps
from tasks.resources.process import torch_device
from tasks.runs.folders import load_summary
from tasks.runs.identity import identify
from tasks.runs.log import name_run
from tasks.stages.previous_run import PreviousRun, open_previous_run, outputs_exist
from tasks.store.store import Ref, StageStore
from tasks.table.config import RunIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorsResult:
    """``previous`` is the run that this one updates, None for a cold run; ``reason`` says why in words."""

    identity: RunIdentity
    anchors: Ref
    previous: PreviousRun | None
    reason: str


def make_anchors(config: RunConfig, as_of: date, source: Ref, store: StageStore) -> AnchorsResult:
    """Make the anchors: from a previous run's if the config asks for it and one can be used, else from the log alone."""
    previous, reason = None, "incremental.enabled is false"
    if config.incremental.enabled:
        previous, reason = steps.find_previous(
            source, config.shaping, config.incremental, store, config.run, config.publish, as_of
        )
    if previous is not None:
        identity = identify(as_of, source, config.shaping, previous.identity)
        name_run(identity.run_id)
        anchors, fell = steps.update_anchors(source, config.anchors, config.seed, store, previous)
        if fell is None:
            return AnchorsResult(identity=identity, anchors=anchors, previous=previous, reason=reason)
        reason = fell
    return make_cold_anchors(config, as_of, source, store, reason)


def make_cold_anchors(config: RunConfig, as_of: date, source: Ref, store: StageStore, reason: str) -> AnchorsResult:
    """Train the anchors from the log alone."""
    identity, device = identify(as_of, source, config.shaping), torch_device(config.resources)
    name_run(identity.run_id)
    anchors = steps.anchors(
        source, config.anchors, config.seed, store, config.run, config.publish, as_of, device=device
    )
    return AnchorsResult(identity=identity, anchors=anchors, previous=None, reason=reason)


def anchors_of_published_run(config: RunConfig, as_of: date, source: Ref, store: StageStore) -> AnchorsResult:
    """The anchors of the day's published run if it was incremental and its outputs exist, else newly made ones."""
    known = find_published_run(config, as_of, source)
    if known is None or known.summary.get("base") is None:
        return make_anchors(config, as_of, source, store)
    earlier = load_summary(config.run, known.summary["base"]["base"])
    if earlier is None or not outputs_exist(earlier):
        return make_anchors(config, as_of, source, store)
    previous = open_previous_run(earlier, source, config.projection, config.seed, config.incremental, store)
    anchors, _ = steps.update_anchors(source, config.anchors, config.seed, store, previous)
    reason = f"updates {previous.run_id}"
    return AnchorsResult(identity=known.identity, anchors=anchors, previous=previous, reason=reason)

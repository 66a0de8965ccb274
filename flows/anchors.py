"""What a night and an audit begin with: the anchors, cold or brought up to date from an earlier run, and which run that is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from flows import steps as do
from flows.config.run_config import RunConfig
from tasks.resources.process import torch_device
from tasks.runs.folders import load_summary, runs_of
from tasks.runs.identity import identify
from tasks.runs.log import name_run
from tasks.stages.anchors import can_update_anchors
from tasks.stages.previous_run import PreviousRun, open_previous_run, outputs_exist
from tasks.store.store import Ref, StageStore
from tasks.table.config import RunIdentity
from tasks.table.publish import find_published


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """``previous`` is the run that this one updates, None for a cold run; ``reason`` says why in words."""

    identity: RunIdentity
    anchors: Ref
    previous: PreviousRun | None
    reason: str


def known_identity(config: RunConfig, as_of: date, source: Ref) -> RunIdentity | None:
    """The identity of a run of that day that the table shows and that this one would repeat, whatever it was brought up to date from."""
    for summary in runs_of(config.run, as_of):
        last = summary.get("base")
        if last is not None and not (config.incremental.enabled and last == last | config.incremental.rows):
            continue
        identity = identify(as_of, source, config.shaping, last)
        if identity.run_id == summary["run_id"] and find_published(config.publish, identity) is not None:
            return identity
    return None


def begin(config: RunConfig, as_of: date, source: Ref, store: StageStore) -> Beginning:
    """Learn the anchors, from an earlier run's where the config asks for it and one can be used."""
    previous, reason = None, "incremental.enabled is false, or anchors.method is not lightgcn"
    if config.incremental.enabled and can_update_anchors(config.anchors):
        previous, reason = do.find_base(
            source, config.shaping, config.incremental, store, config.run, config.publish, as_of
        )
    if previous is not None:
        identity = identify(as_of, source, config.shaping, previous.identity)
        name_run(identity.run_id)
        anchors, fell = do.refold(source, config.anchors, config.seed, store, previous)
        if fell is None:
            return Beginning(identity=identity, anchors=anchors, previous=previous, reason=reason)
        reason = fell
    return begin_cold(config, as_of, source, store, reason)


def begin_cold(config: RunConfig, as_of: date, source: Ref, store: StageStore, reason: str) -> Beginning:
    """Learn the anchors from the log alone."""
    identity, device = identify(as_of, source, config.shaping), torch_device(config.resources)
    name_run(identity.run_id)
    anchors = do.anchors(source, config.anchors, config.seed, store, config.run, config.publish, as_of, device=device)
    return Beginning(identity=identity, anchors=anchors, previous=None, reason=reason)


def begin_again(config: RunConfig, as_of: date, source: Ref, store: StageStore) -> Beginning:
    """What the day's published run began with, where it was incremental and its outputs are here; else a beginning of its own."""
    known = known_identity(config, as_of, source)
    summary = None if known is None else load_summary(config.run, known.run_id)
    if known is None or summary is None or summary.get("base") is None:
        return begin(config, as_of, source, store)
    earlier = load_summary(config.run, summary["base"]["base"])
    if earlier is None or not outputs_exist(earlier):
        return begin(config, as_of, source, store)
    previous = open_previous_run(earlier, source, config.projection, config.seed, config.incremental, store)
    anchors, _ = do.refold(source, config.anchors, config.seed, store, previous)
    reason = f"brings {previous.run_id} up to date"
    return Beginning(identity=known, anchors=anchors, previous=previous, reason=reason)

"""Stage: anchors, where behaviour places each item."""

from __future__ import annotations

import numpy as np

from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.arrays import Float32
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Interactions
from rectifier_core.incremental.anchors import PreviousRows, update_anchors
from rectifier_core.incremental.row_mapping import mapped_rows
from tasks.stages.previous_run import PreviousRun
from tasks.store.saved_records import save_record
from tasks.store.store import Ref, StageStore, StageWriter


def load_interactions(source: Ref) -> Interactions:
    """Return the positive pairs of a source output."""
    meta = source.meta
    users, items = (np.ascontiguousarray(source.array(name)) for name in ("users", "items"))
    return Interactions(users=users, items=items, times=None, num_users=meta["num_users"], num_items=meta["num_items"])


def anchors_stage(
    source: Ref,
    config: AnchorsConfig,
    seed: int,
    store: StageStore,
    *,
    start_rows: Float32 | None = None,
    start_run: str | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Ref:
    """Train anchors on all interactions.

    A warm start begins at ``start_rows``, the ego rows [I, A] of the run ``start_run``.
    """

    def build(writer: StageWriter) -> None:
        pairs = load_interactions(source)
        anchors = train_anchors(pairs, config, seed=seed, previous=start_rows, device=device, progress=progress)
        save_record(writer, anchors)

    return store.once("anchors", (source, config, seed, start_run), build)


def updated_anchors_stage(
    source: Ref, config: AnchorsConfig, seed: int, previous: PreviousRun, store: StageStore
) -> Ref:
    """Update the previous run's anchors with the interactions of today's log."""
    old_anchors = previous.stages["anchors"]

    def build(writer: StageWriter) -> None:
        items, users = (np.asarray(previous.row_mapping.array(name)) for name in ("before", "user_before"))
        rows = PreviousRows(
            users=mapped_rows(old_anchors.array("user_ego"), users, np.nan),
            items=mapped_rows(old_anchors.array("ego"), items, np.nan),
            reliability=mapped_rows(old_anchors.array("reliability"), items, np.nan),
        )
        rows.reliability[~mapped_rows(old_anchors.array("trained"), items, False)] = np.nan
        save_record(writer, update_anchors(load_interactions(source), rows, config, seed=seed))

    return store.once("anchors", (source, config, seed, *previous.inputs("anchors")), build)


def recall_drop(anchors: Ref, previous: PreviousRun) -> str | None:
    """Return why the updated anchors are too bad to use, None if they are good enough."""
    now, then = (float(ref.array("recalls").max()) for ref in (anchors, previous.stages["anchors"]))
    if now >= (1 - previous.config.most_fallen) * then:
        return None
    return f"held-out recall fell from {then:.4f} to {now:.4f}, most_fallen = {previous.config.most_fallen:g}"

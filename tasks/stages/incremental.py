"""The stages of an incremental run: from references to an earlier run's outputs and this run's inputs to a reference.

Each output is another one than the cold stage's: its key holds what it was brought up to date from.
"""

from __future__ import annotations

import numpy as np
import torch

from rectifier_core.affinity.affinity import AffinityConfig
from rectifier_core.anchors.anchors import AnchorsConfig
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Affinity, Anchors, Copies, Projection
from rectifier_core.copies.copies import CopiesConfig
from rectifier_core.incremental.affinity import EarlierNeighbours, update_neighbours
from rectifier_core.incremental.anchors import EarlierRows, refold_anchors
from rectifier_core.incremental.carried import carried_rows
from rectifier_core.incremental.copies import update_copies
from rectifier_core.incremental.projection import update_projection
from rectifier_core.projection.cross_modal import WitnessConfig, place_by_features
from rectifier_core.projection.projection import ProjectionConfig
from tasks.stages.core_stages import load_interactions, telling
from tasks.stages.previous_run import Last
from tasks.store.saved_records import (
    load_axes,
    load_lists,
    load_record,
    load_sketch,
    save_axes,
    save_lists,
    save_record,
    save_sketch,
)
from tasks.store.store import Ref, StageStore, StageWriter


def anchors_stage(source: Ref, config: AnchorsConfig, seed: int, last: Last, store: StageStore) -> Ref:
    """Anchors of today's log from the earlier run's ego rows."""
    earlier = last.stages["anchors"]

    def build(writer: StageWriter) -> None:
        items, users = (np.asarray(last.carry.array(name)) for name in ("before", "user_before"))
        rows = EarlierRows(
            users=carried_rows(earlier.array("user_ego"), users, np.nan),
            items=carried_rows(earlier.array("ego"), items, np.nan),
            reliability=carried_rows(earlier.array("reliability"), items, np.nan),
        )
        rows.reliability[~carried_rows(earlier.array("trained"), items, False)] = np.nan
        save_record(writer, refold_anchors(load_interactions(source), rows, config, seed=seed))

    return store.once("anchors", (source, config, seed, earlier, last.carry), build)


def copies_stage(
    modality: str,
    features: Ref,
    anchors: Ref,
    config: CopiesConfig,
    seed: int,
    last: Last,
    store: StageStore,
    *,
    progress: Progress = silent,
) -> Ref:
    """Groups of copies after some features changed."""
    earlier = last.stages[f"copies/{modality}"]

    def build(writer: StageWriter) -> None:
        rows, present = features.array(f"features-{modality}"), np.asarray(features.array(f"present-{modality}"))
        before, sketch, anchor = load_record(earlier, Copies), load_sketch(earlier), load_record(anchors, Anchors)
        carried = last.carried(modality)
        found = update_copies(before, sketch, carried, rows, present, anchor, config, seed=seed, progress=progress)
        save_record(writer, found[0])
        save_sketch(writer, found[1])

    return store.once(f"copies/{modality}", (features, anchors, config, seed, earlier, last.carry), build)


def projection_stage(
    modality: str,
    features: Ref,
    copies: Ref,
    anchors: Ref,
    config: ProjectionConfig,
    seed: int,
    last: Last,
    store: StageStore,
    *,
    onto: str | None = None,
) -> Ref:
    """One modality by the earlier run's maps, into anchor space or onto another modality's places."""
    name = f"projection/{modality}" if onto is None else f"witness/{modality}-{onto}"
    earlier = last.stages[name]

    def build(writer: StageWriter) -> None:
        rows, known = features.array(f"features-{modality}"), telling(modality, features, copies)
        before, target = load_record(earlier, Projection), load_record(anchors, Anchors)
        save_record(writer, update_projection(before, last.carried(modality), rows, known, target, config, seed=seed))

    return store.once(name, (features, copies, anchors, config, seed, earlier, last.carry), build)


def places_stage(
    modality: str, features: Ref, copies: Ref, config: WitnessConfig, seed: int, last: Last, store: StageStore
) -> Ref:
    """Where one modality places each item, along the earlier run's axes."""
    earlier = last.stages[f"places/{modality}"]

    def build(writer: StageWriter) -> None:
        rows, known = features.array(f"features-{modality}"), telling(modality, features, copies)
        carried, axes = last.carried(modality), load_axes(earlier)
        before = carried.rows(earlier.array("items"), 0) * carried.same[:, None]
        save_record(writer, place_by_features(modality, rows, known, config, seed=seed, axes=axes, known=before))
        save_axes(writer, axes)

    return store.once(f"places/{modality}", (features, copies, config, seed, earlier, last.carry), build)


def affinity_stage(
    modality: str,
    projection: Ref,
    config: AffinityConfig,
    seed: int,
    last: Last,
    store: StageStore,
    *,
    memory: int | None = None,
    progress: Progress = silent,
) -> Ref:
    """The best donors of every item: most of them the earlier run's."""
    earlier, projected = last.stages[f"affinity/{modality}"], last.stages[f"projection/{modality}"]

    def build(writer: StageWriter) -> None:
        before = EarlierNeighbours(
            affinity=load_record(earlier, Affinity), target=projected.array("target"), lists=load_lists(earlier)
        )
        found, lists = update_neighbours(
            before,
            last.carried(modality),
            load_record(projection, Projection),
            config,
            still=last.config.still,
            seed=seed,
            threads=torch.get_num_threads(),
            memory=memory,
            progress=progress,
        )
        save_record(writer, found)
        save_lists(writer, lists)

    inputs = (projection, config, seed, earlier, projected, last.carry, last.config.still)
    return store.once(f"affinity/{modality}", inputs, build)

"""Stage: affinity, the best donors of every item."""

from __future__ import annotations

from typing import Any

import torch

from rectifier_core.affinity.affinity import find_affinity
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Affinity, Projection
from rectifier_core.incremental.affinity import PreviousNeighbours, update_affinity
from tasks.shards.affinity import write_affinity
from tasks.stages.previous_run import PreviousRun
from tasks.store.saved_records import load_clusters, load_record, save_clusters, save_record
from tasks.store.store import Ref, StageStore, StageWriter


def affinity_stage(
    modality: str,
    projection: Ref,
    config: AffinityConfig,
    seed: int,
    store: StageStore,
    *,
    previous: PreviousRun | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Ref:
    """Find every item's best donors. With ``previous``, only changed items are searched again."""
    name, before = f"affinity/{modality}", f"projection/{modality}"
    limits: dict[str, Any] = {"threads": torch.get_num_threads(), "progress": progress}

    def build(writer: StageWriter) -> None:
        if previous is not None:
            old = PreviousNeighbours(
                affinity=load_record(previous.stages[name], Affinity),
                target=previous.stages[before].array("target"),
                clusters=load_clusters(previous.stages[name]),
            )
            mapped, record = previous.mapped(modality), load_record(projection, Projection)
            bound = previous.config.min_anchor_cosine
            affinity, clusters = update_affinity(
                old, mapped, record, config, min_anchor_cosine=bound, seed=seed, **limits
            )
            save_record(writer, affinity)
            save_clusters(writer, clusters)
        elif device == CPU or store.runner.remote:
            write_affinity(writer, projection, config, store.runner, seed=seed, progress=progress)
        else:
            record = load_record(projection, Projection)
            save_record(writer, find_affinity(record, config, seed=seed, device=device, **limits))

    update = () if previous is None else (*previous.inputs(name, before), previous.config.min_anchor_cosine)
    return store.once(name, (projection, config, seed, *update), build)

"""Stage: affinity, the best donors of every item."""

from __future__ import annotations

from typing import Any

import torch

from rectifier_core.affinity.affinity import find_neighbours
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Affinity, Projection
from rectifier_core.incremental.affinity import EarlierNeighbours, update_neighbours
from tasks.shards.affinity import write_neighbours
from tasks.stages.previous_run import PreviousRun
from tasks.store.saved_records import load_lists, load_record, save_lists, save_record
from tasks.store.store import Ref, StageStore, StageWriter


def affinity_stage(
    modality: str,
    projection: Ref,
    config: AffinityConfig,
    seed: int,
    store: StageStore,
    *,
    previous: PreviousRun | None = None,
    memory: int | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Ref:
    """Find every item's best donors. ``memory`` bounds, in bytes, the index and the blocks in work.

    With ``previous``, only changed items are searched again.
    """
    name, before = f"affinity/{modality}", f"projection/{modality}"
    limits: dict[str, Any] = {"threads": torch.get_num_threads(), "memory": memory, "progress": progress}

    def build(writer: StageWriter) -> None:
        if previous is not None:
            old = EarlierNeighbours(
                affinity=load_record(previous.stages[name], Affinity),
                target=previous.stages[before].array("target"),
                lists=load_lists(previous.stages[name]),
            )
            mapped, record = previous.mapped(modality), load_record(projection, Projection)
            still = previous.config.still
            affinity, lists = update_neighbours(old, mapped, record, config, still=still, seed=seed, **limits)
            save_record(writer, affinity)
            save_lists(writer, lists)
        elif device == CPU or store.runner.remote:
            write_neighbours(writer, projection, config, store.runner, seed=seed, memory=memory, progress=progress)
        else:
            record = load_record(projection, Projection)
            save_record(writer, find_neighbours(record, config, seed=seed, device=device, **limits))

    update = () if previous is None else (*previous.inputs(name, before), previous.config.still)
    return store.once(name, (projection, config, seed, *update), build)

"""Stage: affinity, the best donors of every item."""

from __future__ import annotations

from typing import Any

import torch

from rectifier_core.affinity.affinity import find_affinity
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.index import Clusters
from rectifier_core.affinity.places import choose_anchor_share, place_items
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Affinity, Projection, Trust
from rectifier_core.incremental.affinity import PreviousNeighbours, update_affinity
from tasks.shards.affinity import write_affinity
from tasks.stages.previous_run import PreviousRun
from tasks.store.saved_records import load_part, load_record, save_part, save_record
from tasks.store.store import Ref, StageStore, StageWriter


def affinity_stage(
    modality: str,
    features: Ref,
    projection: Ref,
    trust: Ref,
    config: AffinityConfig,
    seed: int,
    store: StageStore,
    *,
    previous: PreviousRun | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Ref:
    """Find every item's best donors. With ``previous``, only changed items are searched again, by that run's share of the anchor."""
    name, before = f"affinity/{modality}", f"projection/{modality}"
    limits: dict[str, Any] = {"threads": torch.get_num_threads(), "progress": progress}

    def build(writer: StageWriter) -> None:
        record = load_record(projection, Projection)
        if previous is not None:
            output, mapped = previous.stages[name], previous.mapped(modality)
            old = load_record(output, Affinity)
            is_approximate = output.file("clusters_centroids.npy").exists()
            known = PreviousNeighbours(
                affinity=old,
                places=place_items(load_record(previous.stages[before], Projection), old.anchor_share),
                clusters=load_part(output, "clusters", Clusters) if is_approximate else None,
            )
            bound = previous.config.min_anchor_cosine
            affinity, clusters = update_affinity(
                known,
                mapped,
                place_items(record, old.anchor_share),
                config,
                min_anchor_cosine=bound,
                seed=seed,
                **limits,
            )
            save_record(writer, affinity)
            if clusters is not None:
                save_part(writer, "clusters", clusters)
            return
        rows, probability = features.array(f"features-{modality}"), load_record(trust, Trust).probability
        places = place_items(record, choose_anchor_share(rows, record, probability, config, seed=seed))
        if device == CPU or store.runner.remote:
            write_affinity(writer, places, config, store.runner, seed=seed, progress=progress)
        else:
            save_record(writer, find_affinity(places, config, seed=seed, device=device, **limits))

    update = () if previous is None else (*previous.inputs(name, before), previous.config.min_anchor_cosine)
    return store.once(name, (features, projection, trust, config, seed, *update), build)

"""Refuses a run whose catalog and log cannot fit into ``resources.memory``, before anything is computed.

Features stay in memory-mapped files. What a process must hold are arrays of one row an item or a user: the estimates below. They cover the
stages that hold most at 1,000,000 items (``benchmarks/results/scale.md``).
"""

from __future__ import annotations

from rectifier_core.config import PipelineConfig
from tasks.errors import InputError
from tasks.resources.config import ResourcesConfig
from tasks.store.peak_memory import held_bytes
from tasks.store.store import Ref

FLOAT32, FLOAT64 = 4, 8
SLACK = 1.1
"""What allocators and the interpreter add to arrays."""


def stage_bytes(source: Ref, config: PipelineConfig) -> dict[str, int]:
    """Return the bytes that each of the largest stages holds, by stage name."""
    meta, width, neighbours = source.meta, config.anchors.embedding_size, config.affinity.num_neighbours
    items, users, pairs = meta["num_items"], meta["num_users"], meta["counts"]["interactions_used"]
    # Rows, the best rows, two moments and two buffers; a spectral start holds the first two and a slightly wider basis.
    trained = config.anchors.method_for(pairs) == "lightgcn" and config.anchors.epochs
    columns = 6 * width if trained else 2 * width + 2 * (width + 16)
    return {
        "anchors": FLOAT32 * (users + items) * (columns + 8) + 72 * pairs,
        # The graph with its kernel, the plan, and the iterates that Anderson mixing keeps.
        "sinkhorn": items * (40 * neighbours + FLOAT64 * (12 + 2 * config.sinkhorn.memory)),
        # Unit rows of each modality and of its targets, and the columns of evidence.
        "trust": items * (2 * FLOAT32 * width * len(meta["modalities"]) + 72 * FLOAT64),
    }


def check_memory(source: Ref, config: PipelineConfig, resources: ResourcesConfig) -> None:
    """Raise InputError, naming the key, if a stage does not fit into ``resources.memory``."""
    sizes, limit, meta = stage_bytes(source, config), resources.memory_bytes, source.meta
    stage = max(sizes, key=lambda name: sizes[name])
    needed = held_bytes() + SLACK * sizes[stage]
    if needed > limit:
        trains = stage == "anchors" and config.anchors.method_for(meta["counts"]["interactions_used"]) == "lightgcn"
        way_out = "set anchors.method to spectral" if trains else "use a larger machine"
        raise InputError(
            f"resources.memory: {limit / 2**30:.1f} GiB will not do for {stage} of {meta['num_items']:,} items, "
            f"{meta['num_users']:,} users and {meta['counts']['interactions_used']:,} pairs, "
            f"which takes about {needed / 2**30:.1f} GiB; raise it, or {way_out}"
        )

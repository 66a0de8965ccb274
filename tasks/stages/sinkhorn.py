"""The plan as a stage, and where its graph lies while it is balanced: in memory, or beside the output in maps that are gone after it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Affinity, BalanceOutcome
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sinkhorn import balance
from rectifier_core.sinkhorn.sparse_graph import ENTRY, Allocate, in_memory
from tasks.shards.sinkhorn import lines_run
from tasks.stages.previous_run import PreviousRun, inputs_of
from tasks.store.saved_records import load_record, save_record
from tasks.store.store import Ref, StageStore, StageWriter

SCRATCH = "scratch"
KEPT = {"rows-indices": "indices", "rows-kernel": "weights"}


def sinkhorn_stage(
    modality: str,
    affinity: Ref,
    config: SinkhornConfig,
    store: StageStore,
    *,
    memory: int | None = None,
    previous: PreviousRun | None = None,
    progress: Progress = silent,
) -> Ref:
    """The balanced correspondence. A graph that takes more than half of ``memory`` bytes is kept in files while it is worked on.

    ``previous`` is the run whose scalings it starts from where they balanced its graph. Where nothing could, they were still being pushed apart
    when it stopped, and a graph that differs by a fifth takes longer from there than from nothing.
    """
    earlier = None if previous is None else previous.stages[f"sinkhorn/{modality}"]

    def build(writer: StageWriter) -> None:
        found = load_record(affinity, Affinity)
        size, half = found.neighbours.size, memory and memory // 2
        start = None
        if previous is not None and earlier is not None and earlier.meta["outcome"] == BalanceOutcome.CONVERGED.name:
            start = previous.mapped(modality).rows(earlier.array("potential"), np.nan)
        with (
            _room(writer, memory, size * ENTRY) as allocate,
            lines_run(store.runner, f"sinkhorn/{modality}", size) as run,
        ):
            save_record(
                writer,
                balance(found, config, potential=start, memory=half, allocate=allocate, run=run, progress=progress),
            )

    name = f"sinkhorn/{modality}"
    return store.once(name, (affinity, config, *inputs_of(previous, name)), build)


@contextmanager
def _room(writer: StageWriter, memory: int | None, size: int) -> Iterator[Allocate]:
    if memory is None or size <= memory // 2:
        yield in_memory
    else:
        with mapped_room(writer) as allocate:
            yield allocate


@contextmanager
def mapped_room(writer: StageWriter) -> Iterator[Allocate]:
    """Memory maps for the graph: those that become the plan's own are part of the output, the others are dropped after the block."""
    scratch = writer.folder / SCRATCH
    scratch.mkdir()

    def allocate(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        # A file without elements cannot be mapped.
        return (
            writer.memmap(KEPT.get(name, f"{SCRATCH}/{name}"), shape, dtype) if all(shape) else np.empty(shape, dtype)
        )

    try:
        yield allocate
    finally:
        shutil.rmtree(scratch)

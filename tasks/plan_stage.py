"""The plan as a stage, and where its graph lies while it is balanced: in memory, or beside the output in maps that are gone after it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rectifier_core.numerics import Progress, silent
from rectifier_core.records import Affinity
from rectifier_core.scaling import Run, in_order
from rectifier_core.sinkhorn import SinkhornConfig, balance
from rectifier_core.support import ENTRY, Allocate, in_memory
from tasks.references import Ref, StageStore, StageWriter
from tasks.saved_records import load_record, save_record

SCRATCH = "scratch"
KEPT = {"rows-indices": "indices", "rows-kernel": "weights"}


def plan_stage(
    modality: str,
    affinity: Ref,
    config: SinkhornConfig,
    store: StageStore,
    *,
    memory: int | None = None,
    run: Run = in_order,
    progress: Progress = silent,
) -> Ref:
    """The balanced correspondence. A graph that takes more than half of ``memory`` bytes is kept in files while it is worked on."""

    def build(writer: StageWriter) -> None:
        found = load_record(affinity, Affinity)
        with _room(writer, memory, found.neighbours.size * ENTRY) as allocate:
            save_record(writer, balance(found, config, memory=memory and memory // 2, allocate=allocate, run=run, progress=progress))

    return store.once(f"plan/{modality}", (affinity, config), build)


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
        return writer.memmap(KEPT.get(name, f"{SCRATCH}/{name}"), shape, dtype) if all(shape) else np.empty(shape, dtype)

    try:
        yield allocate
    finally:
        shutil.rmtree(scratch)

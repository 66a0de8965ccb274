"""The plan stage where its graph does not fit in memory: the same output, and nothing left beside it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from rectifier_core.base.records import NO_NEIGHBOUR, Affinity, BalanceOutcome, Plan
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sinkhorn import balance
from rectifier_core.sinkhorn.sparse_graph import ENTRY
from tasks.resources.config import ResourcesConfig
from tasks.shards.dask_runner import connect
from tasks.stages.sinkhorn import sinkhorn_stage
from tasks.store.peak_memory import watch_memory
from tasks.store.saved_records import load_record, save_record
from tasks.store.store import Ref, StageStore


def affinity(items: int, neighbours: int) -> Affinity:
    """Itself and others nearby, scores falling with the distance; every seventh item asks nobody."""
    rng = np.random.default_rng(0)
    near = (
        np.arange(items)[:, None] + np.hstack([np.zeros((items, 1), int), rng.integers(1, 60, (items, neighbours - 1))])
    ) % items
    scores = -rng.random(near.shape).cumsum(axis=1)
    asks_nobody = np.arange(items) % 7 == 3
    near[asks_nobody], scores[asks_nobody] = NO_NEIGHBOUR, -np.inf
    return Affinity(
        modality="image", neighbours=near.astype(np.int32), scores=scores.astype(np.float32), recall=1.0, index="flat"
    )


def saved(record: Affinity, folder: Path) -> Ref:
    return StageStore(folder).once(
        "affinity/image", (len(record.neighbours),), lambda writer: save_record(writer, record)
    )


def files(ref: Ref) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(ref.path).iterdir()}


@pytest.mark.parametrize("memory", [1, 100_000, None])
def test_memory_changes_no_byte_of_the_output(tmp_path: Path, memory: int | None) -> None:
    found = affinity(400, 9)
    ref = saved(found, tmp_path)
    wanted = balance(found, SinkhornConfig())
    made = sinkhorn_stage("image", ref, SinkhornConfig(), StageStore(tmp_path / "a"), memory=memory)
    whole = sinkhorn_stage("image", ref, SinkhornConfig(), StageStore(tmp_path / "b"))
    assert files(made) == files(whole)
    plan = load_record(made, Plan)
    assert plan.outcome is wanted.outcome is BalanceOutcome.CONVERGED
    assert plan.weights.tobytes() == wanted.weights.tobytes() and plan.potential.tobytes() == wanted.potential.tobytes()
    assert not [
        path for path in (tmp_path / "a").rglob("*") if "scratch" in path.name or path.name.startswith("columns")
    ]


def test_a_graph_without_entries_needs_no_map(tmp_path: Path) -> None:
    nobody = Affinity(
        modality="image",
        neighbours=np.full((5, 3), NO_NEIGHBOUR, np.int32),
        scores=np.full((5, 3), -np.inf, np.float32),
        recall=1.0,
        index="none",
    )
    made = sinkhorn_stage("image", saved(nobody, tmp_path), SinkhornConfig(), StageStore(tmp_path / "a"), memory=1)
    assert load_record(made, Plan).outcome is BalanceOutcome.EMPTY


def test_a_graph_beyond_its_memory_stays_within_it(tmp_path: Path) -> None:
    items, width, memory = 150_000, 24, 32 << 20
    ref = saved(affinity(items, width), tmp_path)
    assert items * width * ENTRY > 2.5 * memory
    with watch_memory() as before:
        pass
    made = sinkhorn_stage("image", ref, SinkhornConfig(), StageStore(tmp_path / "a"), memory=memory)
    # Beside what the stage may hold: vectors over all items, Anderson's among them, and what maps keep.
    assert made.peak_memory - before.size < memory + 40 * 8 * items
    assert load_record(made, Plan).column_error < 1e-3


@pytest.mark.parametrize("memory", [None, 5000])
def test_lines_may_be_summed_on_a_cluster(tmp_path: Path, in_process_cluster: LocalCluster, memory: int | None) -> None:
    """In files or in memory, by shards of a few rows: the same bytes."""
    ref = saved(affinity(400, 9), tmp_path)
    here = sinkhorn_stage("image", ref, SinkhornConfig(), StageStore(tmp_path / "b"))
    resources = ResourcesConfig(
        memory="1GiB", threads=1, runner="dask", address=in_process_cluster.scheduler_address, shard_rows=2
    )
    with connect(resources, tmp_path / "a", logging.getLogger("test")) as runner:
        made = sinkhorn_stage("image", ref, SinkhornConfig(), StageStore(tmp_path / "a", runner), memory=memory)
    assert files(made) == files(here)
    assert [x.name for x in (tmp_path / "a").iterdir() if x.name.startswith(".tmp-")] == []

"""Shards on a cluster of one worker in this process: what they are given and give, and each way in which they can fail."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

from tasks.errors import ClusterError
from tasks.resources.config import ResourcesConfig
from tasks.shards.dask_runner import DaskRunner, connect, read_shard
from tasks.shards.dask_worker import WorkerJob, write_shard
from tasks.store.code_digest import worker_digest
from tasks.store.runner import Arrays, LocalRunner, Runner, Shared, row_shards
from tasks.store.store import StageStore

IN_PROCESS: dict[str, Any] = {"processes": False, "dashboard_address": ":0", "protocol": "tcp", "host": "127.0.0.1"}
ONE = ResourcesConfig(memory="1GiB", threads=1, patience=3.0, shard_rows=10, runner="dask", address="tcp://127.0.0.1:1")


@pytest.fixture
def runner(in_process_cluster: LocalCluster, tmp_path: Path) -> Iterator[DaskRunner]:
    resources = replace(ONE, address=in_process_cluster.scheduler_address)
    with connect(resources, tmp_path, logging.getLogger("test")) as found:
        yield found


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of an array."""

    all: Shared
    first: int
    last: int


def doubled(shard: Rows) -> Arrays:
    rows = shard.all["rows"][shard.first : shard.last]
    return {"rows": 2 * rows, "count": np.array(len(rows)), "none": np.zeros((0, 3), np.float32)}


def refused(shard: Rows) -> Arrays:
    raise ValueError(f"rows {shard.first} to {shard.last}: not these")


def results(runner: Runner, rows: np.ndarray) -> list[dict[str, np.ndarray]]:
    with runner.open_work("sums/of-all") as work:
        shared = work.share(rows=rows)
        spans = row_shards(len(rows), runner.shard_rows)
        found = work.map(doubled, [Rows(shared, x.start, x.stop) for x in spans])
        return [{name: np.array(array) for name, array in arrays.items()} for arrays in found]


@pytest.mark.parametrize("count", [0, 1, 10, 137])
def test_every_shard_comes_back_once_and_in_order(runner: DaskRunner, count: int) -> None:
    rows = np.random.default_rng(0).standard_normal((count, 3))
    here, there = results(LocalRunner(10), rows), results(runner, rows)
    assert len(here) == len(there) == -(-count // 10)
    for ours, theirs in zip(here, there, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    assert list(runner.root.iterdir()) == []


def test_a_map_of_a_whole_file_is_shared_without_a_copy(runner: DaskRunner, tmp_path: Path) -> None:
    store = StageStore(tmp_path / "stages")
    ref = store.once("rows", (), lambda writer: writer.array("rows", np.arange(50.0)))
    with runner.open_work("linked") as work:
        shared = work.share(rows=ref.array("rows"), some=ref.array("rows")[3:9])
        assert Path(str(shared.folder), "rows.npy").samefile(ref.file("rows.npy"))
        assert np.array_equal(shared["rows"], np.arange(50.0)) and np.array_equal(shared["some"], np.arange(3.0, 9.0))
    assert np.array_equal(ref.array("rows"), np.arange(50.0))


def test_what_a_shard_raises_is_raised_as_it_would_be_here(runner: DaskRunner) -> None:
    with runner.open_work("refused") as work, pytest.raises(ValueError, match=r"^rows 0 to 4: not these$"):
        list(work.map(refused, [Rows(Shared(), 0, 4), Rows(Shared(), 4, 8)]))
    assert list(runner.root.iterdir()) == []


def test_files_that_are_not_what_was_written_are_told(runner: DaskRunner) -> None:
    with runner.open_work("broken") as work:
        shard, job = (
            Rows(work.share(rows=np.arange(9.0)), 0, 9),
            WorkerJob(str(work.folder), worker_digest(), 1),
        )
        written = runner.client.submit(write_shard, doubled, shard, 0, job).result()
        assert np.array_equal(read_shard(written)["rows"], 2 * np.arange(9.0))
        np.save(Path(written.folder) / "rows.npy", np.zeros(9))
        with pytest.raises(ClusterError, match=r"rows\.npy: not what a worker wrote"):
            read_shard(written)
        (Path(written.folder) / "rows.npy").unlink()
        with pytest.raises(ClusterError, match=r"rows\.npy: a worker wrote it and here it cannot be read"):
            read_shard(written)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"code": "another"}, "another version of the code than the run"),
        ({"folder": "/nowhere/at/all"}, "does not see /nowhere/at"),
    ],
)
def test_a_worker_that_is_not_fit_says_so(
    runner: DaskRunner, tmp_path: Path, field: dict[str, str], message: str
) -> None:
    wrong = replace(WorkerJob(str(tmp_path), worker_digest(), 1), **field)
    with pytest.raises(ClusterError, match=message):
        runner.client.submit(write_shard, doubled, Rows(Shared(), 0, 1), 0, wrong).result()


def test_no_worker_is_waited_for_no_longer_than_told(tmp_path: Path) -> None:
    with LocalCluster(n_workers=0, **IN_PROCESS) as empty:
        resources = replace(ONE, address=empty.scheduler_address, patience=0.5)
        with (
            pytest.raises(ClusterError, match=r"had no worker for 0\.5 s"),
            connect(resources, tmp_path, logging.getLogger("test")),
        ):
            pass
        with Client(empty.scheduler_address, set_as_default=False) as client:
            runner = DaskRunner(client, tmp_path, resources)
            with (
                runner.open_work("x") as work,
                pytest.raises(ClusterError, match=r"no worker was left at .* for 0\.5 s"),
            ):
                list(work.map(doubled, [Rows(work.share(rows=np.arange(4.0)), 0, 4)]))

"""The same night on a real cluster: a scheduler and two workers, processes of their own that listen on TCP, one of them killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.flow.flow_support import PATIENCE, ROOT, CommandLine, last_days, rows_of, table_uri

# Small blocks and shards, so that a catalog of 400 items is many of them; a block's size may show in the bits, a shard's may not.
BLOCKS = ("--set", "projection.block_rows=4", "--set", "affinity.block_rows=16", "--set", "rectify.block_rows=16")
BRIEF = ("--set", "projection.ridge_grid=[1.0, 30.0]", "--set", "sinkhorn.max_iterations=6")
SHARDS = ("--set", "resources.shard_rows=12")
Here = tuple[Path, dict[str, Any]]
PRELOAD = ("tasks.shards.affinity", "tasks.shards.projection", "tasks.shards.rectify")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A scheduler's address and its workers."""

    address: str
    workers: list[subprocess.Popen[bytes]]

    @property
    def options(self) -> tuple[str, ...]:
        """Options of a run on this cluster."""
        return ("--set", "resources.runner=dask", "--set", f"resources.address={self.address}", *SHARDS)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    port, environment = free_port(), {**os.environ, "PYTHONPATH": str(ROOT)}
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    preload = [part for module in PRELOAD for part in ("--preload", module)]
    quiet = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path / "space"))
    worker = ["dask_worker", address, *quiet, *preload]
    started: list[subprocess.Popen[bytes]] = []

    def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "cluster.log").open("a") as log:
            command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
            started.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log))
        return started[-1]

    try:
        start(*scheduler)
        yield Cluster(address, [start(*worker), start(*worker)])
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def here(tiny_demo: Path, cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Here:
    """The demo's last day, published by one process."""
    demo = Path(shutil.copytree(tiny_demo, tmp_path_factory.mktemp("here") / "demo"))
    return demo, cli.published(demo, last_days(1)[0], *BLOCKS, *BRIEF)


def assert_equal(demo: Path, result: dict[str, Any], here: Here) -> None:
    """The same outputs of every stage and the same published rows, to the bit; and nothing left of the shards."""
    elsewhere, wanted = here
    assert {name: x["digest"] for name, x in result["stages"].items()} == {
        name: x["digest"] for name, x in wanted["stages"].items()
    }
    assert result["run_id"] == wanted["run_id"]
    day = result["as_of"]
    assert rows_of(table_uri(demo), day).equals(rows_of(table_uri(elsewhere), day))
    assert list((demo / "runs" / "stages").glob(".tmp-*")) == []


@pytest.mark.slow
def test_a_worker_killed_in_mid_run_costs_no_bit(demo: Path, cli: CommandLine, cluster: Cluster, here: Here) -> None:
    command = ("--config", demo / "run.toml", "--as-of", last_days(1)[0], "--json", *BLOCKS, *BRIEF, *cluster.options)
    running, end = cli.start("rectify", *command), time.monotonic() + PATIENCE
    while not any((demo / "runs" / "stages").glob(".tmp-shards-projection-*/0*")):
        assert running.process.is_alive() and time.monotonic() < end
        time.sleep(0.01)
    cluster.workers[0].send_signal(signal.SIGKILL)
    finished = running.wait()
    assert finished.code == 0, finished.err
    assert cluster.workers[0].poll() == -signal.SIGKILL and cluster.workers[1].poll() is None
    assert_equal(demo, finished.result, here)


def test_a_scheduler_that_is_not_there_is_one_line(demo: Path, cli: CommandLine) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    keys = ("resources.runner=dask", f"resources.address={address}", "resources.patience=1.0")
    dask = [x for key in keys for x in ("--set", key)]
    finished = cli.rectify(demo, last_days(1)[0], *dask)
    assert finished.code == 1
    assert f"resources.address: no Dask scheduler answered at {address} within 1 s" in finished.error

"""What a shard costs on a cluster: its way there and back, and the bytes that travel.

    python -m benchmarks.speed.cluster [--workers 2] [--shards 300] > benchmarks/results/cluster.md

A scheduler and workers of one thread each, processes of their own on this machine, over TCP.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from distributed.protocol.pickle import dumps

from tasks.resources.config import ResourcesConfig
from tasks.resources.process import use_threads
from tasks.shards.dask_runner import DaskRunner, connect
from tasks.shards.dask_worker import WorkerJob, write_shard
from tasks.store.code_digest import worker_digest
from tasks.store.runner import Arrays, Shared


@dataclass(frozen=True, slots=True)
class Piece:
    """A shard that does nothing but leave ``floats`` zeros."""

    given: Shared
    floats: int


def zeros(piece: Piece) -> Arrays:
    """What a shard would leave."""
    return {"zeros": np.zeros(piece.floats, np.float32)}


@contextmanager
def cluster(workers: int, folder: Path) -> Iterator[str]:
    """A scheduler's address, for the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, environment = f"tcp://127.0.0.1:{port}", {**os.environ, "PYTHONPATH": os.getcwd()}
    preload = ("--preload", "benchmarks.speed.cluster")
    one = (
        "dask_worker",
        address,
        "--no-nanny",
        "--nthreads",
        "1",
        "--no-dashboard",
        "--local-directory",
        str(folder / "space"),
        *preload,
    )
    commands = [("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"), *[one] * workers]
    started = []
    try:
        for module, *arguments in commands:
            command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
            started.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        yield address
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def shard_costs(runner: DaskRunner, shards: int) -> Iterator[str]:
    """Yield the lines of the table."""
    for floats in (1, 1 << 18, 1 << 22):
        count = shards if floats == 1 else max(8, shards // 10)
        with runner.open_work("zeros") as work:
            pieces = [Piece(work.share(rows=np.zeros(3)), floats)] * count
            list(work.map(zeros, pieces[:4]))
            start, spent = time.perf_counter(), time.process_time()
            for _ in work.map(zeros, pieces):
                pass
            wall, cpu = 1000 * (time.perf_counter() - start) / count, 1000 * (time.process_time() - spent) / count
            job = WorkerJob(str(work.folder), worker_digest(), 1)
            sent = len(dumps((write_shard, zeros, pieces[0], count, job)))
        yield f"| {floats * 4:,} | {count} | {wall:.1f} | {cpu:.1f} | {sent:,} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    for name, number in (("workers", 2), ("shards", 300)):
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    use_threads(1)
    print(f"python -m benchmarks.speed.cluster --workers {given.workers} --shards {given.shards}\n")
    with tempfile.TemporaryDirectory() as name, cluster(given.workers, Path(name)) as address:
        resources = ResourcesConfig(threads=1, runner="dask", address=address)
        with connect(resources, Path(name), logging.getLogger("cluster")) as runner:
            print("| bytes a shard leaves | shards | ms a shard | CPU ms of the run's process | bytes sent |")
            print("|---|---|---|---|---|")
            for line in shard_costs(runner, given.shards):
                print(line, flush=True)


if __name__ == "__main__":
    main()

"""What a shard costs on a cluster: its way there and back, the bytes that travel, and balancing by shards beside one thread here.

python -m benchmarks.speed.cluster [--workers 2] [--shards 300] [--items 1000000] [--rounds 5] > benchmarks/results/cluster.md

A scheduler and workers of one thread each, processes of their own on this machine, over TCP. "step": the sums of all rows and of all
columns once, kernels made before; here and there by turns, the least of the rounds. Rates count the graph's entries once a step.
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

from benchmarks.speed.sinkhorn_graphs import drawn
from rectifier_core.base.arrays import Float32
from rectifier_core.sinkhorn.scaling import Run, in_order, kernel_sums, make_columns, make_rows
from rectifier_core.sinkhorn.sparse_graph import Support, build_support
from tasks.resources.config import ResourcesConfig
from tasks.resources.process import use_threads
from tasks.shards.dask_runner import DaskRunner, connect
from tasks.shards.dask_worker import Terms, write_shard
from tasks.shards.sinkhorn import ShardedLines
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
    """Lines of the first table."""
    for floats in (1, 1 << 18, 1 << 22):
        count = shards if floats == 1 else max(8, shards // 10)
        with runner.open_work("zeros") as work:
            pieces = [Piece(work.share(rows=np.zeros(3)), floats)] * count
            list(work.map(zeros, pieces[:4]))
            start, spent = time.perf_counter(), time.process_time()
            for _ in work.map(zeros, pieces):
                pass
            wall, cpu = 1000 * (time.perf_counter() - start) / count, 1000 * (time.process_time() - spent) / count
            terms = Terms(str(work.folder), worker_digest(), runner.resources)
            sent = len(dumps((write_shard, zeros, pieces[0], count, terms)))
        yield f"| {floats * 4:,} | {count} | {wall:.1f} | {cpu:.1f} | {sent:,} |"


def step(run: Run, support: Support, vectors: tuple[Float32, Float32]) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    run(kernel_sums, support.row_blocks, vectors[:1])
    run(kernel_sums, support.column_blocks, vectors[1:])
    return time.perf_counter() - start


def step_costs(runner: DaskRunner, support: Support, rounds: int, workers: int) -> Iterator[str]:
    """Lines of the second table."""
    nothing = np.zeros(support.num_items)
    with runner.open_work("plan") as work:
        lines = ShardedLines(work, runner.shard_rows)
        for run in (lines, in_order):
            run(make_columns, support.column_blocks, (nothing, run(make_rows, support.row_blocks, (nothing,))))
        ones = np.ones(support.num_items, np.float32)
        vectors = (ones, ones)
        taken = [(step(in_order, support, vectors), step(lines, support, vectors)) for _ in range(rounds)]
    here, there = (min(x) for x in zip(*taken, strict=True))
    millions = support.num_entries / 1e6
    yield f"| here, 1 thread | {here:.3f} | {millions / here:.0f} |"
    yield f"| {workers} workers | {there:.3f} | {millions / there / workers:.0f} |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    for name, number in (("workers", 2), ("shards", 300), ("items", 1_000_000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    use_threads(1)
    print(
        f"python -m benchmarks.speed.cluster --workers {given.workers} --shards {given.shards} --items {given.items} --rounds {given.rounds}\n"
    )
    with tempfile.TemporaryDirectory() as name, cluster(given.workers, Path(name)) as address:
        resources = ResourcesConfig(threads=1, runner="dask", address=address)
        with connect(resources, Path(name), logging.getLogger("cluster")) as runner:
            print("| bytes a shard leaves | shards | ms a shard | CPU ms of the run's process | bytes sent |")
            print("|---|---|---|---|---|")
            for line in shard_costs(runner, given.shards):
                print(line, flush=True)
            support = build_support(drawn(given.items))
            print(
                f"\n{support.num_entries:,} entries\n\n| a step | seconds | million entries a second, a worker |\n|---|---|---|"
            )
            for line in step_costs(runner, support, given.rounds, given.workers):
                print(line, flush=True)


if __name__ == "__main__":
    main()

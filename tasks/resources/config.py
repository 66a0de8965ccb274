"""What a run may take of its machines: memory, threads, a device, and where its tasks run.

None of it is part of what a run is. Memory, threads and the runner change no published byte; a device changes rounding alone, and a repeat
on another one finds what was published.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from tasks.errors import InputError
from tasks.store.mapped import use_room
from tasks.store.runner import SHARD_ROWS

UNITS = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(MiB|GiB|TiB)")
_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://[^\s/]+:\d+")
DEFAULT_SHARE = 0.75
MAPPED_SHARE = 8
"""The share of memory, one in so many, that pages of mapped files may fill."""
LEAST = 512 * 2**20
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesConfig:
    """``memory`` ("8GiB") bounds what a process of the run holds at a time; by default three quarters of what the machine or the container
    has. ``threads`` are those of one process, by default the cores it may use. ``device`` is what anchors, projection and search compute
    on: "cpu", "cuda", or "auto", CUDA where torch sees it and else the CPU.

    ``runner`` "dask" sends the matching of each modality, cut into shards, to the ``distributed`` cluster whose scheduler listens at
    ``address`` ("tcp://host:8786"); its workers must see ``run.folder`` under the same path, and memory and threads are then those of
    one worker. ``patience`` are the seconds that a run waits for the scheduler to answer, and for a worker where none is left.
    ``shard_rows`` are the rows that one shard of work covers, wherever it runs.
    """

    memory: str | None = None
    threads: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    runner: Literal["local", "dask"] = "local"
    address: str | None = None
    patience: float = 60.0
    shard_rows: int = SHARD_ROWS

    def __post_init__(self) -> None:
        if self.memory is not None and not (_SIZE.fullmatch(self.memory) and self.memory_bytes >= LEAST):
            raise ValueError(f"memory: wanted at least 512MiB, as a number and MiB, GiB or TiB, got {self.memory!r}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads: wanted at least 1, got {self.threads}")
        if self.shard_rows < 1:
            raise ValueError(f"shard_rows: wanted at least 1, got {self.shard_rows}")
        if not 0 < self.patience < math.inf:
            raise ValueError(f"patience: wanted seconds above 0, got {self.patience}")
        if (self.runner == "dask") != (self.address is not None):
            raise ValueError(
                f"address: wanted the scheduler's where runner is dask, and only there, got {self.address!r}"
            )
        if self.address is not None and not _ADDRESS.fullmatch(self.address):
            raise ValueError(f"address: wanted tcp://host:port of a scheduler, got {self.address!r}")

    @property
    def memory_bytes(self) -> int:
        """What a process may hold."""
        if self.memory is None:
            return int(DEFAULT_SHARE * machine_memory())
        number, unit = _SIZE.fullmatch(self.memory).groups()  # type: ignore[union-attr]
        return int(float(number) * UNITS[unit])

    @property
    def thread_count(self) -> int:
        """How many threads a process uses."""
        return self.threads or len(os.sched_getaffinity(0))

    @property
    def torch_device(self) -> str:
        """What this process computes on, as torch names it. Raises InputError where that is to be CUDA and torch sees none."""
        there = self.device != "cpu" and torch.cuda.is_available()
        if self.device == "cuda" and not there:
            raise InputError(
                'resources.device: torch sees no CUDA device on this machine; "auto" takes the CPU where there is none'
            )
        return "cuda" if there else "cpu"


def machine_memory() -> int:
    """Bytes of memory that the machine has, or the container may use."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (x.read_text().strip() for x in LIMITS if x.exists())
    return min([whole, *(int(x) for x in limits if x.isdigit())])


def use_resources(config: ResourcesConfig) -> None:
    """Hold this process to the run's threads, and its maps to their share of the run's memory."""
    use_threads(config.thread_count)
    use_room(config.memory_bytes // MAPPED_SHARE)


def use_threads(count: int) -> None:
    """Let this process compute with ``count`` threads, everywhere.

    They are the threads of ``rectifier_core.base.threads``, of torch and of Arrow. BLAS, FAISS's own included, gets one: the shards call it from
    theirs, and it rounds differently by its number of threads.
    """
    torch.set_num_threads(count)
    pa.set_cpu_count(count)
    threadpool_limits(limits=1, user_api="blas")

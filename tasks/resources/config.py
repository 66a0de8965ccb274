"""The ``[resources]`` section: memory, threads, device, and where tasks run.

It is not part of a run's identity. Memory, threads and the runner change no published byte. A device changes rounding alone, so a repeat
on another device still counts as the same run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Positive
from tasks.store.runner import SHARD_ROWS

UNITS = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(MiB|GiB|TiB)")
_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://[^\s/]+:\d+")
DEFAULT_SHARE = 0.75
LEAST = 512 * 2**20
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ResourcesConfig:
    """What a run may take of its machine."""

    memory: str | None = Field(
        default=None,
        description='Most memory of one process, such as "8GiB". By default three quarters of the machine or container.',
    )
    threads: Count | None = Field(default=None, description="Threads of one process. By default the cores it may use.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description='Device of anchors, projection and search. "auto" takes CUDA where torch finds it.'
    )
    runner: Literal["local", "dask"] = Field(
        default="local", description='"dask" sends the matching, cut into shards, to the cluster at address.'
    )
    address: str | None = Field(
        default=None,
        description='Dask\'s scheduler, such as "tcp://host:8786". Its workers must see the run folder under the same path. '
        "Memory and threads are then those of one worker.",
    )
    patience: Positive = Field(default=60.0, description="Seconds to wait for the scheduler, and for a worker.")
    shard_rows: Count = Field(default=SHARD_ROWS, description="Rows of one shard of work.")

    def __post_init__(self) -> None:
        if self.memory is not None and not (_SIZE.fullmatch(self.memory) and self.memory_bytes >= LEAST):
            raise ValueError(f"memory: wanted at least 512MiB, as a number and MiB, GiB or TiB, got {self.memory!r}")
        if (self.runner == "dask") != (self.address is not None):
            raise ValueError(
                f"address: wanted the scheduler's where runner is dask, and only there, got {self.address!r}"
            )
        if self.address is not None and not _ADDRESS.fullmatch(self.address):
            raise ValueError(f"address: wanted tcp://host:port of a scheduler, got {self.address!r}")

    @property
    def memory_bytes(self) -> int:
        """Most bytes that a process may hold."""
        if self.memory is None:
            return int(DEFAULT_SHARE * machine_memory())
        number, unit = _SIZE.fullmatch(self.memory).groups()  # type: ignore[union-attr]
        return int(float(number) * UNITS[unit])

    @property
    def thread_count(self) -> int:
        """How many threads a process uses."""
        return self.threads or len(os.sched_getaffinity(0))


def machine_memory() -> int:
    """Bytes of memory that the machine has, or the container may use."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (x.read_text(encoding="utf-8").strip() for x in LIMITS if x.exists())
    return min([whole, *(int(x) for x in limits if x.isdigit())])

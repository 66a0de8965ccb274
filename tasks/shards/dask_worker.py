"""What a Dask worker does with a shard: check that it may, compute, and write the arrays into the shared folder.

A shard's folder appears by one rename. Every attempt has a folder of its own, so a slow worker and its replacement do not collide.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
from distributed import get_worker

from tasks.errors import ClusterError
from tasks.resources.process import use_threads
from tasks.store.atomic_files import TEMPORARY
from tasks.store.code_digest import worker_digest
from tasks.store.runner import Arrays

_CODE = worker_digest()
"""Computed when this process loads the code: a worker that kept running through an update still has the old code."""
_here = threading.local()


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """What a worker gets with every shard: the folder for its files, the run's code, and the threads of one process."""

    folder: str
    code: str
    threads: int | None


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """The arrays of one shard as files: their folder, and the checksum of each by name."""

    folder: str
    checksums: dict[str, int]


def write_shard(function: Callable[[Any], Arrays], shard: Any, number: int, job: WorkerJob) -> ShardFiles:
    """Compute a shard and write its arrays. Raises what ``function`` raises, and ClusterError if this worker is unfit."""
    name, folder = get_worker().address, Path(job.folder)
    if job.code != _CODE:
        raise ClusterError(other_code(name))
    if not folder.is_dir():
        raise ClusterError(no_folder(name, folder.parent))
    _use_threads(job.threads)
    arrays = function(shard)
    final = folder / f"{number:06d}-{token_hex(6)}"
    temporary = final.with_name(f"{TEMPORARY}{final.name}")
    temporary.mkdir()
    for key, array in arrays.items():
        np.save(temporary / f"{key}.npy", array, allow_pickle=False)
    temporary.rename(final)
    return ShardFiles(str(final), {key: checksum(array) for key, array in arrays.items()})


def checksum(array: np.ndarray[Any, Any]) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def describe(marker: str) -> dict[str, Any]:
    """Return this worker's code digest, and whether it sees a file."""
    return {"code": _CODE, "sees": os.path.exists(marker)}


def other_code(worker: str) -> str:
    """Return the message about a worker with other code."""
    return f"worker {worker} has another version of the code than the run: install the same on every worker"


def no_folder(worker: str, root: Path) -> str:
    """Return the message about a worker without the shared storage."""
    return f"worker {worker} does not see {root}: run.folder must be shared storage under one path on every worker"


def _use_threads(threads: int | None) -> None:
    """Divide the threads of the process, by default its worker slots, among the shards that it computes at a time."""
    if not getattr(_here, "set", False):
        slots = get_worker().state.nthreads
        use_threads(max(1, (threads or slots) // slots))
        _here.set = True

"""What a worker of a cluster does with a shard: it checks that it may, computes, and leaves the arrays in the shared folder.

A shard's files lie in a folder that appears by one rename. Every attempt has a folder of its own: a worker that was thought dead and
another that did its shard anew cannot meet.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
from distributed import get_worker

from tasks.errors import ClusterError
from tasks.resources.config import LEAST, ResourcesConfig
from tasks.resources.process import use_resources
from tasks.store.atomic_files import TEMPORARY
from tasks.store.code_digest import worker_digest
from tasks.store.runner import Arrays

_CODE = worker_digest()
"""Of when this process loaded the code: a worker that ran on through an update has the old one."""
_here = threading.local()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker is told with every shard: the folder for its files, the run's code, and what the process may take of its machine."""

    folder: str
    code: str
    resources: ResourcesConfig


@dataclass(frozen=True, slots=True)
class Written:
    """The arrays of one shard as files: their folder, and each one's checksum by name."""

    folder: str
    checksums: dict[str, int]


def write_shard(function: Callable[[Any], Arrays], shard: Any, number: int, terms: Terms) -> Written:
    """Work on a shard and write what it gives. Raises what ``function`` raises, and ClusterError where this worker cannot do it."""
    name = get_worker().address
    if terms.code != _CODE:
        raise ClusterError(
            f"worker {name} has another version of the code than the run: install the same on every worker"
        )
    folder = Path(terms.folder)
    if not folder.is_dir():
        raise ClusterError(
            f"worker {name} does not see {folder.parent}: run.folder must be shared storage under one path on every worker"
        )
    _use(terms.resources)
    arrays = function(shard)
    final = folder / f"{number:06d}-{token_hex(6)}"
    temporary = final.with_name(f"{TEMPORARY}{final.name}")
    temporary.mkdir()
    for key, array in arrays.items():
        np.save(temporary / f"{key}.npy", array, allow_pickle=False)
    temporary.rename(final)
    return Written(str(final), {key: checksum(array) for key, array in arrays.items()})


def checksum(array: np.ndarray[Any, Any]) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def describe(marker: str) -> dict[str, Any]:
    """What this worker's code is, and whether it sees a file."""
    return {"code": _CODE, "sees": os.path.exists(marker)}


def _use(resources: ResourcesConfig) -> None:
    """Share what the process may take among the shards that it has in hand; where the config does not say, by what the worker was given."""
    if getattr(_here, "set", False):
        return
    worker = get_worker()
    slots, limit = worker.state.nthreads, worker.memory_manager.memory_limit
    memory = resources.memory or (f"{max(LEAST, limit) >> 20}MiB" if limit else None)
    use_resources(replace(resources, threads=max(1, (resources.threads or slots) // slots), memory=memory))
    _here.set = True

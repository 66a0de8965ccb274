"""Where the shards of a stage are computed: in this process one after another, or on a Dask cluster (``dask_runner``).

A shard is a frozen dataclass of references, numbers and configs. Its function opens what they name, calls the core and returns arrays by
name. The rows and the config alone fix the shards, and results are taken in their order: a cluster gives the same bytes as one process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from rectifier_core.base.numerics import row_blocks

SHARD_ROWS = 16_384
Arrays = Mapping[str, np.ndarray[Any, Any]]
S = TypeVar("S")


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """Arrays that every shard reads: in memory, or as the ``.npy`` files of a folder."""

    arrays: Arrays | None = None
    folder: str | None = None

    def open(self) -> Arrays:
        """Return the arrays. Those of files are mapped, read-only."""
        return (self.arrays or {}) if self.folder is None else _mapped(self.folder)

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return self.open()[name]


@lru_cache(maxsize=8)
def _mapped(folder: str) -> Arrays:
    files = sorted(Path(folder).glob("*.npy"))
    return {path.stem: np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)) for path in files}


class ShardWork(Protocol):
    """The shards of one stage while it is built."""

    folder: Path
    """Files that shards read, until the stage is built. Unused where shards run in this process."""

    def share(self, **arrays: np.ndarray[Any, Any]) -> Shared:
        """Let shards read arrays until the stage is built."""

    def map(self, function: Callable[[S], Arrays], shards: Sequence[S]) -> Iterator[Arrays]:
        """Yield ``function(shard)`` of every shard, in their order. Use each result before the next: its files are deleted then."""


class Runner(Protocol):
    """Computes shards."""

    @property
    def shard_rows(self) -> int:
        """Most rows of a shard, rounded up to whole blocks."""

    @property
    def remote(self) -> bool:
        """Whether shards run in other processes, so that independent stages may overlap."""

    def open_work(self, name: str) -> AbstractContextManager[ShardWork]:
        """Open the work of the stage ``name`` for the block. Files of its shards are deleted at the end."""


@dataclass(frozen=True, slots=True)
class LocalRunner:
    """Computes every shard in this process, in order. The shard's function may use threads."""

    shard_rows: int = SHARD_ROWS
    remote: bool = False

    @contextmanager
    def open_work(self, name: str) -> Iterator[ShardWork]:
        """Pass arrays to shards and back without a file."""
        yield _LocalWork()


class _LocalWork:
    folder = Path(os.devnull)

    def share(self, **arrays: np.ndarray[Any, Any]) -> Shared:
        return Shared(arrays=arrays)

    def map(self, function: Callable[[S], Arrays], shards: Sequence[S]) -> Iterator[Arrays]:
        return map(function, shards)


def row_shards(num_rows: int, shard_rows: int, block_rows: int = 1) -> list[slice]:
    """Return slices of whole blocks that cover ``range(num_rows)``: a block gives the same bytes whichever shard it is in."""
    return list(row_blocks(num_rows, math.ceil(shard_rows / block_rows) * block_rows))

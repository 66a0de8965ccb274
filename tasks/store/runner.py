"""Where the shards of a stage are worked on: in this process one after another, or on a cluster (``dask_runner``).

A shard is a frozen dataclass of references, numbers and configs; its function opens what they name, calls the core and returns arrays by
name. The grid of shards is fixed by the rows and the config, and whoever maps takes the arrays in the order of shards, so that where they
were worked on cannot be seen in a bit. What is too small for a stage output of its own and too large to travel is ``share``d: a folder of
``.npy`` files that workers map, or the arrays themselves where nobody else is to read them.
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
    """Arrays that every shard of a pass reads: in memory, or as the ``.npy`` files of a folder."""

    held: Arrays | None = None
    folder: str | None = None

    def open(self) -> Arrays:
        """The arrays, read-only where they are files."""
        if self.folder is None:
            return self.held or {}
        return _mapped(self.folder)

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return self.open()[name]


@lru_cache(maxsize=8)
def _mapped(folder: str) -> Arrays:
    """A folder's arrays as plain views of their maps: blocks of them are views too, as compiled kernels want."""
    return {
        x.stem: np.asarray(np.load(x, mmap_mode="r", allow_pickle=False)) for x in sorted(Path(folder).glob("*.npy"))
    }


class ShardWork(Protocol):
    """The shards of one stage while it is built."""

    folder: Path
    """Where shards may leave files for one another until the stage is built; of no use in this process."""

    def share(self, **arrays: np.ndarray[Any, Any]) -> Shared:
        """Let shards read arrays until they are dropped, or the stage is built."""

    def drop(self, shared: Shared) -> None:
        """Let go of what no shard will read any more."""

    def map(self, function: Callable[[S], Arrays], shards: Sequence[S], *, at_home: bool = False) -> Iterator[Arrays]:
        """``function(shard)`` of every shard, in their order; each is done with before the next is asked for.

        ``at_home``: the n-th shard goes where the n-th went before, while that worker is there, for what it read is still in memory there.
        """


class Runner(Protocol):
    """Who works on shards."""

    @property
    def shard_rows(self) -> int:
        """Rows that a shard covers at most, but for the block it ends in."""

    @property
    def remote(self) -> bool:
        """Whether shards run outside of this process, so that stages that do not need one another may overlap."""

    def open_work(self, name: str) -> AbstractContextManager[ShardWork]:
        """The work of the stage ``name``, for the block; what its shards leave is gone behind it."""


@dataclass(frozen=True, slots=True)
class LocalRunner:
    """Every shard in this process, in order; what it computes in threads is the shard function's own business."""

    shard_rows: int = SHARD_ROWS
    remote: bool = False

    @contextmanager
    def open_work(self, name: str) -> Iterator[ShardWork]:
        """Shards that read and return plain arrays: no file is written."""
        yield _LocalWork()


class _LocalWork:
    folder = Path(os.devnull)

    def share(self, **arrays: np.ndarray[Any, Any]) -> Shared:
        return Shared(held=arrays)

    def drop(self, shared: Shared) -> None:
        pass

    def map(self, function: Callable[[S], Arrays], shards: Sequence[S], *, at_home: bool = False) -> Iterator[Arrays]:
        return map(function, shards)


def row_shards(num_rows: int, shard_rows: int, block_rows: int = 1) -> list[slice]:
    """Slices that cover ``range(num_rows)``, each of whole blocks: a block is computed alike whichever shard it is in."""
    return list(row_blocks(num_rows, math.ceil(shard_rows / block_rows) * block_rows))

"""The sums of a balancing as shards: the graph's two orders are mapped, vectors go out as files, lines come back.

A shard is a run of whole lines with about ``ENTRIES`` entries for each of the runner's rows. What it makes of the kernel stays in a file of
its own beside the graph, as long as the graph's and empty but for its lines, until the next reference: no two workers write one file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from secrets import token_hex

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32, Float64
from rectifier_core.base.threads import balanced_bounds, num_shards
from rectifier_core.sinkhorn.scaling import Run, Work, in_order, make_columns, make_rows, weigh_rows
from rectifier_core.sinkhorn.sparse_graph import Block, Side
from tasks.store.runner import Arrays, Runner, ShardWork, Shared

ENTRIES = 640
MAKING = (make_rows, make_columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinesShard:
    """Lines ``first`` to ``last`` of the side ``graph`` (``indptr``, ``indices``, ``logits``), for one of the functions of ``scaling``.

    ``kernel`` is the file that holds the shard's part of the kernel, ``vectors`` what the function takes, by place.
    """

    work: Work
    graph: Shared
    kernel: str
    vectors: Shared
    first: int
    last: int


def lines_shard(shard: LinesShard) -> Arrays:
    """What the function gives for the shard's lines; of ``weigh_rows`` the weights as well, in the order of entries."""
    indptr, indices, logits = (shard.graph[name] for name in ("indptr", "indices", "logits"))
    made = Path(f"{shard.kernel}.{token_hex(6)}")
    kernel = _kernel(shard, made, len(indices))
    side, cuts = Side(indptr=indptr, indices=indices, logits=logits, kernel=kernel), _cuts(indptr, shard)
    blocks = [Block(side=side, first=first, last=last) for first, last in pairwise(cuts)]
    lines = in_order(shard.work, blocks, tuple(shard.vectors[f"v{at}"] for at in range(len(shard.vectors.open()))))[
        shard.first :
    ]
    if shard.work in MAKING:
        made.replace(shard.kernel)
    if shard.work is not weigh_rows:
        return {"lines": lines}
    return {"lines": lines, "weights": kernel[int(indptr[shard.first]) : int(indptr[shard.last])]}


def _kernel(shard: LinesShard, made: Path, entries: int) -> Float32:
    """The kernel to write where the function makes one, else the one made; changes to that are this process's own."""
    if shard.work in MAKING:
        return np.asarray(open_memmap(made, mode="w+", dtype=np.float32, shape=(entries,)))
    if not os.path.exists(shard.kernel):
        return np.empty(0, np.float32)
    return np.asarray(np.load(shard.kernel, mmap_mode="c" if shard.work is weigh_rows else "r", allow_pickle=False))


def _cuts(indptr: NDArray[np.int64], shard: LinesShard) -> list[int]:
    part = indptr[shard.first : shard.last + 1]
    bounds = balanced_bounds(part - part[0], min(num_shards(int(part[-1] - part[0])), len(part) - 1))
    return sorted({shard.first + at for at in bounds})


@contextmanager
def lines_run(runner: Runner, name: str, entries: int) -> Iterator[Run]:
    """How a balancing named ``name`` works on blocks, for the block: here where all entries are one shard's, or the runner is."""
    if not runner.remote or entries <= ENTRIES * runner.shard_rows:
        yield in_order
        return
    with runner.open_work(name) as work:
        yield ShardedLines(work, runner.shard_rows)


class ShardedLines:
    """``scaling.Run`` by shards: ``work`` does them, its folder takes their kernels."""

    def __init__(self, work: ShardWork, shard_rows: int) -> None:
        self._work, self._entries = work, ENTRIES * shard_rows
        self._sides: dict[int, tuple[Shared, list[int]]] = {}
        self._kernels: dict[int, list[Path]] = {}
        self._numbers = count()

    def __call__(self, work: Work, blocks: Sequence[Block], vectors: tuple[Float32 | Float64, ...]) -> Float64:
        """``work`` on all lines of the side that ``blocks`` cut, wherever it is done: [I] float64."""
        side = blocks[0].side
        graph, bounds = self._graph(side)
        if work in MAKING:
            self._forget(side, len(bounds) - 1)
        given = self._work.share(**{f"v{at}": vector for at, vector in enumerate(vectors)})
        spans, kernels = list(pairwise(bounds)), self._kernels[id(side)]
        shards = [
            LinesShard(work=work, graph=graph, kernel=str(kernel), vectors=given, first=first, last=last)
            for (first, last), kernel in zip(spans, kernels, strict=True)
        ]
        lines = np.empty(len(side.indptr) - 1)
        for (first, last), found in zip(spans, self._work.map(lines_shard, shards, at_home=True), strict=True):
            lines[first:last] = found["lines"]
            if "weights" in found:
                side.kernel[int(side.indptr[first]) : int(side.indptr[last])] = found["weights"]
        self._work.drop(given)
        return lines

    def _graph(self, side: Side) -> tuple[Shared, list[int]]:
        if id(side) not in self._sides:
            shared = self._work.share(indptr=side.indptr, indices=side.indices, logits=side.logits)
            parts = -(-int(side.indptr[-1]) // self._entries)
            bounds = sorted(set(balanced_bounds(side.indptr, min(parts, len(side.indptr) - 1))))
            self._sides[id(side)] = shared, bounds
        return self._sides[id(side)]

    def _forget(self, side: Side, parts: int) -> None:
        """Drop what is left of the side's last kernel; the next gets names that nobody has written to."""
        for path in self._kernels.get(id(side), []):
            path.unlink(missing_ok=True)
        number = next(self._numbers)
        self._kernels[id(side)] = [self._work.folder / f"kernel-{number}-{part}.npy" for part in range(parts)]

"""Work on row ranges in threads. Their number is torch's (``OMP_NUM_THREADS``, ``torch.set_num_threads``).

Compiled kernels release the interpreter's lock and run in plain threads. Numba's own threading layers do not fit: the built-in one ends
the process when two Python threads enter it at once, and the OpenMP one does not survive a fork.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba
import torch

from rectifier_core.base.numerics import row_blocks

SHARDS_PER_THREAD = 4
"""More shards than threads, so that other threads take over from a slow one."""


def kernel(
    *signatures: numba.core.typing.templates.Signature, fastmath: set[str] | bool = False
) -> Callable[..., Callable[..., None]]:
    """Compile a function for these types when its module is loaded, to run without the interpreter's lock; kept on disk where possible.

    The first load compiles. Every load does where neither the package's folder nor the user's cache is writable.
    """

    def compiled(function: Callable[..., None]) -> Callable[..., None]:
        try:
            made: Callable[..., None] = numba.njit(list(signatures), nogil=True, cache=True, fastmath=fastmath)(
                function
            )
        except (RuntimeError, OSError):
            made = numba.njit(list(signatures), nogil=True, fastmath=fastmath)(function)
        return made

    return compiled


def read_only(dtype: numba.types.Type, ndim: int) -> numba.types.Array:
    """The type of a contiguous array that a kernel only reads, such as a memory map."""
    return numba.types.Array(dtype, ndim, "C", readonly=True)


def num_shards(work: float) -> int:
    """The number of shards for ``work`` (roughly, multiply-adds): one where starting threads costs more than it saves."""
    threads = torch.get_num_threads()
    return SHARDS_PER_THREAD * threads if threads > 1 and work > 2e6 else 1


def in_shards(work: Callable[[int, int], None], bounds: list[int]) -> None:
    """Call ``work(bounds[s], bounds[s + 1])`` for every s. What it writes must not depend on the order.

    Threads end with the call, because a fork would lose them.
    """
    ranges = iter(list(pairwise(bounds)))
    failures: list[BaseException] = []

    def draw() -> None:
        # One iterator for all threads: the interpreter hands out each of a list's elements once.
        for first, last in ranges:
            try:
                work(first, last)
            except BaseException as error:
                failures.append(error)
                return

    helpers = [threading.Thread(target=draw) for _ in range(min(torch.get_num_threads(), len(bounds) - 1) - 1)]
    for helper in helpers:
        helper.start()
    draw()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def even_bounds(count: int, shards: int) -> list[int]:
    """``shards`` ranges of ``range(count)`` of nearly equal length."""
    return [count * shard // shards for shard in range(shards + 1)]


def in_threads(work: Callable[[slice], None], blocks: list[slice], threads: int) -> Iterator[slice]:
    """Call ``work`` on every block, ``threads`` at a time, and yield the blocks in order as they are done."""
    if threads == 1:
        for block in blocks:
            work(block)
            yield block
    else:
        with ThreadPoolExecutor(threads) as pool:
            for block, _ in zip(blocks, pool.map(work, blocks), strict=True):
                yield block


def on_row_blocks(work: Callable[[slice], None], num_rows: int, block_rows: int, threads: int) -> None:
    """Call ``work`` on every block of ``num_rows`` rows, ``threads`` at a time. What it writes must not depend on the order."""
    for _ in in_threads(work, list(row_blocks(num_rows, block_rows)), threads):
        pass

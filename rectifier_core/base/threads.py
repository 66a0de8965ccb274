"""Work on blocks of rows in threads. NumPy, torch and FAISS let go of the interpreter's lock in their loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from rectifier_core.base.numerics import row_blocks


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

"""How much memory this process holds, and the most that each stage held.

We count anonymous memory. Pages of mapped files are not counted: the system takes them back whenever it needs the room. The kernel keeps no
high-water mark of anonymous memory, so a thread reads it every ``INTERVAL`` seconds while a stage is built.
"""

from __future__ import annotations

import ctypes
import resource
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pyarrow as pa

STATUS = Path("/proc/self/status")
INTERVAL = 0.02


class Peak:
    """The most bytes held while it was watched."""

    def __init__(self) -> None:
        self.size = 0


class _Sampler:
    """Samples the memory of the process for everyone who watches it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._highest = 0
        self._peaks: list[Peak] = []

    def sample(self) -> int:
        """Update all peaks. Return the highest value seen so far in this process."""
        size = held_bytes()
        with self._lock:
            self._highest = max(self._highest, size)
            for peak in self._peaks:
                peak.size = max(peak.size, size)
            return self._highest

    @contextmanager
    def watch(self) -> Iterator[Peak]:
        _free_unused()
        peak, done = Peak(), threading.Event()
        with self._lock:
            self._peaks.append(peak)
        thread = threading.Thread(target=self._run, args=(done,), daemon=True)
        thread.start()
        try:
            yield peak
        finally:
            done.set()
            self.sample()
            thread.join()
            with self._lock:
                self._peaks.remove(peak)

    def _run(self, done: threading.Event) -> None:
        while not done.wait(INTERVAL):
            self.sample()


def held_bytes() -> int:
    """Return the anonymous memory of this process; where the system does not tell, its largest resident set so far."""
    with suppress(OSError):
        lines = (line.split() for line in STATUS.read_text(encoding="utf-8").splitlines())
        sizes = [int(words[1]) for words in lines if words and words[0] in ("RssAnon:", "RssShmem:")]
        if sizes:
            return sum(sizes) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _free_unused() -> None:
    """Return freed memory to the system. The C library and Arrow keep it, so a stage would start from its predecessors' peak."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


_SAMPLER = _Sampler()


def peak_memory_bytes() -> int:
    """Return the most memory that this process has held so far."""
    return _SAMPLER.sample()


def watch_memory() -> AbstractContextManager[Peak]:
    """Watch the memory of a block. ``size`` is its peak over all threads, once the block has ended."""
    return _SAMPLER.watch()

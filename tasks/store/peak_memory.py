"""How much memory this process holds and has held: the whole of it, and each stage's own peak.

The kernel keeps one high-water mark a process. Writing 5 to ``clear_refs`` sets it back to what is resident now (proc(5)), so that the
next mark is the next stage's own; where that is not allowed a stage's peak is that of the process so far.
"""

from __future__ import annotations

import ctypes
import resource
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pyarrow as pa

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """The most bytes that were resident while it was watched."""

    def __init__(self) -> None:
        self.size = 0


class _Marks:
    """The process's high-water mark, shared by everyone who watches it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._highest = 0
        self._watching: list[Peak] = []

    def take(self, *, anew: bool) -> int:
        """The mark of the whole process; ``anew`` starts the kernel's over, once everyone has been told what it was."""
        with self._lock:
            here = _high_water()
            self._highest = max(self._highest, here)
            for peak in self._watching:
                peak.size = max(peak.size, here)
            if anew:
                with suppress(OSError):
                    CLEAR.write_text("5")
            return self._highest

    @contextmanager
    def watch(self) -> Iterator[Peak]:
        """Watch the mark from its start at what is resident now, no more of it than need be."""
        give_back()
        self.take(anew=True)
        peak = Peak()
        self._watching.append(peak)
        try:
            yield peak
        finally:
            self.take(anew=False)
            self._watching.remove(peak)


def _high_water() -> int:
    found = _status("VmHWM:")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if found is None else found


def _status(name: str) -> int | None:
    try:
        line = next(x for x in STATUS.read_text().splitlines() if x.startswith(name))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def resident_bytes() -> int:
    """What this process holds now; where the system does not say, the most it has held."""
    found = _status("VmRSS:")
    return _high_water() if found is None else found


def give_back() -> None:
    """Return to the system what earlier stages freed: the C library and Arrow keep it, and a stage would start from all that was."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


_MARKS = _Marks()


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far."""
    return _MARKS.take(anew=False)


def watch_memory() -> AbstractContextManager[Peak]:
    """Watch the memory of a block: ``size`` is its peak, all threads of the process together, once the block is over."""
    return _MARKS.watch()

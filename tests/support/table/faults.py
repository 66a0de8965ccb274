"""Trace the system calls of a process with strace, and make one of them fail or kill the process.

An interpreter with its libraries loaded (``Nursery``) forks a process for each job. strace attaches before the job begins, so the trace
holds no imports. strace counts calls for each thread. A point is therefore named by call, path and occurrence. Paths repeat because the
process draws the same random names every time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(
    STRACE is None, reason="strace is not installed: system calls can be neither seen nor interrupted"
)

# What changes a disk, by what it is called in the tables.
CLASSES = {
    "rename": ("rename", "renameat", "renameat2"),
    "link": ("link", "linkat"),
    "unlink": ("unlink", "unlinkat", "rmdir"),
    "open": ("open", "openat", "creat"),
    "write": ("write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile"),
    "fsync": ("fsync", "fdatasync"),
    "mkdir": ("mkdir", "mkdirat"),
    "ftruncate": ("ftruncate", "truncate", "fallocate"),
}
CLASS_OF = {call: name for name, calls in CLASSES.items() for call in calls}
DEATH, NO_ROOM, BROKEN, INTERRUPTED = "SIGKILL", "ENOSPC", "EIO", "EINTR"
FAULTS = dict.fromkeys(CLASSES, (DEATH, NO_ROOM, BROKEN, INTERRUPTED)) | {"unlink": (DEATH, BROKEN, INTERRUPTED)}
PATIENCE = 60.0


class Call(NamedTuple):
    """One system call of a trace: the paths it names, the path behind its descriptor first; all arguments as strace wrote them."""

    thread: int
    name: str
    paths: tuple[str, ...]
    arguments: str
    result: int

    @property
    def changes(self) -> bool:
        """Whether it may change what is on the disk."""
        opens = CLASS_OF[self.name] == "open" and self.name != "creat"
        return not opens or "O_CREAT" in self.arguments or "O_TRUNC" in self.arguments


class Point(NamedTuple):
    """The ``number``-th call of that name that names ``path``; ``{pid}`` in it stands for the process."""

    call: str
    path: str
    number: int

    @property
    def kind(self) -> str:
        return CLASS_OF[self.call]


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a job: exit status (negative: the signal), standard error, the trace, and the number of injected faults."""

    code: int
    said: str
    trace: list[Call]
    injected: int


class Nursery:
    """A process that has imported ``module`` and forks a process for each call of one of its functions."""

    def __init__(self, module: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.table.nursery", module],
            env=dict(environment),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, job: str, *given: Any, strace: list[str] | None = None, watch: list[str] | None = None) -> Job:
        """Fork a process for ``job(*given)``. With ``strace`` options it starts under strace, limited to the paths ``watch``."""
        self._count += 1
        said, trace = (self._folder / f"{self._count}.{kind}" for kind in ("err", "trace"))
        pid = self._ask(job=job, given=given, traced=strace is not None, said=str(said))
        tracer = None
        if strace is not None:
            assert STRACE is not None
            options = [x for path in watch or [] for x in ("-P", path.replace("{pid}", str(pid)))]
            arguments = [STRACE, "-f", "-q", "-y", "-o", str(trace), *strace, *options, "-p", str(pid)]
            tracer = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return Job(self, pid, tracer, said, trace)

    def run(self, job: str, *given: Any, **options: Any) -> Ended:
        """Start a job and wait for its end."""
        return self.start(job, *given, **options).wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)


@dataclass(frozen=True, slots=True)
class Job:
    """A job under way."""

    nursery: Nursery
    pid: int
    tracer: subprocess.Popen[str] | None
    said: Path
    trace: Path

    def wait_until_stopped(self) -> None:
        """Wait until the signal of ``stop_after`` stopped the job. Raises AssertionError after ``PATIENCE`` seconds."""
        end = time.monotonic() + PATIENCE
        while not self.trace.exists() or "--- stopped by SIGSTOP ---" not in self.trace.read_text():
            assert time.monotonic() < end, self.said.read_text()
            time.sleep(0.002)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"

    def go_on(self) -> None:
        """Let it run again."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self) -> Ended:
        code = self.nursery._ask(wait=self.pid)
        if self.tracer is not None:
            _, why = self.tracer.communicate(timeout=PATIENCE)
            assert self.trace.exists(), why
        text = self.trace.read_text() if self.tracer is not None else ""
        return Ended(code, self.said.read_text(), list(parsed(text)), text.count("(INJECTED)"))


_LINE = re.compile(r"(\d+)\s+(\w+)\((.*)\)\s+= (-?\d+|\?)")
_UNFINISHED = re.compile(r"(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+)\s+<\.\.\. (\w+) resumed>(.*)$")
_PATHS = re.compile(r"\d+<([^>]*)>|\"((?:[^\"\\]|\\.)*)\"")


def parsed(trace: str) -> Iterator[Call]:
    """Yield the calls of a trace in the order of their start, those that never returned included."""
    pending: dict[str, list[str]] = {}
    lines: list[list[str]] = []
    for line in trace.splitlines():
        if found := _UNFINISHED.match(line):
            pending[found[1]] = [f"{found[1]} {found[2]}({found[3]}"]
            lines.append(pending[found[1]])
        elif found := _RESUMED.match(line):
            if found[1] in pending:
                pending.pop(found[1]).append(found[3])
        else:
            lines.append([line])
    for parts in lines:
        text = "".join(parts)
        found = _LINE.match(text) or _LINE.match(text + ") = ?")
        if found is not None and found[2] in CLASS_OF:
            result = int(found[4]) if found[4] != "?" else -1
            yield Call(int(found[1]), found[2], tuple(_named(found[2], found[3])), found[3], result)


def _named(call: str, arguments: str) -> Iterator[str]:
    """Yield the paths of a call: of its descriptor, and as text. Written data is no path."""
    for found in _PATHS.finditer(arguments):
        path = found[1] if found[1] is not None else found[2]
        if path.startswith("/"):
            yield path.removesuffix("(deleted)")
        if CLASS_OF[call] == "write":
            return


def all_calls() -> str:
    """strace's option to see whatever may change a disk."""
    return "trace=" + ",".join(CLASS_OF)


def points(trace: list[Call], pid: int, roots: tuple[str, ...]) -> list[Point]:
    """Return every call that may change a file under ``roots``, as points that strace can find again."""
    counted: Counter[tuple[int, str, str]] = Counter()
    found = []
    for call in trace:
        # strace finds a rename by its first name. Links are told apart by their second name: one file is linked several times.
        path = call.paths[-1 if CLASS_OF[call.name] == "link" else 0] if call.paths else ""
        if not path.startswith(roots):
            continue
        for each in set(call.paths):
            counted[call.thread, call.name, each] += 1
        if call.changes:
            found.append(Point(call.name, re.sub(rf"\b{pid}\b", "{pid}", path), counted[call.thread, call.name, path]))
    assert len(set(found)) == len(found), (
        f"two threads do the same: {[x for x, times in Counter(found).items() if times > 1]}"
    )
    return found


def stop_after(call: str, number: int) -> list[str]:
    """strace's options that stop the process after the ``number``-th such call of its main thread."""
    return ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGSTOP:when={number}"]


def disturbance(point: Point, fault: str) -> list[str]:
    """strace's options that kill the process right before a point, or make it fail there."""
    what = f"signal={fault}" if fault == DEATH else f"error={fault}"
    return ["-e", f"trace={point.call}", "-e", f"inject={point.call}:{what}:when={point.number}"]

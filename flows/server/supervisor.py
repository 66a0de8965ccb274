"""The process that keeps a Prefect server and a worker up: it starts either again when it dies, and takes both along when it ends.

It holds a lock on ``supervisor.json`` in the server's folder for as long as it lives, whose kernel-kept holder no recycled process id can
be mistaken for. Should it be killed itself, the kernel ends the server and the worker (``PR_SET_PDEATHSIG``); a flow run at work then goes
on to its end, as it does when its worker is killed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

RECORD = "supervisor.json"
POOL = "catalog-rectifier"
TICK, LONGEST_WAIT, STEADY = 0.5, 60.0, 120.0
WORKER_GRACE, SERVER_GRACE = 10.0, 20.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(slots=True)
class Kept:
    """A child that is to be up, ``ready`` saying whether it may start yet; ``alone`` where what it leaves behind goes with it."""

    name: str
    command: list[str]
    log: Path
    alone: bool
    ready: Callable[[], bool] = lambda: True
    process: subprocess.Popen[bytes] | None = None
    wait: float = 1.0
    due: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Start it with its output at the end of its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.since = time.monotonic()
        tell(f"{self.name} started, pid {self.process.pid}")

    def look(self) -> bool:
        """Start it if it is due; whether it died, to be started again after a wait that doubles until it has been up for a while."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.due and self.ready():
                self.start()
        elif self.process.poll() is not None:
            self.wait = 1.0 if now - self.since > STEADY else min(2 * self.wait, LONGEST_WAIT)
            self.due = now + self.wait
            tell(f"{self.name} ended with {self.process.returncode}; it is started again in {self.wait:g} s")
            self._end_rest()
            self.process = None
            return True
        return False

    def retire(self) -> None:
        """Ask it to end when it has done what it is at, and have another started."""
        if self.process is not None and self.process.poll() is None:
            tell(f"{self.name} pid {self.process.pid} makes way for another")
            self.process.terminate()
            self.process, self.due = None, time.monotonic() + self.wait

    def stop(self, grace: float) -> None:
        """Ask it to end, and make it after ``grace`` seconds."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._end_rest()
        tell(f"{self.name} stopped")

    def _end_rest(self) -> None:
        if self.alone and self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def supervise(folder: Path, port: int) -> None:
    """Keep both up until SIGTERM or SIGINT. Ends at once where another supervisor holds ``folder``."""
    handle = os.open(folder / RECORD, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps({"pid": os.getpid(), "port": port}).encode(), 0)
    # Whatever outlives its parent, a flow run whose worker was killed, becomes ours: to be reaped, and to be ended when we end.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    prefect = [sys.executable, "-m", "prefect"]
    server = [*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    worker = [*prefect, "worker", "start", "--pool", POOL, "--type", "process", "--name", f"{POOL}-worker"]
    logs = folder / "logs"
    kept = [
        Kept("server", server, logs / "server.log", alone=True),
        # Flow runs are the worker's children, and outlive it.
        Kept("worker", worker, logs / "worker.log", alone=False, ready=lambda: is_healthy(port)),
    ]
    while not told:
        for child in kept:
            if child.look() and child.name == "server":
                # A worker that the server left alone no longer hears of cancellations: another takes its place, it ends with its last run.
                kept[1].retire()
        _reap(kept)
        time.sleep(TICK)
    kept[1].stop(WORKER_GRACE)
    _kill_all(except_for=kept[0].process)
    kept[0].stop(SERVER_GRACE)
    _kill_all()
    os.ftruncate(handle, 0)


def is_healthy(port: int) -> bool:
    """Whether a Prefect server answers at that port of this machine."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as answer:
            return bool(answer.read() == b"true")
    except (urllib.error.URLError, OSError, ValueError):
        return False


def tell(what: str) -> None:
    """A line of the supervisor's log."""
    sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {what}\n")
    sys.stderr.flush()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _reap(kept: list[Kept]) -> None:
    """Collect what ended of those that others left to us; our own two are collected where they are looked at."""
    own = {x.process.pid for x in kept if x.process is not None}
    for pid in _children(os.getpid()):
        if pid not in own:
            os.waitpid(pid, os.WNOHANG)


def _kill_all(except_for: subprocess.Popen[bytes] | None = None) -> None:
    """End every process below this one, but the subtree of ``except_for``; the dead ones' children come to us, so more than once."""
    spared = set() if except_for is None else {except_for.pid}
    while found := [x for x in _children(os.getpid()) if x not in spared]:
        for pid in found:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _children(pid: int) -> list[int]:
    return [int(x) for task in Path(f"/proc/{pid}/task").iterdir() for x in (task / "children").read_text().split()]

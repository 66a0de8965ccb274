"""One process for each day of a backfill, so that a day that crashes or leaks memory does not affect the other days.

The processes are forks of a server process that has imported what they need. A day therefore starts in milliseconds and not in ten
seconds. A process ends when its parent ends. This module imports the standard library alone, and so does what it imports.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from typing import Any

from tasks.resources.exit_with_parent import leave_with_parent

TICK = 0.5
PATIENCE = 20.0
Run = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a day's run returned, or its exit status, the kind of error and its message. `answered`: the process did not crash."""

    result: dict[str, Any] | None
    code: int = 0
    kind: str = ""
    message: str = ""
    answered: bool = True


class DayProcess:
    """Runs `run(*arguments, wait_for_turn)` in a process. `wait_for_turn()` blocks until `finish` is called."""

    def __init__(self, run: Run, arguments: Sequence[Any], preload: Sequence[str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(preload))
        self._results, theirs = context.Pipe(duplex=False)
        # Not an event: setting one waits for its sleepers, also for a process that was killed.
        self._turn = context.Semaphore(0)
        self._process = context.Process(target=_serve, args=(theirs, self._turn, run, tuple(arguments)), daemon=False)
        self._process.start()
        theirs.close()

    def finish(self) -> Ended:
        """Let the process have its turn, and wait for its end."""
        self._turn.release()
        # In ticks: a signal that another library handles would not interrupt an unlimited wait.
        while not self._results.poll(TICK):
            pass
        try:
            ended: Ended = self._results.recv()
        except EOFError:
            self._process.join(PATIENCE)
            code = self._process.exitcode
            how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with status {code}"
            message = f"its process was ended {how}; if memory was short, run fewer days at a time"
            return Ended(None, code=1, message=message, answered=False)
        return ended

    def stop(self) -> None:
        """Ask the process to end."""
        if self._process.is_alive():
            self._process.terminate()

    def join(self) -> None:
        """Wait for the end of the process, and kill it if that takes too long."""
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._results.close()


def _serve(results: Connection, turn: Semaphore, run: Run, arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches the whole process group, and the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # These variables say which flow run this process is. They name the parent's run.
    for name in [x for x in os.environ if x.startswith("PREFECT__")]:
        del os.environ[name]
    # A kill leaves the day resumable, and it must not look like a day that failed.
    leave_with_parent(lambda: os.kill(os.getpid(), signal.SIGKILL))

    def wait_for_turn() -> None:
        while not turn.acquire(timeout=TICK):
            pass

    try:
        ended = Ended(run(*arguments, wait_for_turn))
    except BaseException as error:
        text, code = " ".join(str(error).split()), getattr(error, "exit_code", None)
        message = text if code is not None else f"{type(error).__name__}: {text}"
        ended = Ended(None, code=1 if code is None else code, kind=type(error).__name__, message=message)
    results.send(ended)
    results.close()

"""A process a day: what one day holds or breaks is gone with it, and no other day notices.

Processes are forks of a server that has imported what they need, so a day does not pay for that again. Each goes when its parent goes,
however that ends; a day that is cut off anywhere is resumed by the next run of it. This module and what it imports know the standard
library alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tasks.resources.exit_with_parent import leave_with_parent

TICK = 0.5
PATIENCE = 20.0
Run = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a day's process ended: what its run returned, or its exit status, the kind of error and its one line.

    ``answered`` is False where the process died without a word.
    """

    found: dict[str, Any] | None
    code: int = 0
    kind: str = ""
    message: str = ""
    answered: bool = True


class DayProcess:
    """``run(*given, turn)`` in a process of its own; where it calls ``turn()`` it waits until it is told to ``go``."""

    def __init__(self, run: Run, given: Sequence[Any], preload: Sequence[str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(preload))
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, run, tuple(given)), daemon=False)
        self._process.start()
        theirs.close()
        self._ended: Ended | None = None

    def wait(self) -> Ended | None:
        """Wait until it asks for its turn (None) or ends."""
        if self._ended is not None:
            return self._ended
        # In ticks: a signal that another library handles would leave an unlimited wait waiting.
        while not self._pipe.poll(TICK):
            pass
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            answer = self._silent()
        self._ended = answer
        return self._ended

    def go(self) -> None:
        """Let it have its turn."""
        if self._ended is None:
            try:
                self._pipe.send(None)
            except OSError:
                self._ended = self._silent()

    def _silent(self) -> Ended:
        self._process.join(PATIENCE)
        code = self._process.exitcode
        ended = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with status {code}"
        message = f"its process was ended {ended}; where memory was short, fewer days at a time need less"
        return Ended(None, code=1, message=message, answered=False)

    def stop(self) -> None:
        """Ask it to end."""
        if self._process.is_alive():
            self._process.terminate()

    def join(self) -> None:
        """Wait for its end, and make it end where that takes too long."""
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, run: Run, given: tuple[Any, ...]) -> None:
    # Ctrl-C reaches the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By these Prefect tells a worker's process which flow run it is: that one is the parent.
    for name in [x for x in os.environ if x.startswith("PREFECT__")]:
        del os.environ[name]
    leave_with_parent(_leave)

    def turn() -> None:
        try:
            pipe.send(None)
            while not pipe.poll(TICK):
                pass
            pipe.recv()
        except (EOFError, OSError):
            # Nobody is there any more to say when: a run that was cut off, not one that failed.
            _leave()

    try:
        answer = Ended(run(*given, turn))
    except BaseException as error:
        said, code = " ".join(str(error).split()), getattr(error, "exit_code", None)
        message = said if code is not None else f"{type(error).__name__}: {said}"
        answer = Ended(None, code=1 if code is None else code, kind=type(error).__name__, message=message)
    pipe.send(answer)
    pipe.close()


def _leave() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

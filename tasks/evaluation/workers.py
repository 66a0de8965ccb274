"""Worker processes with one thread each: what keeps a grid's cells from fighting over the interpreter's lock and over the cores.

A worker is a fresh interpreter that has its environment before any numeric library is loaded; it is handed functions and small arguments
(references, configs), never arrays. Only its own work is lost when it dies, and it goes when its parent goes, however that ends.

This module and what it imports know the standard library alone: a worker imports it before its environment is set.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

from tasks.resources.exit_with_parent import leave_with_parent

Found = TypeVar("Found")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")


class WorkFailedError(Exception):
    """Work that failed: the message is one line, ``details`` the worker's traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class StoppedError(Exception):
    """Nothing is wrong with the work: the workers were stopped."""


class Workers:
    """Up to ``count`` processes, started when they are first needed; call it from as many threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._lock, self._stopped, self._all = threading.Lock(), False, list[_Worker]()
        for _ in range(count):
            self._idle.put(None)

    def __call__(self, function: Callable[..., Found], *given: Any) -> Found:
        """``function(*given)`` in a worker; waits for one, then for the result. Raises WorkFailedError or StoppedError."""
        worker = self._idle.get()
        try:
            if worker is None or not worker.alive:
                worker = self._start()
            found: Found = worker(function, given)
            return found
        except WorkFailedError as error:
            if self._stopped:
                raise StoppedError from error
            raise
        finally:
            self._idle.put(worker)

    def _start(self) -> _Worker:
        with self._lock:
            if self._stopped:
                raise StoppedError
            worker = _Worker()
            self._all.append(worker)
            return worker

    def stop(self) -> None:
        """End every worker at once, and with it what it is doing; nothing can be asked for afterwards."""
        with self._lock:
            self._stopped = True
            for worker in self._all:
                worker.stop()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def __call__(self, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        try:
            self._pipe.send((function, given))
            done, found = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode
            ended = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with status {code}"
            raise WorkFailedError(
                f"its process was ended {ended}; out of memory, perhaps: fewer evaluation.workers need less"
            ) from error
        if not done:
            raise WorkFailedError(*found)
        return found

    def stop(self) -> None:
        self._process.kill()


def serve(pipe: Connection) -> None:
    """What a worker does: calls what it is sent, one after the other, until nobody sends any more."""
    os.environ.update(ONE_THREAD)
    # Ctrl-C reaches the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_parent(lambda: os._exit(1))
    while True:
        try:
            function, given = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = (True, function(*given))
        except Exception as error:
            answer = (False, (_one_line(error), traceback.format_exc()))
        pipe.send(answer)


def _one_line(error: Exception) -> str:
    said = " ".join(str(error).split())
    # Its own errors and the core's complaints about values are written for people; others need their kind.
    plain = isinstance(error, ValueError) or hasattr(error, "exit_code")
    return said if plain and said else f"{type(error).__name__}: {said}"

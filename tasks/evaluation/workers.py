"""Worker processes with one thread each, so that the cells of a grid do not compete for the interpreter lock and the cores.

A worker is a new interpreter whose environment is set before any numeric library is loaded. It receives functions and small arguments
(references, configs), no arrays. If it dies, only its own work is lost. It ends when its parent ends, also after a kill.

This module imports only the standard library, because a worker imports it before its environment is set.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from tasks.resources.exit_with_parent import leave_with_parent

Result = TypeVar("Result")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")


class WorkFailedError(Exception):
    """Work failed. The message is one line, ``details`` the worker's traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class StoppedError(Exception):
    """The workers were stopped before the work was done."""


class Workers(AbstractContextManager["Workers"]):
    """Up to ``count`` processes, started on first use; call it from as many threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._lock, self._stopped, self._all = threading.Lock(), False, list[_Worker]()
        for _ in range(count):
            self._idle.put(None)

    def __call__(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The result of ``function(*arguments)`` in a free worker. Raises WorkFailedError or StoppedError."""
        worker = self._idle.get()
        try:
            if worker is None or not worker.alive:
                worker = self._start()
            result: Result = worker(function, arguments)
            return result
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
        """Kill every worker; later calls raise StoppedError."""
        with self._lock:
            self._stopped = True
            for worker in self._all:
                worker.stop()

    def __exit__(self, *error: object) -> None:
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

    def __call__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        try:
            self._pipe.send((function, arguments))
            done, result = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode
            ended = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with status {code}"
            raise WorkFailedError(
                f"its process ended {ended}; if memory ran out, set evaluation.workers to fewer"
            ) from error
        if not done:
            raise WorkFailedError(*result)
        return result

    def stop(self) -> None:
        self._process.kill()


def serve(pipe: Connection) -> None:
    """The main loop of a worker: call each function that arrives, until the pipe closes."""
    os.environ.update(ONE_THREAD)
    # Ctrl-C reaches the whole process group; only the parent reacts to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_parent(lambda: os._exit(1))
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = (True, function(*arguments))
        except Exception as error:
            answer = (False, (_one_line(error), traceback.format_exc()))
        pipe.send(answer)


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    # ValueErrors and the project's own errors are written for users; others need their type.
    readable = isinstance(error, ValueError) or hasattr(error, "exit_code")
    return message if readable and message else f"{type(error).__name__}: {message}"

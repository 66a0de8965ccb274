"""Worker processes: their results, their errors, and that they end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.evaluation.workers import ONE_THREAD, StoppedError, Workers, WorkFailedError

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(1) as started:
        yield started


def gone(process: int) -> bool:
    """Whether a process ends within a few seconds."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_worker_has_one_thread_and_no_numeric_library_loaded(workers: Workers) -> None:
    assert workers(max, 3, 5) == 5
    process = workers(os.getpid)
    assert process != os.getpid()
    assert {name: workers(os.getenv, name) for name in ONE_THREAD} == ONE_THREAD
    assert "numpy" not in workers(eval, "[name for name in __import__('sys').modules]")
    assert workers(os.getpid) == process


def test_a_failure_is_one_line_and_the_worker_lives(workers: Workers) -> None:
    process = workers(os.getpid)
    with pytest.raises(WorkFailedError, match=r"^invalid literal for int\(\) with base 10: 'x'$") as caught:
        workers(int, "x")
    assert "Traceback" in caught.value.details
    with pytest.raises(WorkFailedError, match=r"^ZeroDivisionError: integer division or modulo by zero$"):
        workers(divmod, 1, 0)
    assert workers(os.getpid) == process


def test_a_dead_worker_loses_only_its_own_work(workers: Workers) -> None:
    process = workers(os.getpid)
    with pytest.raises(WorkFailedError, match="its process ended by SIGKILL"):
        workers(os.kill, process, signal.SIGKILL)
    assert workers(os.getpid) != process


def test_a_worker_ignores_ctrl_c(workers: Workers) -> None:
    process = workers(os.getpid)
    os.kill(process, signal.SIGINT)
    assert workers(os.getpid) == process


def test_stopping_kills_the_running_work() -> None:
    with Workers(1) as workers:
        process, stopped = workers(os.getpid), list[BaseException]()

        def ask() -> None:
            try:
                workers(time.sleep, 600)
            except StoppedError as error:
                stopped.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.1)
    asking.join(PATIENCE)
    assert len(stopped) == 1
    assert gone(process)
    with pytest.raises(StoppedError):
        workers(os.getpid)


def test_a_worker_ends_with_a_killed_parent() -> None:
    script = textwrap.dedent("""
        import os, time
        from tasks.evaluation.workers import Workers
        if __name__ == "__main__":
            workers = Workers(1)
            print(workers(os.getpid), flush=True)
            workers(time.sleep, 600)
    """)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    assert gone(worker)

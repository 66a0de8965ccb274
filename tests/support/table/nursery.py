"""A process that has imported a module once and forks one process for each job (``tests.support.table.faults.Nursery``)."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import random
import sys
import time
from contextlib import suppress
from typing import Any

_PR_SET_PTRACER, _ANY = 0x59616D61, -1


def main() -> None:
    module = importlib.import_module(sys.argv[1])
    # PyArrow imports pandas at the first foreign value. It must not do so in a traced job.
    with suppress(ImportError):
        importlib.import_module("pandas")
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                _become(module, **question)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _become(module: Any, *, job: str, given: list[Any], traced: bool, said: str) -> None:
    code = 1
    try:
        # The nursery answers through standard output.
        for number, path in ((0, "/dev/null"), (1, "/dev/null"), (2, said)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
        _repeat_random_names()
        if traced:
            _await_tracer()
        code = getattr(module, job)(*given) or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _repeat_random_names() -> None:
    """Make random names repeat, so that temporary files have the same names in every process."""
    state = random.Random(7)
    random._urandom = state.randbytes  # type: ignore[attr-defined]


def _await_tracer() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
    end = time.monotonic() + 30
    with open("/proc/self/status", "rb", buffering=0) as status:
        while b"TracerPid:\t0\n" in status.read():
            if time.monotonic() > end:
                raise TimeoutError("strace does not attach to this process")
            time.sleep(0.001)
            status.seek(0)


if __name__ == "__main__":
    main()

"""One command line in a process of its own, and the point at which that process shall die.

``catalog-rectifier`` spends most of a short run importing. Each run is a fork of a server that has imported everything
(``fork_server``): a process like any other, with its own memory, locks and exit status, and a SIGKILL that nothing can catch.
"""

from __future__ import annotations

import atexit
import os
import re
import resource
import runpy
import signal
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Death:
    """The process kills itself right before the ``number``-th system call whose audit ``event`` names a path that ``pattern`` is found in.

    Events are ``os.mkdir``, ``os.rename`` and ``os.link`` (the path that gets another name), and ``open``; several are joined by ``|``.
    """

    event: str
    pattern: str
    number: int = 1


def run(
    arguments: list[str], environment: dict[str, str], out: str, err: str, death: Death | None, file_bytes: int | None
) -> None:
    """Become ``catalog-rectifier ARGUMENTS`` with its output in two files; no file may then grow beyond ``file_bytes``."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    for number, path in ((1, out), (2, err)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.update(environment)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if death is not None:
        die_at(death)
    sys.argv = ["flows", *arguments]
    try:
        # Prefect read its settings before the fork. A flow's end waits up to a second for the thread of its heartbeats.
        settings = {PREFECT_API_URL: os.environ.get("PREFECT_API_URL"), PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        with temporary_settings(settings):
            runpy.run_module("flows", run_name="__main__", alter_sys=True)
    finally:
        # What an interpreter does at its end and a forked worker does not: Prefect sends its last logs there.
        atexit._run_exitfuncs()


def die_at(death: Death) -> None:
    """SIGKILL this very process at that point."""
    events, pattern, left = death.event.split("|"), re.compile(death.pattern), death.number

    def watch(event: str, given: tuple[Any, ...]) -> None:
        nonlocal left
        if event in events and pattern.search(str(given[0])):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)

"""The fork server of a test session: it has imported everything once, and each process of a test is a fork of it.

Python keeps one fork server a process, so all tests get theirs here. Whichever asks first starts it for all.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

PRELOAD = [
    "flows.audit",
    "flows.backfill",
    "flows.export",
    "flows.nightly",
    "flows.refresh",
    "tasks.demo.catalog",
    "tasks.demo.score",
    "tasks.feature_store.refresh",
    "tasks.table.history",
    "typer.main",
    "torch._dynamo",
    "matplotlib.backends.backend_svg",
]


def fork_context() -> ForkServerContext:
    """Processes of this context start from the fork server. They have its environment, not that of the test."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        forkserver.ensure_running()
    return context

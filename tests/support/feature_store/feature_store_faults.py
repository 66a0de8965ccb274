"""A refresh as a process of its own whose n-th system call of a kind is its last, or fails, by strace."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import RectifierError
from tasks.feature_store.config import FeatureStoreConfig
from tasks.table.config import PublishConfig
from tests.support.fork_server import fork_context

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(
    STRACE is None, reason="strace is not installed: system calls can be neither seen nor interrupted"
)
PATIENCE = 120.0
_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a refresh ended: its exit status (negative: the signal that killed it), what it said, and whether the fault was reached."""

    code: int
    said: str
    reached: bool


def refresh_process(
    config: FeatureStoreConfig, table: PublishConfig, go: Any, said: str, environment: dict[str, str]
) -> None:
    """Refresh when told to, and end as the command line would."""
    os.environ.update(environment)
    from tasks.feature_store.refresh import refresh_store

    # Let a process that is no parent of this one trace it.
    ctypes.CDLL(None).prctl(_SET_PTRACER, _ANY)
    go.send("ready")
    go.recv()
    try:
        refresh_store(config, table)
    except RectifierError as error:
        Path(said).write_text(str(error))
        os._exit(error.exit_code)
    except BaseException as error:
        Path(said).write_text(f"{type(error).__name__}: {error}")
        os._exit(70)
    os._exit(0)


def start_refresh(config: FeatureStoreConfig, table: PublishConfig, said: Path) -> tuple[Any, connection.Connection]:
    """A forked process that has imported everything and waits to be told."""
    context = fork_context()
    ours, theirs = context.Pipe()
    process = context.Process(target=refresh_process, args=(config, table, theirs, str(said), dict(os.environ)))
    process.start()
    assert ours.recv() == "ready"
    return process, ours


def refresh_with_fault(
    config: FeatureStoreConfig, table: PublishConfig, folder: Path, call: str, fault: str, number: int
) -> Ended:
    """A refresh whose ``number``-th ``call`` meets ``fault`` ("signal=SIGKILL" or "error=ENOSPC"); skips where nobody may trace."""
    said, trace = folder / "said", folder / "trace"
    said.unlink(missing_ok=True)
    process, go = start_refresh(config, table, said)
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}"]
    with subprocess.Popen(
        [str(STRACE), "-f", *inject, "-o", str(trace), "-p", str(process.pid)], stderr=subprocess.PIPE, text=True
    ) as strace:
        assert strace.stderr is not None
        first = strace.stderr.readline()
        if "attached" not in first:
            process.kill()
            assert "not permitted" in first, first
            pytest.skip(f"nobody may trace here: {first.strip()}")
        go.send("go")
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"{call} {fault} {number}: still at work")
        strace.wait(PATIENCE)
    code = process.exitcode
    return Ended(
        code, said.read_text() if said.exists() else "", code == -9 or bool(re.search("INJECTED", trace.read_text()))
    )


if __name__ == "__main__":
    sys.exit("run by the tests")

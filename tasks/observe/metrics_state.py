"""What the metrics of a run folder are drawn from: how many runs ended how, what the last one took, and the table as it was last seen.

One JSON file, ``<run.folder>/metrics/state.json``, written whole under a lock; a damaged one is begun anew, as a counter that starts over::

    format    1
    started   how many runs began
    ended     {outcome: {count, last}}; ``last`` is seconds since the epoch
    run       the last run that held the table: as_of, run_id, outcome, exit_code, stage, started, ended (seconds since the epoch), rows,
              peak_memory, memory_limit, stages {name: {seconds, cpu_seconds, peak_memory, planned_memory}}; null numbers are not known
    seen      what ``tasks.observe.metrics_facts`` found when a run last looked, and ``at``, when that was
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.store.atomic_files import write_whole

FORMAT = 1
METRICS = "metrics"
STATE = "state.json"
OUTCOMES = ("published", "unchanged", "refused", "bad_input", "held", "failed", "interrupted")
HOLDING = ("published", "unchanged", "refused", "failed", "interrupted")
State = dict[str, Any]


def empty_state() -> State:
    """The state before the first run."""
    return {
        "format": FORMAT,
        "started": 0,
        "ended": {x: {"count": 0, "last": None} for x in OUTCOMES},
        "run": None,
        "seen": None,
    }


def load_state(run_folder: Path) -> State:
    """The state of a run folder, the empty one where there is none that can be read."""
    try:
        found = json.loads((run_folder / METRICS / STATE).read_text())
        whole = (
            found["format"] == FORMAT
            and found["ended"].keys() >= set(OUTCOMES)
            and {"started", "run", "seen"} <= found.keys()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return empty_state()
    return found if whole else empty_state()


def change_state(run_folder: Path, change: Callable[[State], None]) -> State:
    """Let ``change`` alter the state, alone among processes, and keep it. Raises StorageError or OSError."""
    folder = run_folder / METRICS
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        state = load_state(run_folder)
        change(state)
        text = json.dumps(state, indent=1, sort_keys=True, allow_nan=False)
        write_whole(
            folder / STATE,
            lambda path: path.write_text(text),
            failed="{path}: the metrics cannot be kept: {why}; free the disk",
        )
        return state
    finally:
        os.close(handle)

"""Sixty nights in a row with drifting data: nothing on the disk or in memory grows but the table's log, by one small file a night."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.nights.soak import KEPT
from tests.support.flow.flow_support import ROOT

NIGHTS = 60
# A map of a stage, a buffer of Arrow: what a process holds between two nights varies by some of them.
NOISE = 64 << 20


@pytest.mark.slow
@pytest.mark.parametrize("incremental", [False, True], ids=["cold", "incremental"])
def test_sixty_nights_leave_no_more_than_twenty(tmp_path: Path, incremental: bool) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.nights.soak",
        "--nights",
        str(NIGHTS),
        "--folder",
        str(tmp_path),
        "--as-json",
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *(["--incremental"] if incremental else [])],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    nights = [json.loads(x) for x in done.stdout.splitlines()]
    assert len(nights) == NIGHTS
    early, last = nights[19], nights[-1]
    for place in ("data", "trend", "stages", "runs"):
        (files, size), (more, larger) = early["places"][place], last["places"][place]
        # The trend keeps twice as many days, and a week of nights may hold one file more than another.
        assert more <= files + 2 * KEPT, place
        assert larger <= 1.25 * size, place
    assert last["places"]["data"][0] == KEPT
    assert last["places"]["temporary"] == [0, 0]
    assert last["memory"] <= early["memory"] + NOISE
    # A socket of Prefect's more or less; a map of a stage that was not let go of is a dozen files a night.
    assert last["open_files"] <= early["open_files"] + 8
    # One commit a night, of a few kilobytes, and a checkpoint now and then.
    grown = last["places"]["log"][1] - early["places"]["log"][1]
    assert grown <= (last["night"] - early["night"]) * 16 * 1024
    names = [x.name for x in (tmp_path / "demo" / "warehouse").rglob("*") if x.is_file()]
    assert not [x for x in names if re.search(r"\.tmp$|#\d+$", x)]

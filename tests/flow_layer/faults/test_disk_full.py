"""A disk with no room: exit 1, one line that names what was being written and the way out, nothing published; with room it goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flow.cli_process import Death
from tests.support.flow.flow_support import CommandLine, Published, days_of, rows_of, table_uri
from tests.support.table.small_disk import small_disk

KILO = 1024
PUBLISH = Death("os.rename", r"/\.part-.*\.tmp$")
REPORT = Death("open", r"/\.tmp-report\.json")
# What is written when, and how large a file may be then: the 256 image columns of 400 items are 400 KiB, a page at least 100.
LIMITS = {
    "reading": (None, 300 * KILO, "error: stage source: writing "),
    "publishing": (PUBLISH, 300 * KILO, ": writing the rows failed"),
    "reporting": (REPORT, 64 * KILO, ": cannot be written: File too large"),
}


@pytest.mark.parametrize(
    "what", ["publishing", *(pytest.param(x, marks=pytest.mark.slow) for x in ("reading", "reporting"))]
)
def test_a_file_that_cannot_be_written_stops_the_run_until_it_can(
    demo: Path, cli: CommandLine, one_day: Published, what: str
) -> None:
    death, limit, said = LIMITS[what]
    day, uri = one_day.days[0], table_uri(demo)
    if death is not None:
        assert cli.rectify(demo, day, death=death).code == -signal.SIGKILL
    finished = cli.rectify(demo, day, file_bytes=limit)
    assert finished.code == 1, finished.err
    assert said in finished.error
    assert "then run again" in finished.error
    assert finished.out == ""
    landed = what == "reporting"
    assert days_of(uri) == ([day] if landed else [])
    assert not [*(demo / "runs" / "stages").glob(".tmp-*"), *(demo / "runs").glob("*/.tmp-*")]
    result = cli.published(demo, day)
    assert result["published"] != landed
    assert rows_of(uri, day).equals(rows_of(table_uri(one_day.demo), day))


def test_a_run_folder_that_cannot_be(demo: Path, cli: CommandLine, one_day: Published) -> None:
    (demo / "file").write_text("")
    finished = cli.rectify(demo, one_day.days[0], "--set", "run.folder='file/runs'")
    assert finished.code == 2, finished.err
    assert f"run.folder: {demo}/file is no folder" in finished.error
    assert days_of(table_uri(demo)) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "12m") as found:
        yield found


def test_a_disk_that_is_full_while_a_map_is_filled(
    demo: Path, cli: CommandLine, one_day: Published, disk: Path
) -> None:
    day, folder = one_day.days[0], ("--set", f"run.folder='{disk}/runs'")
    death = Death("os.mkdir", r"/\.tmp-rectify-")
    assert cli.rectify(demo, day, *folder, death=death).code == -signal.SIGKILL
    ballast = disk / "ballast"
    with ballast.open("wb") as stream:
        free = os.statvfs(disk)
        stream.write(bytes(free.f_bavail * free.f_frsize - 40 * KILO))
    finished = cli.rectify(demo, day, *folder)
    assert finished.code == 1, finished.err
    assert "error: stage rectify: writing " in finished.error
    assert "No space left on device; free or fix the disk, then run again" in finished.error
    assert days_of(table_uri(demo)) == []
    ballast.unlink()
    assert cli.published(demo, day, *folder)["published"]
    assert rows_of(table_uri(demo), day).equals(rows_of(table_uri(one_day.demo), day))

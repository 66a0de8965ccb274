"""Publishers that compete, or whose disk is full: readers see the old version or the new one, and a rerun succeeds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tasks.errors import TableHeldError
from tasks.store.store import Ref
from tasks.table.history import list_versions
from tasks.table.publish import PublishConfig
from tests.support.table.faults import Ended, Nursery, needs_strace, stop_after
from tests.support.table.publish_support import (
    data_files,
    identity,
    log_files,
    make_refs,
    plain,
    publish,
    shown,
)

DAYS = ("2024-03-01", "2024-03-02")


def overtaken(nursery: Nursery, config: PublishConfig, refs: tuple[Ref, Ref], day: str, seed: int) -> Ended:
    """Publish the first day's run 1 in a process that another publisher overtakes just before its commit gets its name."""
    # Flushed were a file, its folder, and the commit.
    job = nursery.start("publish_alone", {"uri": config.uri}, plain(refs), DAYS[0], 1, strace=stop_after("fsync", 3))
    job.wait_until_stopped()
    assert any(Path(config.uri).glob(f".commit-*/_delta_log/{1:020d}.json"))
    assert publish(config, refs, day, seed).version == 1
    job.go_on()
    return job.wait()


@needs_strace
@pytest.mark.parametrize("day", DAYS)
def test_a_publisher_that_commits_second_fails_and_leaves_no_files(nursery: Nursery, tmp_path: Path, day: str) -> None:
    refs, config = make_refs(tmp_path / "stages"), PublishConfig(uri=str(tmp_path / "table"))
    publish(config, refs, DAYS[0])
    ended = overtaken(nursery, config, refs, day, 2)
    assert ended.code == TableHeldError.exit_code, ended.said
    assert re.fullmatch(rf"table {config.uri}: another run committed .* run it again\n", ended.said)
    assert shown(config.uri) == {DAYS[0]: {identity(DAYS[0]).run_id}} | {day: {identity(day, 2).run_id}}
    assert {x["run_id"] for x in list_versions(config)} == {identity(DAYS[0]).run_id, identity(day, 2).run_id}
    assert len(data_files(config.uri)) == 2
    assert len(log_files(config.uri)) == 2


@needs_strace
@pytest.mark.parametrize(
    ("flushed", "stopped_at"), [(2, "as_of={day}/.part-*.tmp"), (4, ".commit-*/{log}/{commit}.json")]
)
def test_two_publishers_of_the_very_same_run_end_as_one(
    nursery: Nursery, tmp_path: Path, flushed: int, stopped_at: str
) -> None:
    refs, config = make_refs(tmp_path / "stages"), PublishConfig(uri=str(tmp_path / "table"))
    publish(config, refs, DAYS[0])
    # The first one stops before its file, or its commit, gets its name. There the second one overtakes it.
    strace = stop_after("fsync", flushed)
    job = nursery.start("publish_alone", {"uri": config.uri}, plain(refs), DAYS[1], 0, strace=strace)
    job.wait_until_stopped()
    assert any(Path(config.uri).glob(stopped_at.format(day=DAYS[1], log="_delta_log", commit=f"{1:020d}")))
    assert publish(config, refs, DAYS[1]).version == 1
    job.go_on()
    ended = job.wait()
    assert ended.code == 0, ended.said
    assert DeltaTable(config.uri).version() == 1
    assert shown(config.uri) == {day: {identity(day).run_id} for day in DAYS}
    assert len(data_files(config.uri)) == 2


@needs_strace
def test_a_publisher_that_fails_leaves_the_files_that_another_published_of_the_same_run(
    nursery: Nursery, tmp_path: Path
) -> None:
    refs, config = make_refs(tmp_path / "stages"), PublishConfig(uri=str(tmp_path / "table"), rows_per_file=30)
    publish(config, refs, DAYS[0])
    # Where a disk takes no locks: before the second file gets its name another publishes the day, and then it cannot get it.
    slow = [*stop_after("fsync", 4), "-e", "trace=fsync,rename", "-e", "inject=rename:error=EIO:when=2"]
    job = nursery.start("publish_alone", {"uri": config.uri, "rows_per_file": 30}, plain(refs), DAYS[1], 0, strace=slow)
    job.wait_until_stopped()
    assert any(Path(config.uri).glob(f"as_of={DAYS[1]}/.part-*-00001.parquet.*.tmp"))
    assert publish(config, refs, DAYS[1]).version == 1
    job.go_on()
    ended = job.wait()
    assert (ended.code, ended.injected) == (1, 1), ended.said
    assert shown(config.uri) == {day: {identity(day).run_id} for day in DAYS}
    assert DeltaTable(config.uri).count() == 100
    assert len(data_files(config.uri)) == 4

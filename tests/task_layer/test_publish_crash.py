"""Publishers that are killed, raced, starved of disk: readers see the old version or the new one, and a rerun ends the same."""

from __future__ import annotations

import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tasks.errors import TableHeldError
from tasks.publish import PublishConfig
from tasks.references import Ref
from tasks.table_history import list_versions
from tasks.table_sweep import sweep_table
from tests.task_layer.publish_support import command, data_files, environment, identity, log_files, make_refs, publish, shown, start

DAYS = ("2024-03-01", "2024-03-02")
STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed: system calls can be neither seen nor interrupted")


def wait_for(what: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Until a file of this pattern lies under ``what``, or the process ended."""
    while process.poll() is None and not any(what.glob(pattern)):
        time.sleep(0.001)


def traced(options: list[str], arguments: list[str]) -> list[str]:
    assert STRACE is not None
    return [STRACE, "-f", "-q", *options, *arguments]


def test_a_publisher_killed_while_it_writes_leaves_the_old_version_and_a_rerun_converges(tmp_path: Path) -> None:
    small, large = make_refs(tmp_path / "a", widths={"image": 256}), make_refs(tmp_path / "b", items=60_000, widths={"image": 256})
    killed, whole = (PublishConfig(uri=str(tmp_path / name), rows_per_file=20_000) for name in ("killed", "whole"))
    publish(killed, small, DAYS[0])
    process = start(command(killed, large, DAYS[1]))
    wait_for(Path(killed.uri), "as_of=2024-03-02/.part-*-00001.parquet.*.tmp", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert [x for x in data_files(killed.uri) if x.endswith(".tmp")]
    assert shown(killed.uri) == {DAYS[0]: {identity(DAYS[0]).run_id}}
    assert publish(killed, large, DAYS[1]).version == 1
    assert shown(killed.uri) == {day: {identity(day).run_id} for day in DAYS}
    sweep_table(PublishConfig(uri=killed.uri, vacuum_after_hours=0))
    publish(whole, small, DAYS[0])
    publish(whole, large, DAYS[1])
    assert data_files(killed.uri) == data_files(whole.uri)


COMMIT = f"_delta_log/{1:020d}.json"
POINTS = {
    "a file is flushed": ("fsync", 1, r"\.part-.*tmp>", False),
    "a file gets its name": ("rename", 1, r"\.part-.*tmp\"", False),
    "the folder of a file is flushed": ("fsync", 2, "as_of=2024-03-01>", False),
    "the commit is linked": ("linkat", 1, f"{COMMIT}#1", False),
    "the commit's temporary is dropped": ("unlink", 1, f"{COMMIT}#1", True),
    "the commit is flushed": ("fsync", 5, f"{COMMIT}>", True),
}


@needs_strace
@pytest.mark.parametrize("point", POINTS)
def test_a_publisher_killed_at_any_step_leaves_the_old_version_or_the_new_one(tmp_path: Path, point: str) -> None:
    call, number, argument, landed = POINTS[point]
    refs = make_refs(tmp_path / "stages")
    killed, whole = (PublishConfig(uri=str(tmp_path / name), rows_per_file=30) for name in ("killed", "whole"))
    for config in (killed, whole):
        publish(config, refs, DAYS[0])
    publish(whole, refs, DAYS[0], seed=1)
    trace = tmp_path / "trace"
    options = ["-y", "-o", str(trace), "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
    # Calls are counted a thread, and the main thread drops temporary files of its own.
    options += ["-P", f"{killed.uri}/{COMMIT}#1"] if call == "unlink" else []
    process = start(traced(options, command(killed, refs, DAYS[0], seed=1)))
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert re.search(argument, [x for x in trace.read_text().splitlines() if f"{call}(" in x][-1])
    assert shown(killed.uri) == {DAYS[0]: {identity(DAYS[0], int(landed)).run_id}}
    again = publish(killed, refs, DAYS[0], seed=1)
    assert (again.published, again.version) == (not landed, 1)
    for config in (killed, whole):
        sweep_table(PublishConfig(uri=config.uri, vacuum_after_hours=0))
    assert data_files(killed.uri) == data_files(whole.uri)
    assert log_files(killed.uri) == log_files(whole.uri) == {f"{x:020d}.json" for x in range(2)}


@needs_strace
def test_data_is_flushed_before_the_commit_and_the_commit_after_it(tmp_path: Path) -> None:
    config = PublishConfig(uri=str(tmp_path / "new" / "warehouse" / "table"), rows_per_file=30)
    trace = tmp_path / "trace"
    calls = "fsync,rename,renameat,renameat2,link,linkat,mkdir"
    subprocess.run(
        traced(["-y", "-e", f"trace={calls}", "-o", str(trace)], command(config, make_refs(tmp_path / "s"), DAYS[0])),
        env=environment(),
        check=True,
    )
    steps = [
        re.sub(r"^\d+\s+", "", x)
        for x in trace.read_text().splitlines()
        if config.uri in x or f"{tmp_path}/new" in x or f"<{tmp_path}>" in x
    ]

    def position(pattern: str) -> int:
        return next(i for i, step in enumerate(steps) if re.match(pattern, step))

    linked = position(r"linkat\(.*_delta_log/0{20}\.json")
    for part in ("00000", "00001"):
        flushed = position(rf"fsync\(\d+<.*\.part-.*-{part}\.parquet\..*tmp>\)")
        named = position(rf"rename\(.*-{part}\.parquet\"")
        assert flushed < named < linked
        assert any(named < i < linked and re.match(r"fsync\(\d+<.*/as_of=2024-03-01>\)", step) for i, step in enumerate(steps))
    assert steps[linked + 1 :][-3:] == [
        *(x for x in steps if re.match(r"fsync\(\d+<.*_delta_log/0{20}\.json>\)", x)),
        *(x for x in steps if re.match(r"fsync\(\d+<.*/_delta_log>\)", x)),
        [x for x in steps if re.match(r"fsync\(\d+<.*/table>\)", x)][-1],
    ]
    for folder in ("", "/new", "/new/warehouse"):
        assert position(rf"fsync\(\d+<{tmp_path}{folder}>\)") < linked


def overtaken(config: PublishConfig, refs: tuple[Ref, Ref], day: str, seed: int, trace: Path) -> tuple[int, str]:
    """Publish the first day's run 1 in a process that another publisher overtakes just before its commit; status and last words."""
    slow = ["-e", "trace=linkat", "-e", "inject=linkat:delay_enter=1000000", "-o", str(trace)]
    process = start(traced(slow, command(config, refs, DAYS[0], seed=1)))
    wait_for(Path(config.uri), "_delta_log/*.json#1", process)
    assert publish(config, refs, day, seed).version == 1
    _, said = process.communicate()
    return process.returncode, said


@needs_strace
@pytest.mark.parametrize("day", DAYS)
def test_a_publisher_that_loses_the_race_says_so_and_leaves_nothing_behind(tmp_path: Path, day: str) -> None:
    refs, config = make_refs(tmp_path / "stages"), PublishConfig(uri=str(tmp_path / "table"))
    publish(config, refs, DAYS[0])
    status, said = overtaken(config, refs, day, 2, tmp_path / "trace")
    assert status == TableHeldError.exit_code, said
    assert re.fullmatch(rf"table {config.uri}: another run committed .* run it again\n", said)
    assert shown(config.uri) == {DAYS[0]: {identity(DAYS[0]).run_id}} | {day: {identity(day, 2).run_id}}
    assert {x["run_id"] for x in list_versions(config)} == {identity(DAYS[0]).run_id, identity(day, 2).run_id}
    assert len(data_files(config.uri)) == 2
    assert len(log_files(config.uri)) == 2


@needs_strace
def test_two_publishers_of_the_very_same_run_end_as_one(tmp_path: Path) -> None:
    refs, config = make_refs(tmp_path / "stages"), PublishConfig(uri=str(tmp_path / "table"))
    publish(config, refs, DAYS[0])
    status, said = overtaken(config, refs, DAYS[0], 1, tmp_path / "trace")
    assert status == 0, said
    assert DeltaTable(config.uri).version() == 1
    assert shown(config.uri) == {DAYS[0]: {identity(DAYS[0], 1).run_id}}


def test_publishers_without_a_lock_never_mix_their_rows(tmp_path: Path) -> None:
    refs, config = make_refs(tmp_path / "stages", items=2000), PublishConfig(uri=str(tmp_path / "table"), rows_per_file=300)
    publish(config, refs, DAYS[1])
    processes = [start(command(config, refs, DAYS[0], seed)) for seed in range(3)]
    said = [x.communicate() for x in processes]
    codes = [x.returncode for x in processes]
    assert {0} <= set(codes) <= {0, TableHeldError.exit_code}, said
    landed = {identity(DAYS[0], seed).run_id for seed, code in enumerate(codes) if code == 0}
    found = shown(config.uri)
    assert found[DAYS[1]] == {identity(DAYS[1]).run_id}
    assert len(found[DAYS[0]]) == 1
    assert found[DAYS[0]] <= landed
    assert DeltaTable(config.uri).version() == len(landed)
    assert DeltaTable(config.uri).count() == 4000


FULL = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("limit", [40_000, 600])
def test_a_full_disk_is_one_clear_line_and_leaves_the_old_version(
    tmp_path: Path, refs_of_two_sizes: tuple[tuple[Ref, Ref], ...], limit: int
) -> None:
    small, large = refs_of_two_sizes
    config = PublishConfig(uri=str(tmp_path / "table"))
    publish(config, small, DAYS[0])
    before = data_files(config.uri), log_files(config.uri)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    interpreter, *arguments = command(config, large, DAYS[1])
    process = start([interpreter, "-c", FULL, str(limit), *arguments])
    _, said = process.communicate()
    assert process.returncode == 1
    assert re.fullmatch(rf"table {config.uri}: writing the rows failed: .*File too large.*; nothing was published; .* run again\n", said)
    assert (data_files(config.uri), log_files(config.uri)) == before
    assert shown(config.uri) == {DAYS[0]: {identity(DAYS[0]).run_id}}


@needs_strace
@pytest.mark.parametrize(("call", "error"), [("linkat", "ENOSPC"), ("linkat", "EIO"), ("fsync", "EIO")])
def test_an_error_of_the_disk_leaves_the_old_version_and_no_files(tmp_path: Path, call: str, error: str) -> None:
    refs, config = make_refs(tmp_path / "stages"), PublishConfig(uri=str(tmp_path / "table"))
    publish(config, refs, DAYS[0])
    before = data_files(config.uri)
    options = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=1", "-o", str(tmp_path / "trace")]
    process = start(traced(options, command(config, refs, DAYS[0], seed=1)))
    _, said = process.communicate()
    assert (process.returncode, said.count("\n")) == (1, 1), said
    assert said.startswith(f"table {config.uri}: ")
    assert "nothing was published" in said
    assert data_files(config.uri) == before
    assert shown(config.uri) == {DAYS[0]: {identity(DAYS[0]).run_id}}
    assert publish(config, refs, DAYS[0], seed=1).published


@pytest.fixture
def refs_of_two_sizes(tmp_path: Path) -> tuple[tuple[Ref, Ref], ...]:
    return make_refs(tmp_path / "a"), make_refs(tmp_path / "b", items=5000)

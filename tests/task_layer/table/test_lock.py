"""The table's lock: one holder, named to whoever meets it, and freed by the kernel however the holder dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.errors import StorageError, TableHeldError
from tasks.table.config import PublishConfig
from tasks.table.lock import lock_path, table_lock

HOLD = """
import sys, time
from pathlib import Path
from tasks.table.config import PublishConfig
from tasks.table.lock import table_lock
with table_lock(PublishConfig(uri=sys.argv[1]), run="nightly-7"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(uri: str) -> subprocess.Popen[str]:
    """A process that holds the table's lock by now."""
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, uri], env={**os.environ, "PYTHONPATH": root}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_named_and_its_death_frees_the_table(tmp_path: Path) -> None:
    config = PublishConfig(uri=str(tmp_path / "warehouse" / "table"))
    process = holder(config.uri)
    try:
        with (
            pytest.raises(
                TableHeldError, match=rf"table {config.uri}: .*run nightly-7, pid {process.pid} on .*run again"
            ) as caught,
            table_lock(config),
        ):
            pass
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 4
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with table_lock(config) as path:
        assert path == tmp_path / "warehouse" / ".table.lock"
    assert path.read_bytes() == b""


def test_it_is_not_taken_twice_and_is_free_after_an_error(tmp_path: Path) -> None:
    config = PublishConfig(uri=str(tmp_path / "table"))
    with pytest.raises(ZeroDivisionError), table_lock(config):
        nested_then_fail(config)
    with table_lock(config):
        pass


def nested_then_fail(config: PublishConfig) -> None:
    with pytest.raises(TableHeldError), table_lock(config):
        pass
    raise ZeroDivisionError


def test_two_spellings_of_one_folder_share_a_lock_and_other_tables_do_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    spelled = [
        PublishConfig(uri=f"{tmp_path}/{name}")
        for name in ("real/table", "real/table/", "link/table", "link/../real/table")
    ]
    assert len({lock_path(x) for x in spelled}) == 1
    with table_lock(spelled[0]), table_lock(PublishConfig(uri=str(tmp_path / "real" / "other"))):
        pass


def test_a_remote_table_is_locked_in_the_folder_given(tmp_path: Path) -> None:
    config = PublishConfig(uri="s3://bucket/warehouse/table")
    with table_lock(config, tmp_path / "locks") as path:
        assert path.parent == tmp_path / "locks"
        assert "bucket" not in path.name
        with pytest.raises(TableHeldError), table_lock(PublishConfig(uri=config.uri + "/"), tmp_path / "locks"):
            pass
        with table_lock(PublishConfig(uri="s3://bucket/other"), tmp_path / "locks"):
            pass
    with pytest.raises(ValueError, match="lock_folder"), table_lock(config):
        pass


def test_a_lock_file_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match=r"\.table\.lock cannot be locked"),
        table_lock(PublishConfig(uri=str(tmp_path / "file" / "table"))),
    ):
        pass

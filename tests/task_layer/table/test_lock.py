"""The table's lock: one holder, named to whoever is locked out, and freed by the kernel when the holder dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.errors import StorageError, TableHeldError
from tasks.table.config import PublishConfig
from tasks.table.lock import lock_path, table_lock
from tests.support.table.publish_support import environment

HOLD = """
import sys, time
from tasks.table.config import PublishConfig
from tasks.table.lock import table_lock
with table_lock(PublishConfig(uri=sys.argv[1]), run="nightly-7"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def config(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "warehouse" / "table"))


def locked_out(config: PublishConfig, folder: Path | None = None) -> str:
    """The message of a process that does not get the lock."""
    with pytest.raises(TableHeldError) as caught, table_lock(config, folder):
        pass
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_another_process_is_named_and_its_death_frees_the_table(config: PublishConfig) -> None:
    command = [sys.executable, "-c", HOLD, config.uri]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        message = locked_out(config)
        process.kill()
    assert message.startswith(f"table {config.uri}: another process (run nightly-7, pid {process.pid} on ")
    assert message.endswith("run again") and "\n" not in message
    with table_lock(config) as path:
        assert path == Path(config.uri).with_name(".table.lock")
    assert path.read_bytes() == b""


def test_it_is_not_taken_twice_and_is_free_after_an_error(config: PublishConfig) -> None:
    with pytest.raises(ZeroDivisionError), table_lock(config):
        _ = locked_out(config), 1 // 0
    with table_lock(config):
        pass


def test_two_spellings_of_one_folder_share_a_lock_and_other_tables_do_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    names = ("real/table", "real/table/", "link/table", "link/../real/table")
    spelled = [PublishConfig(uri=f"{tmp_path}/{name}") for name in names]
    assert len({lock_path(x) for x in spelled}) == 1
    with table_lock(spelled[0]), table_lock(PublishConfig(uri=str(tmp_path / "real" / "other"))):
        pass


def test_a_remote_table_is_locked_in_a_local_folder(tmp_path: Path) -> None:
    config = PublishConfig(uri="s3://bucket/warehouse/table")
    with table_lock(config, tmp_path / "locks") as path:
        assert path.parent == tmp_path / "locks" and "bucket" not in path.name
        assert locked_out(PublishConfig(uri=config.uri + "/"), tmp_path / "locks")
        with table_lock(PublishConfig(uri="s3://bucket/other"), tmp_path / "locks"):
            pass
    with pytest.raises(ValueError, match="lock_folder"), table_lock(config):
        pass


def test_a_lock_file_that_cannot_be_made_names_its_path(tmp_path: Path) -> None:
    (tmp_path / "place").write_text("")
    config = PublishConfig(uri=str(tmp_path / "place" / "table"))
    with pytest.raises(StorageError, match=r"\.table\.lock cannot be locked"), table_lock(config):
        pass

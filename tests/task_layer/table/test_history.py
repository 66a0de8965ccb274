"""Versions, rollbacks, and what the sweep deletes."""

from __future__ import annotations

import os
import time
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from tasks.errors import InputError
from tasks.runs.table_days import read_table_days
from tasks.store.store import Ref
from tasks.table import cleanup as table_sweep
from tasks.table.cleanup import sweep_table
from tasks.table.history import list_versions, roll_back
from tasks.table.publish import PublishConfig, find_published
from tests.support.table.publish_support import FACTS, data_files, identity, log_files, make_refs, publish, shown

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")


def age(uri: str, hours: float) -> None:
    """Make every file of a local table look that much older."""
    for path in Path(uri).rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - hours * 3600,) * 2)


def test_versions_describe_each_commit(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    with pytest.raises(InputError, match="no table at"):
        list_versions(config)
    publish(config, refs, DAYS[0])
    publish(config, refs, DAYS[1])
    publish(config, refs, DAYS[0], seed=1)
    roll_back(config, 1)
    found = list_versions(config)
    assert [x["version"] for x in found] == [3, 2, 1, 0]
    assert [x["operation"] for x in found] == ["rollback", "publish", "publish", "publish"]
    assert [x["current"] for x in found] == [True, False, False, False]
    runs = [identity(DAYS[0], 1), identity(DAYS[1]), identity(DAYS[0])]
    assert [x["run_id"] for x in found] == [runs[1].run_id, *(x.run_id for x in runs)]
    assert [x["days"] for x in found] == [list(DAYS[:2])] * 3 + [[DAYS[0]]]
    assert all(x["restorable"] for x in found)
    assert found[0]["restored_version"] == 1
    assert found[1]["modalities"] == FACTS["modalities"]
    assert (found[1]["rows"], found[1]["as_of"]) == (50, DAYS[0])
    assert found[1]["timestamp"].endswith("+00:00")
    assert found[0]["timestamp"] >= found[1]["timestamp"]


def test_a_rollback_shows_exactly_the_old_version(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    publish(config, refs, DAYS[0])
    publish(config, refs, DAYS[1])
    old = pl.scan_delta(config.uri).collect()
    publish(config, refs, DAYS[1], seed=1)
    publish(config, refs, DAYS[2])
    done = roll_back(config, 1)
    assert (done.version, done.published, done.as_of, done.rows) == (4, True, DAYS[1], 50)
    assert done.run_id == identity(DAYS[1]).run_id
    assert pl.scan_delta(config.uri).collect().sort("as_of", "item_id").equals(old.sort("as_of", "item_id"))
    assert shown(config.uri, version=3)[DAYS[1]] == {identity(DAYS[1], 1).run_id}
    again = roll_back(config, 1)
    assert (again.version, again.published) == (4, False)
    assert not roll_back(config, 4).published
    assert DeltaTable(config.uri).version() == 4


def test_after_a_rollback_a_run_is_judged_by_what_is_visible(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    publish(config, refs, DAYS[0])
    publish(config, refs, DAYS[0], seed=1)
    publish(config, refs, DAYS[1])
    roll_back(config, 0)
    assert find_published(config, identity(DAYS[0])) is not None
    assert find_published(config, identity(DAYS[0], 1)) is None
    assert find_published(config, identity(DAYS[1])) is None
    before = data_files(config.uri)
    assert publish(config, refs, DAYS[1]).version == 4
    after = data_files(config.uri)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    assert shown(config.uri, version=2) == shown(config.uri) | {DAYS[0]: {identity(DAYS[0], 1).run_id}}


def test_a_rollback_brings_back_the_schema(tmp_path: Path, config: PublishConfig) -> None:
    publish(config, make_refs(tmp_path / "a", widths={"image": 4}), DAYS[0])
    columns = pl.scan_delta(config.uri).collect_schema()
    publish(config, make_refs(tmp_path / "b", widths={"image": 4, "text": 2}), DAYS[1])
    roll_back(config, 0)
    assert pl.scan_delta(config.uri).collect_schema() == columns


def test_a_version_that_is_not_there_or_was_swept_is_refused(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    publish(config, refs, DAYS[0])
    publish(config, refs, DAYS[0], seed=1)
    for wrong in (-1, 2, 99):
        with pytest.raises(InputError, match=rf"--to {wrong}: .* has 0 to 1"):
            roll_back(config, wrong)
    now = PublishConfig(uri=config.uri, vacuum_after_hours=0)
    assert len(sweep_table(now)) == 1
    with pytest.raises(InputError, match="1 of that version's 1 files are gone"):
        roll_back(now, 0)
    assert [x["restorable"] for x in list_versions(now)] == [True, False]
    assert DeltaTable(config.uri).version() == 1


def test_the_sweep_goes_by_age_and_makes_no_commit(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    for day in DAYS[:2]:
        publish(config, refs, day)
    publish(config, refs, DAYS[0], seed=1)
    root = Path(config.uri)
    orphans = [
        "as_of=2024-03-01/part-x.parquet",
        "as_of=2024-03-01/.part-y.parquet.77-ab.tmp",
        "as_of=2023-01-01/part-old.parquet",
    ]
    kept = ["as_of=2024-03-01/notes.txt", "README.md", "_delta_log/_last_checkpoint.md"]
    for name in orphans + kept:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    assert sweep_table(config) == []
    age(config.uri, 200)
    # The file that the third commit dropped is old, but it was visible until a moment ago.
    assert sorted(sweep_table(config)) == sorted(orphans)
    assert not (root / "as_of=2023-01-01").exists()
    assert all((root / name).exists() for name in kept)
    assert shown(config.uri, version=1) == {day: {identity(day).run_id} for day in DAYS[:2]}
    [dropped] = sweep_table(PublishConfig(uri=config.uri, vacuum_after_hours=0))
    assert dropped.startswith("as_of=2024-03-01/part-2024-03-01-")
    assert DeltaTable(config.uri).version() == 2
    assert sorted(shown(config.uri)) == list(DAYS[:2])
    assert sweep_table(PublishConfig(uri=config.uri, vacuum_after_hours=0)) == []


def test_checkpoints_lose_no_version(
    config: PublishConfig, refs: tuple[Ref, Ref], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_sweep, "CHECKPOINT_EVERY", 2)
    for seed in range(5):
        publish(config, refs, DAYS[0], seed)
        sweep_table(config)
    checkpoints = {x for x in log_files(config.uri) if x.endswith(".checkpoint.parquet")}
    assert checkpoints == {f"{version:020d}.checkpoint.parquet" for version in (2, 4)}
    assert len(list_versions(config)) == 5
    assert find_published(config, identity(DAYS[0], 4)) is not None
    assert roll_back(config, 1).run_id == identity(DAYS[0], 1).run_id
    assert find_published(config, identity(DAYS[0], 1)) is not None


def test_a_log_that_another_tool_cleaned_still_lists_and_sweeps(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    for seed in range(3):
        publish(config, refs, DAYS[0], seed)
    publish(config, refs, DAYS[1])
    DeltaTable(config.uri).create_checkpoint()
    for version in range(3):
        (Path(config.uri) / "_delta_log" / f"{version:020d}.json").unlink()
    [only] = list_versions(config)
    assert (only["version"], only["days"], only["restorable"]) == (3, list(DAYS[:2]), True)
    sweep_table(PublishConfig(uri=config.uri, vacuum_after_hours=0))
    assert shown(config.uri) == {DAYS[0]: {identity(DAYS[0], 2).run_id}, DAYS[1]: {identity(DAYS[1]).run_id}}
    assert len(data_files(config.uri)) == 2


def test_a_table_that_another_job_compacted_keeps_its_runs(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    for day in DAYS[:2]:
        publish(config, refs, day)
    DeltaTable(config.uri).optimize.z_order(["item_id"])
    compacted = read_table_days(config)
    found = compacted.published.values()
    assert [x.run_id for x in found] == [identity(day).run_id for day in DAYS[:2]]
    assert [x.version for x in found] == [0, 1]
    assert {x.rewritten for x in found} == {"OPTIMIZE of another tool in version 2"}
    assert compacted.rolled_back == {}
    roll_back(config, 0)
    restored = read_table_days(config)
    assert restored.rolled_back == {date.fromisoformat(DAYS[1]): 3}
    assert {day.isoformat(): x.rewritten for day, x in restored.published.items()} == {DAYS[0]: None}
    publish(config, refs, DAYS[1])
    assert read_table_days(config).rolled_back == {}

"""Which files of earlier runs stay, and where a warm start comes from."""

from __future__ import annotations

import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.errors import StorageError, TableHeldError
from tasks.runs.config import RunSettings
from tasks.runs.folders import (
    copy_quarantine,
    load_summary,
    open_run,
    previous_ego,
    ref_values,
    save_summary,
    sweep_runs,
    sweep_stages,
)
from tasks.store.store import Ref, StageWriter
from tasks.table.config import PublishConfig

DAY = date(2024, 3, 10)
TABLE = "/warehouse/features"
RUN = "20240310-0123456789ab"
Array = np.ndarray[Any, Any]


def settings(folder: Path, **changed: Any) -> RunSettings:
    return RunSettings(folder=str(folder / "runs"), **changed)


def run_folder(runs: RunSettings, number: int, *, days_ago: float = 0.0, summary: bool = True) -> Path:
    """The folder of a run that ended so long ago. Lower numbers are newer."""
    folder = runs.run_folder(f"202403{31 - number:02d}-{number:012x}")
    folder.mkdir(parents=True)
    if summary:
        (folder / "summary.json").write_text("{}")
    when = time.time() - days_ago * 86400 - number
    os.utime(folder, (when, when))
    return folder


def names(runs: RunSettings) -> set[str]:
    return {x.name for x in Path(runs.folder).iterdir()}


def test_only_the_newest_runs_stay(tmp_path: Path) -> None:
    runs = settings(tmp_path, keep_runs=3, keep_days=7.0)
    sweep_runs(runs)
    # A refused or killed run has no summary.
    ages = {1: 0.0, 2: 6.0, 3: 8.0, 4: 9.0}
    new, kept, _, _ = [run_folder(runs, number, days_ago=age, summary=number != 2) for number, age in ages.items()]
    (Path(runs.folder) / "stages" / "source-1").mkdir(parents=True)
    sweep_runs(runs)
    assert names(runs) == {new.name, kept.name, "stages"}
    for folder in (kept, new):
        os.utime(folder, (0, folder is new))
    sweep_runs(runs)
    assert names(runs) == {new.name, "stages"}


def test_a_temporary_file_of_a_killed_run_is_deleted_after_an_hour(tmp_path: Path) -> None:
    runs = settings(tmp_path)
    path = save_summary(runs, {"run_id": RUN, "version": 1, "stages": {}})
    left = path.with_name(".tmp-report.html-77")
    left.write_text("<")
    sweep_runs(runs)
    assert left.exists()
    os.utime(left, (left.stat().st_mtime - 3700,) * 2)
    sweep_runs(runs)
    assert [x.name for x in path.parent.iterdir()] == ["summary.json"]


def test_a_summary_is_written_atomically_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    runs = settings(tmp_path)
    assert load_summary(runs, RUN) is None
    for version in (1, 2):
        path = save_summary(runs, {"run_id": RUN, "version": version})
        assert load_summary(runs, RUN) == {"run_id": RUN, "version": version}
    assert [x.name for x in path.parent.iterdir()] == ["summary.json"]
    save_summary(runs, {"run_id": RUN, "report": "/before/the/move/report.html"})
    assert load_summary(runs, RUN) == {"run_id": RUN, "report": str(path.with_name("report.html"))}
    path.write_text('{"run_id": ')
    assert load_summary(runs, RUN) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"summary\.json: cannot be written: Not a directory"):
        save_summary(settings(tmp_path / "file"), {"run_id": RUN})


def test_a_run_holds_the_table_and_deletes_old_files(tmp_path: Path) -> None:
    runs = settings(tmp_path, keep_runs=1, keep_stages=1)
    publish = PublishConfig(uri=str(tmp_path / "warehouse" / "table"))
    with open_run(runs, publish, DAY) as store:
        with pytest.raises(TableHeldError, match="run rectify 2024-03-10"), open_run(runs, publish, DAY):
            pass
        kept, other = (store.once("source", (name,), lambda writer: writer.meta({})) for name in ("kept", "other"))
        old = run_folder(runs, 30, days_ago=1.0)
        summary = {"run_id": RUN, "version": 0, "as_of": "2024-03-10", "stages": {"source": ref_values(kept)}}
        save_summary(runs, summary)
        assert old.exists()
    assert names(runs) == {RUN, "stages"}
    assert Path(kept.path).exists() and not Path(other.path).exists()


def test_a_run_that_fails_keeps_its_outputs_for_the_next(tmp_path: Path) -> None:
    runs, publish = settings(tmp_path, keep_stages=0), PublishConfig(uri=str(tmp_path / "table"))

    def fail() -> None:
        with open_run(runs, publish, DAY) as store:
            store.once("source", (), lambda writer: writer.meta({}))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (output,) = [x for x in runs.store.root.iterdir() if x.is_dir()]
    with open_run(runs, publish, DAY) as store:
        assert store.once("source", (), lambda writer: None).path == str(output)
    assert not output.exists()


def test_a_backfill_takes_no_report_and_no_outputs_from_the_newest_days(tmp_path: Path) -> None:
    runs = settings(tmp_path, keep_runs=2, keep_stages=1)
    days = ["20240310", "20240309", "20240201", "20240202", "20240203"]
    for at, day in enumerate(days):
        output = runs.store.once("rectify", (day,), lambda writer: writer.meta({}))
        folder = save_summary(runs, {"run_id": f"{day}-{at:012x}", "stages": {"rectify": ref_values(output)}}).parent
        os.utime(folder / "summary.json", (1_700_000_000 + at, 1_700_000_000 + at))
        os.utime(folder, (time.time() - 100 + at,) * 2)
    sweep_stages(runs)
    sweep_runs(runs)
    assert {x[:8] for x in names(runs) if x[0] == "2"} == {"20240310", "20240309", "20240202", "20240203"}
    reused = {day: runs.store.once("rectify", (day,), lambda writer: writer.meta({})).reused for day in days[::-1]}
    assert {day for day, was in reused.items() if was} == {"20240310", "20240203"}


def test_quarantined_rows_are_copied_beside_the_report(tmp_path: Path) -> None:
    stage = tmp_path / "source"
    stage.mkdir()
    (stage / "quarantine-items.parquet").write_bytes(b"items")
    (stage / "labels.parquet").write_bytes(b"labels")
    ref = Ref(kind="source", path=str(stage), digest="x")
    copy_quarantine(ref, tmp_path / "run")
    assert [x.name for x in (tmp_path / "run" / "quarantine").iterdir()] == ["items.parquet"]


def past_run(
    runs: RunSettings, day: str, ids: Array, ego: Array, *, version: int | None = 0, untrained: int = 0
) -> str:
    """Save a run of ``day`` with these ego rows, the last few of them untrained. Return its id."""
    source = runs.store.once("source", (day, version), lambda writer: writer.array("item_ids", ids))

    def build(writer: StageWriter) -> None:
        writer.array("ego", ego)
        writer.array("trained", np.arange(len(ids)) < len(ids) - untrained)

    anchors = runs.store.once("anchors", (day, version), build)
    run_id = f"{day.replace('-', '')}-{version}"
    stages = {"source": ref_values(source), "anchors": ref_values(anchors)}
    save_summary(runs, {"run_id": run_id, "as_of": day, "version": version, "table": TABLE, "stages": stages})
    return run_id


def test_ego_rows_are_found_by_item(tmp_path: Path) -> None:
    runs, rng = settings(tmp_path), np.random.default_rng(0)
    ids, new_ids = (np.array([f"item {x}" for x in part]) for part in ((40, 10, 30, 20, 50), (20, 7, 400000, 40, 50)))
    ego = rng.normal(size=(5, 3)).astype(np.float32)
    run_id = past_run(runs, "2024-03-09", ids, ego, untrained=1)
    rows, found = previous_ego(runs, TABLE, DAY, new_ids, 3)
    assert found == run_id
    # New items, and one that had no anchor, are unknown.
    unknown = [np.nan] * 3
    np.testing.assert_array_equal(rows, np.array([ego[3], unknown, unknown, ego[0], unknown], np.float32))


def test_the_newest_earlier_published_run_with_outputs_is_taken(tmp_path: Path) -> None:
    runs, ids = settings(tmp_path), np.arange(3)
    assert previous_ego(runs, TABLE, DAY, ids, 2) == (None, None)

    def add(day: int, value: float, version: int | None = 0) -> str:
        return past_run(runs, f"2024-03-{day:02d}", ids, np.full((3, 2), value, np.float32), version=version)

    add(7, 0)
    newest = add(8, 1)
    for day, version in ((9, None), (10, 0), (11, 0)):
        add(day, day, version)
    rows, found = previous_ego(runs, TABLE, DAY, ids, 2)
    assert found == newest
    assert rows is not None and (rows == 1).all()
    later = add(8, 5, version=4)
    assert previous_ego(runs, TABLE, DAY, ids, 2)[1] == later
    assert previous_ego(runs, TABLE, date(2024, 3, 7), ids, 2) == (None, None)


def test_ego_rows_of_another_width_kind_of_id_or_table_are_not_used(tmp_path: Path) -> None:
    runs = settings(tmp_path)
    past_run(runs, "2024-03-09", np.arange(3), np.zeros((3, 2), np.float32))
    for table, ids, width in ((TABLE, np.arange(3), 4), (TABLE, np.array(["0", "1"]), 2), ("/other", np.arange(3), 2)):
        assert previous_ego(runs, table, DAY, ids, width) == (None, None)

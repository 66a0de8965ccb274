"""What makes two runs the same run, what is kept of runs that are over, and where a warm start comes from."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.rectify.config import RectifyConfig
from tasks.errors import StorageError, TableHeldError
from tasks.runs.config import RunSettings
from tasks.runs.identity import (
    copy_quarantine,
    identify,
    load_summary,
    open_run,
    previous_ego,
    ref_values,
    save_summary,
    sweep_runs,
    sweep_stages,
    without_places,
)
from tasks.source.config import SourceConfig
from tasks.store.store import Ref, StageStore, StageWriter
from tasks.table.config import PublishConfig

DAY = date(2024, 3, 10)
TABLE = "/warehouse/features"
SOURCE = SourceConfig(
    catalog="/data/catalog",
    interactions="/data/log",
    item_column="item_id",
    user_column="user_id",
    modalities={"image": "image_embedding"},
)
READ = Ref(kind="source", path="/runs/stages/source-1", digest="abc")
PARTS: dict[str, Any] = {"seed": 0, "source": SOURCE, "anchors": AnchorsConfig(), "rectify": RectifyConfig()}


def settings(folder: Path, **changed: Any) -> RunSettings:
    """Run settings with their folder below ``folder``."""
    return RunSettings(folder=str(folder / "runs"), **changed)


def run_folder(kept: RunSettings, number: int, *, days_ago: float = 0.0, summary: bool = True) -> Path:
    """The folder of a run that ended so long ago."""
    folder = kept.run_folder(f"202403{31 - number:02d}-{number:012x}")
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("report")
    if summary:
        (folder / "summary.json").write_text("{}")
    when = time.time() - days_ago * 86400 - number
    os.utime(folder, (when, when))
    return folder


def names(kept: RunSettings) -> list[str]:
    """The run folders that are there."""
    return sorted(x.name for x in Path(kept.folder).iterdir())


def test_a_run_is_named_by_its_day_and_a_digest() -> None:
    identity = identify(DAY, READ, PARTS)
    assert re.fullmatch(r"20240310-[0-9a-f]{12}", identity.run_id)
    assert identity.digest.startswith(identity.run_id.split("-")[1])
    assert identity.inputs_digest == "abc"
    assert identity == identify(DAY, READ, dict(reversed(PARTS.items())))


@pytest.mark.parametrize(
    "same",
    [
        {"source": replace(SOURCE, catalog="s3://bucket/catalog")},
        {"source": replace(SOURCE, interactions="/elsewhere/log")},
    ],
)
def test_where_the_data_lies_does_not_count(same: dict[str, Any]) -> None:
    moved = replace(READ, path="/elsewhere", seconds=9.0, reused=True)
    assert identify(DAY, moved, PARTS | same) == identify(DAY, READ, PARTS)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"source": replace(SOURCE, positive="rating >= 4")},
        {"source": replace(SOURCE, modalities={"image": "other_column"})},
        {"anchors": AnchorsConfig(epochs=3)},
        {"anchors": AnchorsConfig(warm_start=True)},
        {"rectify": RectifyConfig(keep_original=0.7)},
    ],
)
def test_what_shapes_the_rows_counts(other: dict[str, Any]) -> None:
    changed, first = identify(DAY, READ, PARTS | other), identify(DAY, READ, PARTS)
    assert changed.run_id != first.run_id
    assert changed.config_digest != first.config_digest


def test_the_day_and_what_was_read_count() -> None:
    found = {
        identify(*given, PARTS).digest
        for given in ((DAY, READ), (date(2024, 3, 11), READ), (DAY, replace(READ, digest="abd")))
    }
    assert len(found) == 3


def test_the_config_in_a_report_names_no_place() -> None:
    found = without_places(PARTS)
    assert "/data" not in json.dumps(found)
    assert found["source"]["item_column"] == "item_id"
    assert found["rectify"]["keep_original"] == 0.6


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"folder": "relative"}, "folder"),
        ({"keep_runs": 0}, "keep_runs"),
        ({"keep_days": -1.0}, "keep_days"),
        ({"keep_stages": -1}, "keep_stages"),
    ],
)
def test_settings_are_checked(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        RunSettings(**{"folder": "/runs", **changed})


def test_runs_beyond_the_newest_few_are_dropped(tmp_path: Path) -> None:
    kept = settings(tmp_path, keep_runs=2)
    folders = [run_folder(kept, number) for number in range(1, 6)]
    (Path(kept.folder) / "stages" / "source-1").mkdir(parents=True)
    (Path(kept.folder) / "notes").mkdir()
    sweep_runs(kept)
    assert names(kept) == sorted([folders[0].name, folders[1].name, "stages", "notes"])


def test_refused_and_killed_runs_are_dropped_too(tmp_path: Path) -> None:
    kept = settings(tmp_path, keep_runs=1)
    newest = run_folder(kept, 1)
    run_folder(kept, 2, summary=False)
    sweep_runs(kept)
    assert names(kept) == [newest.name]


def test_runs_of_long_ago_are_dropped_but_the_newest(tmp_path: Path) -> None:
    kept = settings(tmp_path, keep_days=7.0)
    new, old = run_folder(kept, 1, days_ago=6.0), run_folder(kept, 2, days_ago=8.0)
    sweep_runs(kept)
    assert names(kept) == [new.name]
    assert not old.exists()
    when = time.time() - 100 * 86400
    os.utime(new, (when, when))
    sweep_runs(kept)
    assert names(kept) == [new.name]


def test_the_run_just_done_is_the_newest_also_where_the_clock_went_back(tmp_path: Path) -> None:
    kept = settings(tmp_path, keep_runs=2, keep_stages=1)
    for number in range(3):
        save_summary(kept, {"run_id": f"{20240310 + number}-{number:012x}", "version": number, "stages": {}})
        for path in tmp_path.rglob("*"):
            # An hour back: what was there is of an hour ahead.
            os.utime(path, (path.stat().st_mtime + 3600,) * 2)
        sweep_runs(kept)
    assert names(kept) == ["20240311-000000000001", "20240312-000000000002"]
    newest = max(tmp_path.glob("runs/*/summary.json"), key=lambda x: x.stat().st_mtime_ns)
    assert newest.parent.name == "20240312-000000000002"


def test_what_a_killed_run_left_of_a_file_goes_an_hour_later(tmp_path: Path) -> None:
    kept = settings(tmp_path)
    path = save_summary(kept, {"run_id": "20240310-000000000000", "version": 1, "stages": {}})
    left = path.with_name(".tmp-report.html-77")
    left.write_text("<")
    sweep_runs(kept)
    assert left.exists()
    os.utime(left, (left.stat().st_mtime - 3700,) * 2)
    sweep_runs(kept)
    assert sorted(x.name for x in path.parent.iterdir()) == ["summary.json"]


def test_sweeping_where_nothing_ever_ran(tmp_path: Path) -> None:
    sweep_runs(settings(tmp_path))
    assert not (tmp_path / "runs").exists()


def test_a_summary_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    kept = settings(tmp_path)
    assert load_summary(kept, "20240310-aa") is None
    path = save_summary(kept, {"run_id": "20240310-aa", "version": 1})
    assert load_summary(kept, "20240310-aa") == {"run_id": "20240310-aa", "version": 1}
    save_summary(kept, {"run_id": "20240310-aa", "version": 2})
    assert load_summary(kept, "20240310-aa") == {"run_id": "20240310-aa", "version": 2}
    assert [x.name for x in path.parent.iterdir()] == ["summary.json"]
    save_summary(kept, {"run_id": "20240310-aa", "report": "/before/the/move/report.html"})
    assert load_summary(kept, "20240310-aa") == {"run_id": "20240310-aa", "report": str(path.with_name("report.html"))}
    path.write_text('{"run_id": ')
    assert load_summary(kept, "20240310-aa") is None
    with pytest.raises(ValueError, match="JSON"):
        save_summary(kept, {"run_id": "20240310-aa", "rate": float("nan")})
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"summary: writing .*summary\.json failed: Not a directory"):
        save_summary(settings(tmp_path / "file"), {"run_id": "20240310-aa"})


def test_a_run_holds_the_table_and_tidies_up(tmp_path: Path) -> None:
    kept, publish = (
        settings(tmp_path, keep_runs=1, keep_stages=1),
        PublishConfig(uri=str(tmp_path / "warehouse" / "table")),
    )
    with open_run(kept, publish, DAY) as store:
        with pytest.raises(TableHeldError, match="run rectify 2024-03-10"), open_run(kept, publish, DAY):
            pass
        wanted = store.once("source", ("wanted",), lambda writer: writer.meta({"is": "wanted"}))
        unwanted = store.once("source", ("unwanted",), lambda writer: writer.meta({"is": "not"}))
        old = run_folder(kept, 30, days_ago=1.0)
        summary = {
            "run_id": "20240310-0123456789ab",
            "version": 0,
            "as_of": "2024-03-10",
            "stages": {"source": ref_values(wanted)},
        }
        save_summary(kept, summary)
        assert old.exists()
    assert names(kept) == ["20240310-0123456789ab", "stages"]
    assert Path(wanted.path).exists()
    assert not Path(unwanted.path).exists()


def test_a_run_that_fails_keeps_its_outputs_for_the_next(tmp_path: Path) -> None:
    kept, publish = settings(tmp_path, keep_stages=0), PublishConfig(uri=str(tmp_path / "table"))
    with pytest.raises(ZeroDivisionError):
        fail_after_a_stage(kept, publish)
    (found,) = [x for x in kept.store.root.iterdir() if x.is_dir()]
    with open_run(kept, publish, DAY) as store:
        assert store.once("source", (), lambda writer: None).path == str(found)
    assert not found.exists()


def fail_after_a_stage(kept: RunSettings, publish: PublishConfig) -> None:
    with open_run(kept, publish, DAY) as store:
        store.once("source", (), lambda writer: writer.meta({}))
        raise ZeroDivisionError


def test_quarantined_rows_are_copied_beside_the_report(tmp_path: Path) -> None:
    stage = tmp_path / "source"
    stage.mkdir()
    (stage / "quarantine-items.parquet").write_bytes(b"items")
    (stage / "labels.parquet").write_bytes(b"labels")
    ref = Ref(kind="source", path=str(stage), digest="x")
    for _ in range(2):
        copy_quarantine(ref, tmp_path / "run")
        assert {x.name: x.read_bytes() for x in (tmp_path / "run" / "quarantine").iterdir()} == {
            "items.parquet": b"items"
        }
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="quarantined rows cannot be copied: Not a directory"):
        copy_quarantine(ref, tmp_path / "file" / "run")


def past_run(
    kept: RunSettings,
    day: str,
    ids: np.ndarray[Any, Any],
    ego: np.ndarray[Any, Any],
    *,
    version: int | None = 0,
    untrained: int = 0,
    table: str = TABLE,
) -> str:
    """A run of ``day`` with these ego rows, the last few of them untrained."""
    trained = np.arange(len(ids)) < len(ids) - untrained
    source = kept.store.once("source", (day, version), lambda writer: writer.array("item_ids", ids))

    def learnt(writer: StageWriter) -> None:
        writer.array("ego", ego)
        writer.array("trained", trained)

    anchors = kept.store.once("anchors", (day, version), learnt)
    run_id = f"{day.replace('-', '')}-{version}"
    stages = {"source": ref_values(source), "anchors": ref_values(anchors)}
    save_summary(kept, {"run_id": run_id, "as_of": day, "version": version, "table": table, "stages": stages})
    return run_id


@pytest.mark.parametrize("text", [True, False])
def test_ego_rows_are_found_by_item(tmp_path: Path, text: bool) -> None:
    kept, rng = settings(tmp_path), np.random.default_rng(0)
    numbers = np.array([40, 10, 30, 20, 50])
    ids = np.array([f"item {x}" for x in numbers]) if text else numbers
    ego = rng.normal(size=(5, 3)).astype(np.float32)
    run_id = past_run(kept, "2024-03-09", ids, ego, untrained=1)
    wanted = (
        np.array(["item 20", "item 7", "item 400000", "item 40", "item 50"])
        if text
        else np.array([20, 7, 400000, 40, 50])
    )
    rows, found = previous_ego(kept, TABLE, DAY, wanted, 3)
    assert found == run_id
    assert rows is not None
    assert rows.dtype == np.float32
    # Gone before, never there, and there without an anchor: all unknown.
    np.testing.assert_array_equal(
        rows, np.stack([ego[3], *([[np.nan] * 3] * 2), ego[0], [np.nan] * 3]).astype(np.float32)
    )


def test_the_newest_earlier_run_that_can_be_read_is_taken(tmp_path: Path) -> None:
    kept, ids = settings(tmp_path), np.arange(3)
    assert previous_ego(kept, TABLE, DAY, ids, 2) == (None, None)
    runs = {
        day: past_run(kept, day, ids, np.full((3, 2), number, np.float32))
        for number, day in enumerate(("2024-03-07", "2024-03-08"))
    }
    past_run(kept, "2024-03-10", ids, np.full((3, 2), 8, np.float32))
    past_run(kept, "2024-03-11", ids, np.full((3, 2), 9, np.float32))
    past_run(kept, "2024-03-09", ids, np.full((3, 2), 7, np.float32), version=None)
    rows, found = previous_ego(kept, TABLE, DAY, ids, 2)
    assert found == runs["2024-03-08"]
    assert rows is not None
    assert (rows == 1).all()
    # The same day in a later version, and then its outputs swept away.
    latest = past_run(kept, "2024-03-08", ids, np.full((3, 2), 5, np.float32), version=4)
    assert previous_ego(kept, TABLE, DAY, ids, 2)[1] == latest
    newest = load_summary(kept, latest)
    assert newest is not None
    (Path(newest["stages"]["anchors"]["path"]) / "manifest.json").unlink()
    assert previous_ego(kept, TABLE, DAY, ids, 2)[1] == runs["2024-03-08"]
    assert previous_ego(kept, TABLE, date(2024, 3, 7), ids, 2) == (None, None)


def test_ego_rows_of_another_width_or_kind_of_id_are_of_no_use(tmp_path: Path) -> None:
    kept = settings(tmp_path)
    past_run(kept, "2024-03-09", np.arange(3), np.zeros((3, 2), np.float32))
    assert previous_ego(kept, TABLE, DAY, np.arange(3), 4) == (None, None)
    assert previous_ego(kept, TABLE, DAY, np.array(["0", "1"]), 2) == (None, None)


def test_another_tables_run_in_the_same_folder_is_no_start(tmp_path: Path) -> None:
    kept = settings(tmp_path)
    past_run(kept, "2024-03-09", np.arange(3), np.zeros((3, 2), np.float32), table="/warehouse/other")
    assert previous_ego(kept, TABLE, DAY, np.arange(3), 2) == (None, None)


def test_outputs_of_all_runs_lie_in_one_store(tmp_path: Path) -> None:
    kept = settings(tmp_path)
    assert kept.store == StageStore(tmp_path / "runs" / "stages")
    assert kept.run_folder("x") == tmp_path / "runs" / "x"


def test_a_backfill_takes_no_report_and_no_outputs_from_the_newest_days(tmp_path: Path) -> None:
    kept = settings(tmp_path, keep_runs=2, keep_stages=1)
    days = ["20240310", "20240309", "20240201", "20240202", "20240203"]
    for at, day in enumerate(days):
        output = kept.store.once("rectified", (day,), lambda writer: writer.meta({}))
        folder = save_summary(kept, {"run_id": f"{day}-{at:012x}", "stages": {"rectified": ref_values(output)}}).parent
        os.utime(folder / "summary.json", (1_700_000_000 + at, 1_700_000_000 + at))
        os.utime(folder, (time.time() - 100 + at,) * 2)
    sweep_stages(kept)
    sweep_runs(kept)
    assert {x.name[:8] for x in Path(kept.folder).glob("2*")} == {"20240310", "20240309", "20240202", "20240203"}
    wanted = {
        kept.store.once("rectified", (day,), lambda writer: writer.meta({})).reused for day in ("20240310", "20240203")
    }
    assert wanted == {True}
    assert not kept.store.once("rectified", ("20240309",), lambda writer: writer.meta({})).reused

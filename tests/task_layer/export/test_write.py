"""Exports as arrays and as Parquet: the published rows of a version and day, in a folder that readers never see half written."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError, StorageError
from tasks.table import snapshot as table_snapshot
from tasks.table.history import roll_back
from tasks.table.publish import PublishConfig
from tasks.table.snapshot import open_snapshot
from tests.support.export_support import FORMATS, contents, export, manifest
from tests.support.table.faults import Nursery
from tests.support.table.publish_support import anchors_ref, identity, make_refs, publish, sequence_refs

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")
STATUSES = ["rectified", "passed_through", "imputed", "missing"]


@pytest.fixture
def config(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "warehouse" / "features"), rows_per_file=20)


def shown(uri: str, day: str, version: int | None = None) -> pl.DataFrame:
    """Return the day's rows as a plain Delta reader gets them."""
    return pl.scan_delta(uri, version=version).filter(pl.col("as_of") == date.fromisoformat(day)).collect()


def column(folder: Path, name: str) -> Any:
    return np.load(folder / f"{name}.npy", allow_pickle=False)


def check_arrays(folder: Path, rows: pl.DataFrame) -> None:
    """Assert that the arrays hold the table's rows, value by value."""
    by_id = {row["item_id"]: row for row in rows.iter_rows(named=True)}
    ids = column(folder, "item_ids").tolist()
    assert sorted(ids) == sorted(by_id)
    for name in (x.removesuffix("_status") for x in rows.columns if x.endswith("_status")):
        values, trust, status = (column(folder, f"{name}{x}") for x in ("", "_trust", "_status"))
        assert (values.dtype, trust.dtype, status.dtype) == (np.float32, np.float32, np.uint8)
        wanted = [by_id[x][name] or [0.0] * values.shape[1] for x in ids]
        assert values.tolist() == wanted
        assert [None if np.isnan(x) else x for x in trust.tolist()] == [by_id[x][f"{name}_trust"] for x in ids]
        assert [STATUSES[x] for x in status] == [by_id[x][f"{name}_status"] for x in ids]


@pytest.mark.parametrize("id_type", ["string", "int64", "int32"])
def test_arrays_hold_the_published_rows(tmp_path: Path, config: PublishConfig, id_type: str) -> None:
    publish(config, make_refs(tmp_path / "stages", id_type=id_type), DAYS[0])
    done = export(config.uri, tmp_path / "out")
    rows = shown(config.uri, DAYS[0])
    check_arrays(tmp_path / "out", rows)
    assert sum(x is None for x in rows["image"].to_list()) >= 5
    assert column(tmp_path / "out", "item_ids").dtype == (np.dtype("<U10") if id_type == "string" else np.int64)
    about = manifest(tmp_path / "out")
    run = identity(DAYS[0])
    assert (about["version"], about["as_of"], about["run_id"], about["rows"]) == (0, DAYS[0], run.run_id, 50)
    assert (about["sources"]["run_digest"], len(about["sources"]["files"])) == (run.digest, 3)
    assert about["statuses"] == STATUSES
    assert about["contents"]["image.npy"] == {"dtype": "<f4", "shape": [50, 4]}
    image = about["modalities"]["image"]
    assert (image["width"], image["embedding_model"], image["mismatch_rate"]) == (4, None, 0.2)
    assert (done["reused"], done["files"], done["digest"]) == (False, 10, about["digest"])


def test_arrays_of_sequences(tmp_path: Path, config: PublishConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_snapshot, "_BLOCK_BYTES", 1 << 10)
    publish(config, sequence_refs(tmp_path / "stages"), DAYS[0])
    export(config.uri, tmp_path / "out")
    rows = shown(config.uri, DAYS[0]).sort("item_id")
    assert open_snapshot(config).block_rows <= 8
    check_arrays(tmp_path / "out", rows)
    segments, positions, trust, offsets = (
        column(tmp_path / "out", f"video_{x}")
        for x in ("segments", "segment_positions", "segment_trust", "segment_offsets")
    )
    assert offsets[0] == 0 and offsets[-1] == len(segments) == len(positions) == len(trust) > 50
    for row, first, stop in zip(rows.iter_rows(named=True), offsets[:-1], offsets[1:], strict=True):
        assert segments[first:stop].tolist() == (row["video_segments"] or [])
        assert positions[first:stop].tolist() == (row["video_segment_positions"] or [])
        assert [None if np.isnan(x) else x for x in trust[first:stop].tolist()] == (row["video_segment_trust"] or [])


@pytest.mark.parametrize("format", ["npy", "parquet"])
def test_the_anchors_are_exported(tmp_path: Path, config: PublishConfig, format: str) -> None:
    refs, anchors = make_refs(tmp_path / "stages"), anchors_ref(tmp_path / "stages")
    publish(config, refs, DAYS[0], anchors=anchors)
    export(config.uri, tmp_path / "out", format)
    rows = shown(config.uri, DAYS[0])
    if format == "parquet":
        assert pl.read_parquet(tmp_path / "out" / "features.parquet").equals(rows)
        return
    check_arrays(tmp_path / "out", rows)
    assert column(tmp_path / "out", "behaviour").dtype == np.float32
    np.testing.assert_array_equal(column(tmp_path / "out", "behaviour"), anchors.array("items"))
    publish(config, refs, DAYS[1])
    export(config.uri, tmp_path / "out", format)
    assert not (tmp_path / "out" / "behaviour.npy").exists()


def test_a_modality_without_any_feature(tmp_path: Path, config: PublishConfig) -> None:
    source, rectified = make_refs(tmp_path / "stages", items=7, widths={"image": 4})
    status = np.load(rectified.file("status-image.npy"))
    np.save(rectified.file("status-image.npy"), np.full_like(status, 3))
    publish(config, (source, rectified), DAYS[0])
    export(config.uri, tmp_path / "out")
    assert column(tmp_path / "out", "image").shape == (7, 0)
    assert column(tmp_path / "out", "image_status").tolist() == [3] * 7


def test_parquet_is_the_day_of_the_table(
    tmp_path: Path, config: PublishConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_snapshot, "_BLOCK_BYTES", 1 << 11)
    refs = make_refs(tmp_path / "stages")
    for seed, day in enumerate(DAYS[:2]):
        publish(config, refs, day, seed)
    export(config.uri, tmp_path / "out", "parquet", day=DAYS[0])
    found = pl.read_parquet(tmp_path / "out" / "features.parquet")
    wanted = shown(config.uri, DAYS[0])
    assert found.columns == wanted.columns
    assert found.equals(wanted)
    assert found["as_of"].unique().to_list() == [date.fromisoformat(DAYS[0])]
    groups = pq.ParquetFile(tmp_path / "out" / "features.parquet").metadata
    assert [groups.row_group(x).num_rows for x in range(groups.num_row_groups)] == [16, 16, 16, 2]
    assert manifest(tmp_path / "out")["contents"]["features.parquet"]["rows_per_group"] == 16


@pytest.mark.parametrize("format", FORMATS)
def test_the_bytes_do_not_depend_on_how_the_table_is_cut(
    tmp_path: Path, config: PublishConfig, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_snapshot, "_BLOCK_BYTES", 1 << 11)
    refs, files = make_refs(tmp_path / "stages"), []
    for rows_per_file in (7, 16, 1000):
        cut = replace(config, uri=f"{config.uri}-{rows_per_file}", rows_per_file=rows_per_file)
        publish(cut, refs, DAYS[0])
        export(cut.uri, tmp_path / str(rows_per_file), format)
        files.append({k: v for k, v in contents(tmp_path / str(rows_per_file)).items() if k != "manifest.json"})
    assert files[0] == files[1] == files[2]


def test_a_consumer_asks_for_the_newest_a_version_or_a_day(tmp_path: Path, config: PublishConfig) -> None:
    refs = make_refs(tmp_path / "stages")
    for seed, day in enumerate((DAYS[0], DAYS[2], DAYS[1])):
        publish(config, refs, day, seed)
    publish(config, refs, DAYS[2], 7)
    asked = [
        ({}, 3, DAYS[2], 7),
        ({"version": 1}, 1, DAYS[2], 1),
        # The backfilled day is the newest commit of its version, and not its newest day.
        ({"version": 2}, 2, DAYS[2], 1),
        ({"day": DAYS[1]}, 3, DAYS[1], 2),
        ({"version": 1, "day": DAYS[0]}, 1, DAYS[0], 0),
    ]
    for number, (options, version, day, seed) in enumerate(asked):
        out = tmp_path / str(number)
        done = export(config.uri, out, **options)  # type: ignore[arg-type]
        assert (done["version"], done["as_of"], done["run_id"]) == (version, day, identity(day, seed).run_id)
        check_arrays(out, shown(config.uri, day, version))
    roll_back(config, 1)
    done = export(config.uri, tmp_path / "after")
    assert (done["version"], done["as_of"], done["run_id"]) == (4, DAYS[2], identity(DAYS[2], 1).run_id)


def test_what_is_not_there_to_export(tmp_path: Path, config: PublishConfig) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"publish\.uri: there is no table at "):
        export(config.uri, out)
    refs = make_refs(tmp_path / "stages")
    for day in DAYS[:2]:
        publish(config, refs, day)
    for options, message in (
        ({"version": 5}, r"--version 5: .* has no such version; it has 0 to 1"),
        ({"version": -1}, r"--version -1: .* has no such version"),
        ({"day": DAYS[2]}, rf"--day {DAYS[2]}: version 1 of .* it has 2 days, {DAYS[0]} to {DAYS[1]}"),
        ({"version": 0, "day": DAYS[1]}, rf"--day {DAYS[1]}: version 0 of .* it has {DAYS[0]}"),
    ):
        with pytest.raises(InputError, match=message):
            export(config.uri, out, **options)  # type: ignore[arg-type]
    publish(config, refs, DAYS[0], seed=1)
    for path in Path(config.uri).glob(f"as_of={DAYS[0]}/part-{identity(DAYS[0]).run_id}-*"):
        path.unlink()
    with pytest.raises(
        InputError, match=r"--version 0: 3 of that version's 3 files are gone .* choose a version that `versions` calls"
    ):
        export(config.uri, out, version=0)
    assert not out.exists()
    assert list(tmp_path.glob(".tmp-*")) == []


def test_a_file_that_cannot_be_read_leaves_nothing(tmp_path: Path, config: PublishConfig) -> None:
    publish(config, make_refs(tmp_path / "stages", items=5000, widths={"image": 64}), DAYS[0])
    path = sorted(Path(config.uri).glob("as_of=*/*.parquet"))[-1]
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"reading as_of=.*failed: .*nothing was written"):
        export(config.uri, tmp_path / "out")
    assert [x.name for x in tmp_path.iterdir() if "out" in x.name] == []


def test_a_repeat_writes_nothing_and_another_version_replaces_it(tmp_path: Path, config: PublishConfig) -> None:
    refs, out = make_refs(tmp_path / "stages"), tmp_path / "out"
    publish(config, refs, DAYS[0])
    first = export(config.uri, out)
    inode = out.stat().st_ino
    again = export(config.uri, out)
    assert (again["reused"], again["digest"], out.stat().st_ino) == (True, first["digest"], inode)
    # A damaged export is not reused.
    export(config.uri, tmp_path / "copy")
    (tmp_path / "copy" / "text.npy").unlink()
    assert export(config.uri, tmp_path / "copy")["reused"] is False
    assert contents(tmp_path / "copy") == contents(out)
    publish(config, refs, DAYS[1], seed=1)
    second = export(config.uri, out)
    assert (second["reused"], second["as_of"], manifest(out)["as_of"]) == (False, DAYS[1], DAYS[1])
    assert export(config.uri, out, version=0)["digest"] == first["digest"]
    assert contents(out) == contents(tmp_path / "copy")
    # Another format in the same folder is another export.
    export(config.uri, out, "parquet")
    assert set(contents(out)) == {"features.parquet", "manifest.json"}
    assert list(tmp_path.glob(".tmp-*")) == []


def test_an_empty_folder_is_filled_and_a_link_is_followed(tmp_path: Path, config: PublishConfig) -> None:
    publish(config, make_refs(tmp_path / "stages"), DAYS[0])
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    for version in range(2):
        export(config.uri, tmp_path / "link")
        manifest(tmp_path / "real" / "deep")
        assert (tmp_path / "link").is_symlink()
        publish(config, make_refs(tmp_path / "stages"), DAYS[1], seed=version)


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        ("out", {"": "mine"}, "is a file"),
        ("out", {"notes.txt": ""}, r"holds notes\.txt and is no export"),
        ("out", {"manifest.json": "{}"}, r"holds manifest\.json and is no export"),
        ("out", {"manifest.json": "{"}, "cannot be read"),
        ("earlier", {"mine.txt": "mine"}, r"holds mine\.txt, which no export wrote"),
        ("warehouse/features", {}, "lies in the published table"),
        ("warehouse/features/export", {}, "lies in the published table"),
    ],
)
def test_a_folder_that_is_no_export_is_left_alone(
    tmp_path: Path, config: PublishConfig, place: str, content: dict[str, str], message: str
) -> None:
    publish(config, make_refs(tmp_path / "stages"), DAYS[0])
    export(config.uri, tmp_path / "earlier", "parquet")
    for name, text in content.items():
        (tmp_path / place / name).parent.mkdir(exist_ok=True)
        (tmp_path / place / name).write_text(text)
    before = {x: x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()}
    with pytest.raises(InputError, match=rf"--out .*{message}"):
        export(config.uri, tmp_path / place)
    with pytest.raises(InputError, match=r"--out .*wanted a local folder"):
        export(config.uri, Path("s3://bucket/export"))
    assert {x: x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()} == before


@pytest.mark.parametrize(
    ("event", "pattern", "after"),
    [
        pytest.param("open", r"/\.tmp-out-[0-9a-f]+/image_trust\.npy", False, marks=pytest.mark.slow),
        pytest.param("open", r"/\.tmp-out-[0-9a-f]+/manifest\.json", False, marks=pytest.mark.slow),
        ("os.rename", r"/\.tmp-out-", False),
        ("shutil.rmtree", r"/\.tmp-out-", True),
    ],
)
def test_a_killed_export_leaves_the_old_folder_or_the_new(
    tmp_path: Path, config: PublishConfig, nursery: Nursery, event: str, pattern: str, after: bool
) -> None:
    refs, out = make_refs(tmp_path / "stages"), tmp_path / "out"
    publish(config, refs, DAYS[0])
    export(config.uri, out)
    publish(config, refs, DAYS[1])
    killed = nursery.run("exported", config.uri, str(out), event, pattern, None)
    assert killed.code == -signal.SIGKILL, killed.said
    assert manifest(out)["as_of"] == DAYS[after]
    assert len(list(tmp_path.glob(".tmp-out-*"))) == 1
    (tmp_path / ".tmp-out-mine").mkdir()
    assert export(config.uri, out)["reused"] is after
    assert manifest(out)["as_of"] == DAYS[1]
    # The next export that writes removes the killed one's folder.
    export(config.uri, out, day=DAYS[0])
    assert [x.name for x in tmp_path.glob(".tmp-*")] == [".tmp-out-mine"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, config: PublishConfig, nursery: Nursery) -> None:
    publish(config, make_refs(tmp_path / "stages", items=2000), DAYS[0])
    ended = nursery.run("exported", config.uri, str(tmp_path / "out"), "", "", 16 * 1024)
    assert (ended.code, ended.said.count("\n")) == (1, 1)
    assert "writing failed: File too large; nothing was exported; free or fix the disk, then run again" in ended.said
    assert [x.name for x in tmp_path.iterdir() if "out" in x.name] == []


def test_two_at_once_leave_one_whole_export(tmp_path: Path, config: PublishConfig) -> None:
    refs, out = make_refs(tmp_path / "stages"), tmp_path / "out"
    for day in DAYS[:2]:
        publish(config, refs, day)
    alone = [export(config.uri, tmp_path / str(version), version=version)["digest"] for version in range(2)]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda version: export(config.uri, out, version=version)["digest"], [0, 1] * 8))
    assert sorted(done) == sorted(alone * 8)
    assert manifest(out)["digest"] in alone
    assert list(tmp_path.glob(".tmp-*")) == []

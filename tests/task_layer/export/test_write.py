"""Exports as arrays and as Parquet: the published rows of the version and day asked for, in a folder that is whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError, StorageError
from tasks.table import snapshot as table_snapshot
from tasks.table.history import roll_back
from tasks.table.publish import PublishConfig
from tasks.table.snapshot import open_snapshot
from tests.support import export_support
from tests.support.export_support import FORMATS, contents, export, manifest
from tests.support.table.publish_support import environment, identity, make_refs, publish, sequence_refs

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")
STATUSES = ["rectified", "passed_through", "imputed", "missing"]


@pytest.fixture
def config(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "warehouse" / "features"), rows_per_file=20)


def shown(uri: str, day: str, version: int | None = None) -> pl.DataFrame:
    """The rows as any reader of Delta tables finds them, in their order."""
    return pl.scan_delta(uri, version=version).filter(pl.col("as_of") == date.fromisoformat(day)).collect()


def column(folder: Path, name: str) -> Any:
    return np.load(folder / f"{name}.npy", allow_pickle=False)


def check_arrays(folder: Path, rows: pl.DataFrame) -> None:
    """Hold arrays against the table's rows, value by value."""
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
    told = manifest(tmp_path / "out")
    run = identity(DAYS[0])
    assert (told["version"], told["as_of"], told["run_id"], told["rows"]) == (0, DAYS[0], run.run_id, 50)
    assert told["sources"]["run_digest"] == run.digest
    assert len(told["sources"]["files"]) == 3
    assert told["statuses"] == STATUSES
    assert told["contents"]["image.npy"] == {"dtype": "<f4", "shape": [50, 4]}
    found = {"width": 4, "embedding_model": None, "mismatch_rate": 0.2, "low": None, "high": None, "identifiable": None}
    assert told["modalities"]["image"] == found
    assert (done["reused"], done["files"], done["digest"]) == (False, 8, told["digest"])


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


def test_a_modality_without_any_feature(tmp_path: Path, config: PublishConfig) -> None:
    source, rectified = make_refs(tmp_path / "stages", items=7, widths={"image": 4})
    status = np.load(rectified.file("status-image.npy"))
    np.save(rectified.file("status-image.npy"), np.full_like(status, 3))
    publish(config, (source, rectified), DAYS[0])
    export(config.uri, tmp_path / "out")
    assert column(tmp_path / "out", "image").shape == (7, 0)
    assert column(tmp_path / "out", "image_status").tolist() == [3] * 7


def test_two_columns_that_would_be_one_file(tmp_path: Path, config: PublishConfig) -> None:
    publish(config, make_refs(tmp_path / "stages", widths={"item_ids": 2}), DAYS[0])
    with pytest.raises(InputError, match=r"--format npy: two columns would be item_ids\.npy"):
        export(config.uri, tmp_path / "out")
    assert export(config.uri, tmp_path / "out", "parquet")["rows"] == 50


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


def test_rows_pass_through_memory_in_blocks(
    tmp_path: Path, config: PublishConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_snapshot, "_BLOCK_BYTES", 1 << 20)
    publish(
        replace(config, rows_per_file=30_000),
        make_refs(tmp_path / "stages", items=60_000, widths={"image": 128}),
        DAYS[0],
    )
    size, before = sum(x.stat().st_size for x in Path(config.uri).rglob("*.parquet")), pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        export(config.uri, tmp_path / "out", "parquet")
    finally:
        pa.set_memory_pool(before)
    assert 1 << 20 < pool.max_memory() < size / 2


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


def test_the_manifest_names_the_embedding_model(tmp_path: Path, config: PublishConfig) -> None:
    refs = make_refs(tmp_path / "stages")
    publish(config, refs, DAYS[0], models={"image": "encoder@1"})
    publish(config, refs, DAYS[1], models={})
    for day, name in ((DAYS[0], "encoder@1"), (DAYS[1], None)):
        export(config.uri, tmp_path / day, day=day)
        assert {m: x["embedding_model"] for m, x in manifest(tmp_path / day)["modalities"].items()} == {
            "image": name,
            "text": None,
        }


def test_what_is_not_there_to_export(tmp_path: Path, config: PublishConfig) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"publish\.uri: there is no table at "):
        export(config.uri, out)
    refs = make_refs(tmp_path / "stages")
    for day in DAYS[:2]:
        publish(config, refs, day)
    for options, said in (
        ({"version": 5}, r"--version 5: .* has no such version; it has 0 to 1"),
        ({"version": -1}, r"--version -1: .* has no such version"),
        ({"day": DAYS[2]}, rf"--day {DAYS[2]}: version 1 of .* it has 2 days, {DAYS[0]} to {DAYS[1]}"),
        ({"version": 0, "day": DAYS[1]}, rf"--day {DAYS[1]}: version 0 of .* it has {DAYS[0]}"),
    ):
        with pytest.raises(InputError, match=said):
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
    inodes = {x.name: x.stat().st_ino for x in out.iterdir()}
    again = export(config.uri, out)
    assert (again["reused"], again["digest"]) == (True, first["digest"])
    assert {x.name: x.stat().st_ino for x in out.iterdir()} == inodes
    assert export(config.uri, tmp_path / "copy")["digest"] == first["digest"]
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


def test_an_export_that_was_damaged_is_written_anew(tmp_path: Path, config: PublishConfig) -> None:
    publish(config, make_refs(tmp_path / "stages"), DAYS[0])
    export(config.uri, tmp_path / "out")
    wanted = contents(tmp_path / "out")
    (tmp_path / "out" / "image.npy").write_bytes(b"short")
    (tmp_path / "out" / "text.npy").unlink()
    assert export(config.uri, tmp_path / "out")["reused"] is False
    assert contents(tmp_path / "out") == wanted


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
    "what", ["file", "foreign", "stray", "broken", "other kind", "table", "in the table", "remote"]
)
def test_a_folder_that_is_no_export_is_left_alone(tmp_path: Path, config: PublishConfig, what: str) -> None:
    publish(config, make_refs(tmp_path / "stages"), DAYS[0])
    out, said = tmp_path / "out", ""
    if what == "file":
        out.write_text("mine")
        said = "is a file"
    elif what in ("foreign", "broken", "other kind"):
        out.mkdir()
        name, text = {
            "foreign": ("notes.txt", ""),
            "broken": ("manifest.json", "{"),
            "other kind": ("manifest.json", "{}"),
        }[what]
        (out / name).write_text(text)
        said = "cannot be read" if what == "broken" else f"holds {name} and is no export"
    elif what == "stray":
        export(config.uri, out, "parquet")
        (out / "mine.txt").write_text("mine")
        said = r"holds mine\.txt, which no export wrote"
    else:
        place = {"table": config.uri, "in the table": f"{config.uri}/export", "remote": "s3://bucket/export"}[what]
        out, said = Path(place), "wanted a local folder" if what == "remote" else "lies in the published table"
    before = {x: x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()}
    with pytest.raises(InputError, match=rf"--out .*{said}"):
        export(config.uri, out)
    assert {x: x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()} == before


def exporter(
    uri: str, out: Path, event: str = "", pattern: str = "", file_bytes: int = 0
) -> subprocess.CompletedProcess[str]:
    """Export in a process of its own, which dies where it is told to."""
    arguments = [sys.executable, export_support.__file__, uri, str(out), event, pattern, str(file_bytes)]
    return subprocess.run(arguments, env=environment(), text=True, capture_output=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("event", "pattern", "after"),
    [
        ("open", r"/\.tmp-out-[0-9a-f]+/image_trust\.npy", False),
        ("open", r"/\.tmp-out-[0-9a-f]+/manifest\.json", False),
        ("os.rename", r"/\.tmp-out-", False),
        ("shutil.rmtree", r"/\.tmp-out-", True),
    ],
)
def test_a_killed_export_leaves_the_old_folder_or_the_new(
    tmp_path: Path, config: PublishConfig, event: str, pattern: str, after: bool
) -> None:
    refs, out = make_refs(tmp_path / "stages"), tmp_path / "out"
    publish(config, refs, DAYS[0])
    export(config.uri, out)
    publish(config, refs, DAYS[1])
    killed = exporter(config.uri, out, event, pattern)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert manifest(out)["as_of"] == DAYS[after]
    assert len(list(tmp_path.glob(".tmp-out-*"))) == 1
    (tmp_path / ".tmp-out-mine").mkdir()
    assert export(config.uri, out)["reused"] is after
    assert manifest(out)["as_of"] == DAYS[1]
    # A repeat has nothing to write; the next export that has sweeps.
    export(config.uri, out, day=DAYS[0])
    assert [x.name for x in tmp_path.glob(".tmp-*")] == [".tmp-out-mine"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, config: PublishConfig) -> None:
    publish(config, make_refs(tmp_path / "stages", items=2000), DAYS[0])
    ended = exporter(config.uri, tmp_path / "out", file_bytes=16 * 1024)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "writing failed: File too large; nothing was exported; free or fix the disk, then run again" in ended.stderr
    assert [x.name for x in tmp_path.iterdir() if "out" in x.name] == []


def test_two_at_once_leave_one_whole_export(tmp_path: Path, config: PublishConfig) -> None:
    refs, out = make_refs(tmp_path / "stages"), tmp_path / "out"
    for day in DAYS[:2]:
        publish(config, refs, day)
    alone = [export(config.uri, tmp_path / str(version), version=version)["digest"] for version in range(2)]
    done: list[str] = []
    threads = [
        threading.Thread(
            target=lambda v=version: [done.append(export(config.uri, out, version=v)["digest"]) for _ in range(8)]
        )
        for version in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(alone * 8)
    assert manifest(out)["digest"] in alone
    assert list(tmp_path.glob(".tmp-*")) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not hold root back")
def test_a_folder_that_cannot_be_made(tmp_path: Path, config: PublishConfig) -> None:
    publish(config, make_refs(tmp_path / "stages"), DAYS[0])
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        export(config.uri, tmp_path / "closed" / "out")

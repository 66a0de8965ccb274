"""Reading a catalog and a log: what lands in the stage output, whatever form the data has."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.source.read import SourceConfig, read_source, resolve_day
from tasks.store.store import StageStore
from tests.support.source_samples import (
    DAY,
    IDS,
    NUM_ITEMS,
    catalog_table,
    image_rows,
    log_table,
    read,
    sample,
    source_config,
    write,
    write_by_day,
)

REPOSITORY = Path(__file__).parents[3]
MOVIELENS = REPOSITORY.parent / "shared" / "data" / "movielens-100k"


def test_outputs_hold_the_catalog_and_the_distinct_pairs(tmp_path: Path) -> None:
    log = log_table()
    labelled = {"title_column": "title", "category_column": "genres", "text_column": "title"}
    ref = read(sample(tmp_path, log=log, positive="rating >= 4", **labelled), tmp_path)
    assert ref.array("item_ids").tolist() == IDS
    for name, width in (("image", 6), ("text", 4)):
        features, present = ref.array(f"features-{name}"), ref.array(f"present-{name}")
        assert (features.shape, features.dtype, features.flags.c_contiguous) == ((NUM_ITEMS, width), np.float32, True)
        assert present.tolist() == [not (name == "image" and i == 3) for i in range(NUM_ITEMS)]
    image = image_rows()
    assert ref.array("features-image").tolist() == [x or [0.0] * 6 for x in image]

    latest: dict[tuple[int, int], int] = {}
    for row in log.to_pylist():
        if row["rating"] >= 4:
            pair = int(row["user_id"][1:]), IDS.index(row["item_id"])
            latest[pair] = max(latest.get(pair, 0), int(row["event_time"].timestamp()))
    pairs = sorted(latest)
    assert list(zip(ref.array("users").tolist(), ref.array("items").tolist(), strict=True)) == pairs
    assert ref.array("times").tolist() == [latest[x] for x in pairs]
    assert [ref.array(x).dtype for x in ("users", "items", "times")] == [np.int32, np.int32, np.int64]

    labels = pq.read_table(ref.file("labels.parquet")).to_pylist()
    assert labels[1] == {"item_id": "i01", "title": "Title i01", "category": "drama, war", "text": "Title i01"}
    assert [x["item_id"] for x in labels] == IDS


def test_meta_accounts_for_every_row(tmp_path: Path) -> None:
    meta = read(sample(tmp_path, positive="rating >= 4"), tmp_path).meta
    expected = {"as_of": "2024-03-10", "id_type": "string", "num_users": 5, "num_items": NUM_ITEMS}
    assert {name: meta[name] for name in expected} == expected
    assert meta["modalities"]["image"] == {"column": "image", "width": 6, "present": 11, "missing": 1, "quarantined": 0}
    counts = meta["counts"]
    assert (counts["catalog_rows_read"], counts["items"]) == (12, 12)
    assert (counts["interactions_read"], counts["not_positive"]) == (40, 4)
    lost = counts["repeats_merged"] + counts["not_positive"] + sum(counts["interactions_quarantined"].values())
    assert counts["interactions_used"] == counts["interactions_read"] - lost


def test_without_time_and_labels_neither_is_written(tmp_path: Path) -> None:
    ref = read(sample(tmp_path, time_column=None), tmp_path)
    assert not ref.file("times.npy").exists()
    assert pq.read_schema(ref.file("labels.parquet")).names == ["item_id"]


def test_integer_embeddings_and_tensors_are_read(tmp_path: Path) -> None:
    whole = [[i + 1, 2, 3] for i in range(NUM_ITEMS)]
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(whole, dtype=np.float32))
    catalog = catalog_table(image=pa.array(whole, pa.list_(pa.int8())), text=tensor)
    ref = read(sample(tmp_path, catalog=catalog), tmp_path)
    assert ref.array("features-image").tolist() == ref.array("features-text").tolist() == whole


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (pa.int32(), "int32"),
        (pa.uint16(), "uint16"),
        (pa.int64(), "int64"),
        (pa.large_string(), "large_string"),
        (pa.dictionary(pa.int8(), pa.string()), "string"),
    ],
    ids=str,
)
def test_ids_of_every_type_keep_it(tmp_path: Path, kind: pa.DataType, stored: str) -> None:
    ids = pa.array([str(100 + i) for i in range(NUM_ITEMS)])
    log = pa.table({"user_id": pa.array([10, 9, 9], pa.int16()), "item_id": ids.take(pa.array([0, 1, 11])).cast(kind)})
    ref = read(sample(tmp_path, catalog=catalog_table(item_id=ids.cast(kind)), log=log, time_column=None), tmp_path)
    found = ref.array("item_ids")
    assert found.dtype == (np.dtype("<U3") if "string" in stored else np.int64)
    assert [int(x) for x in found] == list(range(100, 112))
    assert ref.meta["id_type"] == stored
    assert str(pq.read_schema(ref.file("labels.parquet")).field("item_id").type) == stored
    # User 9 ranks before user 10 as a number.
    assert (ref.array("users").tolist(), ref.array("items").tolist()) == ([0, 0, 1], [1, 11, 0])


@pytest.mark.parametrize(
    ("positive", "count"),
    [
        ("rating >= 4", 36),
        ("kind IN ('buy', 'cart') AND rating > 4.5", 24),
        ("kind IN ('select', '(from', 'buy -- or', 'buy', 'cart') AND rating > 4.5", 24),
        ("kind IS NULL OR kind LIKE 'v%'", 14),
        ("event_time::date < '2024-03-02'::date", 4),
    ],
)
def test_predicates(tmp_path: Path, positive: str, count: int) -> None:
    log = log_table(kind=log_table().column("kind").dictionary_encode())
    counts = read(sample(tmp_path, log=log, positive=positive), tmp_path).meta["counts"]
    assert counts["interactions_read"] - counts["not_positive"] == count


def test_null_and_nan_ratings_are_not_positive(tmp_path: Path) -> None:
    ratings: list[float | None] = [5.0] * 40
    ratings[0], ratings[1] = None, float("nan")
    counts = read(sample(tmp_path, log=log_table(rating=ratings), positive="rating >= 4"), tmp_path).meta["counts"]
    assert counts["not_positive"] == 2


def test_layouts_give_the_same_digest(tmp_path: Path) -> None:
    one = read(sample(tmp_path / "one", positive="rating >= 4", title_column="title"), tmp_path)
    other = tmp_path / "other"
    write_by_day(log_table(), other / "log")
    for part, start in enumerate(range(0, NUM_ITEMS, 5)):
        write(catalog_table().slice(start, 5), other / "catalog" / "deep" / f"part-{part}.parquet")
    (other / "catalog" / "_SUCCESS").write_text("")
    write(catalog_table(), other / "catalog" / "_temporary" / "part-9.parquet")
    write(catalog_table(), other / "catalog" / ".hidden.parquet")
    for catalog, log in (
        ("catalog", "log"),
        ("catalog/**/part-*.parquet", "log/dt=2024-03-*"),
        ("cat?log/deep", "log/*/*.parquet"),
    ):
        config = source_config(
            other,
            catalog=str(other / catalog),
            interactions=str(other / log),
            positive="rating >= 4",
            title_column="title",
        )
        assert read(config, tmp_path).digest == one.digest


def test_a_folder_whose_name_looks_like_a_glob_is_read_as_it_is(tmp_path: Path) -> None:
    assert read(sample(tmp_path / "data [1]"), tmp_path).meta["num_items"] == NUM_ITEMS


def test_same_files_are_read_once_and_a_changed_file_again(tmp_path: Path) -> None:
    config = sample(tmp_path)
    first = read(config, tmp_path)
    stamp = (Path(first.path) / "meta.json").stat().st_mtime_ns
    again = read(config, tmp_path)
    assert again == first
    assert (Path(again.path) / "meta.json").stat().st_mtime_ns == stamp
    write(log_table().slice(0, 30), tmp_path / "log.parquet")
    changed = read(config, tmp_path)
    assert changed.path != first.path
    assert changed.meta["counts"]["interactions_read"] == 30
    os.utime(tmp_path / "log.parquet", ns=(1, 1))
    touched = read(config, tmp_path)
    assert touched.path != changed.path
    assert touched.digest == changed.digest


def test_naming_the_embedding_model_reads_nothing_anew(tmp_path: Path) -> None:
    config = sample(tmp_path)
    store = StageStore(tmp_path / "stages")
    first = read_source(config, DAY, store)
    named = read_source(replace(config, embedding_models={"image": "encoder@2"}), DAY, store)
    assert named.reused and named == first


def test_columns_nobody_asked_for_are_not_read(tmp_path: Path) -> None:
    config = sample(tmp_path)
    wide = catalog_table(unread=["y" * 50_000] * NUM_ITEMS)
    path = write(wide, tmp_path / "catalog.parquet", compression="none", use_dictionary=False)
    chunk = pq.read_metadata(path).row_group(0).column(wide.column_names.index("unread"))
    raw = bytearray(path.read_bytes())
    raw[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = bytes(
        chunk.total_compressed_size
    )
    path.write_bytes(raw)
    with pytest.raises(OSError, match="deserialize"):
        pq.ParquetFile(path).read(["unread"])
    assert read(config, tmp_path).meta["num_items"] == NUM_ITEMS


@given(order=st.permutations(range(40)), cuts=st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=20, deadline=None)
def test_pairs_depend_neither_on_row_order_nor_on_files(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("shuffled")
    plain = read(sample(folder), folder)
    shuffled = log_table().take(pa.array(order))
    edges = [0, *sorted(cuts), 40]
    for part, (start, stop) in enumerate(itertools.pairwise(edges)):
        write(shuffled.slice(start, stop - start), folder / "parts" / f"{part}.parquet")
    other = read(source_config(folder, interactions=str(folder / "parts")), folder)
    assert other.digest == plain.digest


def test_batches_and_row_groups_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = pa.array([[[float(i), 2.0]] * (i % 4) for i in range(NUM_ITEMS)], pa.list_(pa.list_(pa.float32())))
    catalog = catalog_table(video=video)
    config = sample(tmp_path, catalog, title_column="title", modalities={"image": "image", "video": "video"})
    plain = read(config, tmp_path)
    for name, size in (("FEATURE_BYTES", 200), ("ID_ROWS", 5), ("WIDTH_ROWS", 3)):
        monkeypatch.setattr(f"tasks.source.catalog.{name}", size)
    monkeypatch.setattr("tasks.source.raw_log.BATCH_ROWS", 7)
    monkeypatch.setattr("tasks.source.interactions.BLOCK_ROWS", 9)
    write(catalog, tmp_path / "catalog.parquet", row_group_size=4)
    write(log_table(), tmp_path / "log.parquet", row_group_size=6)
    assert read(config, tmp_path).digest == plain.digest


def test_a_part_without_any_image_may_say_so_by_its_type(tmp_path: Path) -> None:
    sample(tmp_path)
    write(catalog_table().slice(0, 6), tmp_path / "catalog" / "a.parquet")
    write(catalog_table(image=pa.nulls(NUM_ITEMS)).slice(6), tmp_path / "catalog" / "b.parquet")
    ref = read(source_config(tmp_path, catalog=str(tmp_path / "catalog")), tmp_path)
    assert ref.array("present-image").tolist() == [True, True, True, False, True, True] + [False] * 6


def test_the_commonest_width_wins(tmp_path: Path) -> None:
    rows: list[Any] = [[1.0, 2.0]] * NUM_ITEMS
    rows[0], rows[5], rows[6] = [1.0], [], [1.0, 2.0, 3.0]
    ref = read(sample(tmp_path, catalog=catalog_table(image=rows), max_quarantined=0.25), tmp_path)
    assert ref.meta["modalities"]["image"] == {
        "column": "image",
        "width": 2,
        "present": 9,
        "missing": 1,
        "quarantined": 2,
    }


def test_progress_ends_at_its_total(tmp_path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}
    read_source(
        sample(tmp_path),
        DAY,
        StageStore(tmp_path / "stages"),
        lambda what, done, total: seen.update({what: (done, total)}),
    )
    assert len(seen) == 3
    assert all(done == total > 0 for done, total in seen.values())


def test_resolve_day(tmp_path: Path) -> None:
    config = sample(tmp_path)
    assert resolve_day(config, date(2020, 1, 1)) == date(2020, 1, 1)
    assert resolve_day(config, None) == DAY
    write_by_day(log_table(), tmp_path / "log")
    write(log_table(), tmp_path / "log" / "dt=2999-01-01" / "part-0.parquet")
    assert resolve_day(source_config(tmp_path, interactions=str(tmp_path / "log")), None) == DAY
    before = datetime.now(UTC).date()
    assert before <= resolve_day(source_config(tmp_path, time_column=None), None) <= datetime.now(UTC).date()


@pytest.mark.skipif(
    not MOVIELENS.exists(), reason="the MovieLens sample lies beside the checkout only on development machines"
)
@pytest.mark.parametrize(
    ("as_of", "read_rows", "used", "users"),
    [(date(1998, 4, 22), 100_000, 55_375, 942), (date(1998, 1, 15), 60_726, 34_368, 594)],
)
def test_movielens(tmp_path: Path, as_of: date, read_rows: int, used: int, users: int) -> None:
    config = SourceConfig(
        catalog=str(MOVIELENS / "catalog"),
        interactions=str(MOVIELENS / "interactions"),
        item_column="item_id",
        user_column="user_id",
        time_column="event_time",
        positive="rating >= 4",
        title_column="title",
        category_column="genres",
        modalities={"image": "image_embedding", "text": "text_embedding"},
    )
    meta = read(config, tmp_path, as_of).meta
    assert meta["num_items"] == 1_682
    assert meta["num_users"] == users
    assert (meta["modalities"]["image"]["missing"], meta["modalities"]["text"]["missing"]) == (587, 59)
    assert (meta["modalities"]["image"]["width"], meta["modalities"]["text"]["width"]) == (1_280, 384)
    assert (meta["counts"]["interactions_read"], meta["counts"]["interactions_used"]) == (read_rows, used)
    assert sum(meta["counts"]["interactions_quarantined"].values()) == 0
    assert resolve_day(config, None) == date(1998, 4, 22)


def test_features_never_lie_in_memory_whole(tmp_path: Path) -> None:
    num_items, width = 24_000, 768
    values = pa.array(np.random.default_rng(0).standard_normal(num_items * width, dtype=np.float32))
    catalog = pa.table({"item_id": np.arange(num_items), "image": pa.FixedSizeListArray.from_arrays(values, width)})
    write(catalog, tmp_path / "catalog.parquet", row_group_size=num_items, compression="none")
    write(pa.table({"user_id": [1], "item_id": [2]}), tmp_path / "log.parquet")
    # Pages of the output's memory map belong to the page cache, so only what is allocated counts.
    script = f"""
import tracemalloc
import pyarrow as pa
from tests.support.source_samples import Path, read, source_config

config = source_config({str(tmp_path)!r}, time_column=None, modalities={{"image": "image"}})
# The first reading imports what the second one needs.
read(config, Path({str(tmp_path)!r}) / "first")
tracemalloc.start()
read(config, Path({str(tmp_path)!r}) / "second")
print(tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < num_items * width * 4 * 0.7

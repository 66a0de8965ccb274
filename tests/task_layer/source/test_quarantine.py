"""What cannot be used is kept with its reason, counted, and stops the run when it is too much."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError
from tasks.source.rows.quarantine import ROW_GROUP, ParquetSink
from tests.support.source_samples import (
    DAY,
    IDS,
    NUM_ITEMS,
    catalog_table,
    instant,
    log_table,
    quarantined,
    read,
    sample,
    source_config,
    write,
)


def test_item_rows(tmp_path: Path) -> None:
    ids = [*IDS[:4], None, "i01", *IDS[6:11], "i01"]
    text = [[float(i), 1.0] for i in range(NUM_ITEMS)]
    ref = read(
        sample(tmp_path, catalog=catalog_table(item_id=ids, text=text), title_column="title", max_quarantined=0.9),
        tmp_path,
    )
    assert quarantined(ref, "items") == [
        {"row_number": 4, "item_id": None, "reason": "null_id"},
        {"row_number": 5, "item_id": "i01", "reason": "duplicate_id"},
        {"row_number": 11, "item_id": "i01", "reason": "duplicate_id"},
    ]
    assert ref.meta["counts"]["items_quarantined"] == {
        "null_id": 1,
        "duplicate_id": 2,
        "id_too_long": 0,
        "id_ends_with_nul": 0,
        "no_day": 0,
    }
    kept = [*IDS[:4], *IDS[6:11]]
    assert ref.array("item_ids").tolist() == kept
    # The first row of an id wins, and every later item keeps its own feature and title.
    assert ref.array("features-text")[:, 0].tolist() == [float(IDS.index(x)) for x in kept]
    assert pq.read_table(ref.file("labels.parquet")).column("title").to_pylist() == [f"Title {x}" for x in kept]


def test_ids_that_fixed_width_text_cannot_hold_cost_their_rows_alone(tmp_path: Path) -> None:
    ids = [*IDS[:9], "x" * 512, "é" * 513, "i01\0"]
    log = log_table(item_id=[ids[row * 7 % NUM_ITEMS] for row in range(40)])
    ref = read(sample(tmp_path, catalog=catalog_table(item_id=ids), log=log, max_quarantined=0.5), tmp_path)
    found = {x["item_id"]: x["reason"] for x in quarantined(ref, "items")}
    assert found == {"é" * 513: "id_too_long", "i01\0": "id_ends_with_nul"}
    assert list(ref.array("item_ids")) == ids[:10]
    assert {x["item_id"]: x["reason"] for x in quarantined(ref, "interactions")} == dict.fromkeys(found, "unknown_item")


def test_features(tmp_path: Path) -> None:
    image: list[Any] = [[1.0, 2.0]] * NUM_ITEMS
    image[0], image[1], image[2], image[3] = [math.nan, 1.0], [math.inf, 1.0], [0.0, 0.0], [1.0, 2.0, 3.0]
    image[4], image[5], image[6], image[7] = [], None, [None, 1.0], [1e300, 0.0]
    ref = read(
        sample(tmp_path, catalog=catalog_table(image=pa.array(image, pa.list_(pa.float64()))), max_quarantined=0.7),
        tmp_path,
    )
    reasons = {0: "nan_or_infinite", 1: "nan_or_infinite", 3: "wrong_width", 6: "nan_or_infinite", 7: "nan_or_infinite"}
    assert quarantined(ref, "features") == [
        {"item_id": IDS[i], "modality": "image", "reason": x} for i, x in reasons.items()
    ]
    assert ref.meta["counts"]["features_quarantined"]["image"] == {
        "nan_or_infinite": 4,
        "zero_norm": 0,
        "wrong_width": 1,
        "unreadable": 0,
    }
    assert ref.meta["counts"]["features_missing"]["image"] == {"null": 1, "empty": 1, "zero": 1, "nan": 0}
    assert ref.meta["modalities"]["image"] == {
        "column": "image",
        "width": 2,
        "present": 4,
        "missing": 3,
        "quarantined": 5,
    }
    assert ref.array("present-image").tolist() == [False] * 8 + [True] * 4
    features = ref.array("features-image")
    assert not features[:8].any()
    assert (features[8:] == [1.0, 2.0]).all()
    # The item stays for the sake of its other modality.
    assert ref.meta["num_items"] == NUM_ITEMS
    assert ref.array("present-text").all()


def test_features_of_two_modalities_lie_item_by_item(tmp_path: Path) -> None:
    bad: list[Any] = [[1.0, 2.0]] * NUM_ITEMS
    bad[2] = bad[9] = [1.0]
    ref = read(sample(tmp_path, catalog=catalog_table(image=bad, text=bad)), tmp_path)
    assert [(x["item_id"], x["modality"]) for x in quarantined(ref, "features")] == [
        ("i02", "image"),
        ("i02", "text"),
        ("i09", "image"),
        ("i09", "text"),
    ]


def _partitioned(folder: Path, rows: list[tuple[Any, Any, Any, float]], **changed: Any) -> Any:
    user, item, time, rating = zip(*rows, strict=True)
    table = pa.table(
        {"user_id": user, "item_id": item, "event_time": pa.array(time, pa.timestamp("us", tz="UTC")), "rating": rating}
    )
    write(table, folder / "log" / f"dt={DAY}" / "part-0.parquet")
    write(catalog_table(), folder / "catalog.parquet")
    return source_config(folder, interactions=str(folder / "log"), max_quarantined=0.9, **changed)


def test_interactions(tmp_path: Path) -> None:
    good = [("u1", "i00", instant(10), 5.0), ("u1", "i00", instant(9), 5.0), ("u0", "i02", instant(8), 5.0)]
    bad: list[tuple[Any, Any, Any, float]] = [
        (None, "i01", instant(10), 5.0),
        ("u1", None, instant(10), 5.0),
        ("u1", "i01", None, 5.0),
        ("u2", "nowhere", instant(10), 5.0),
        ("u1", "i01", instant(11, 0), 5.0),
        (None, None, instant(12), 5.0),
    ]
    disliked = [(None, "nowhere", None, 1.0)]
    ref = read(_partitioned(tmp_path, [*good, *bad, *disliked], positive="rating >= 4"), tmp_path)
    reasons = ["null_item", "null_time", "unknown_item", "event_after_as_of"]
    # Rows of no user are left out and counted.
    expected = [dict(zip(("user_id", "item_id", "event_time"), row[:3], strict=True)) for row in bad if row[0]]
    assert quarantined(ref, "interactions") == [row | {"reason": x} for row, x in zip(expected, reasons, strict=True)]
    counts = ref.meta["counts"]
    assert counts["interactions_quarantined"] == {
        "null_item": 1,
        "null_time": 1,
        "time_out_of_range": 0,
        "unknown_item": 1,
        "event_after_as_of": 1,
        "no_day": 0,
    }
    assert counts["anonymous"] == 2
    read_rows = (
        counts["interactions_read"],
        counts["not_positive"],
        counts["repeats_merged"],
        counts["interactions_used"],
    )
    assert read_rows == (10, 1, 1, 2)
    # A user of whom nothing is left is no user.
    assert (ref.array("users").tolist(), ref.array("items").tolist(), ref.meta["num_users"]) == ([0, 1], [2, 0], 2)


def test_interactions_keep_integer_ids_and_survive_absurd_times(tmp_path: Path) -> None:
    log = pa.table(
        {
            "user_id": pa.array([1, 2, 3], pa.int32()),
            "item_id": pa.array([5, 99, 5], pa.int64()),
            "event_time": pa.array([1_700_000_000, 1, np.iinfo(np.int64).max // 1000], pa.timestamp("s")).cast(
                pa.int64()
            ),
        }
    )
    catalog = catalog_table(item_id=pa.array(range(NUM_ITEMS), pa.int32()))
    write(catalog, tmp_path / "catalog.parquet")
    write(log, tmp_path / "log" / f"dt={DAY}" / "part-0.parquet")
    ref = read(source_config(tmp_path, interactions=str(tmp_path / "log"), max_quarantined=0.9), tmp_path)
    table = pq.read_table(ref.file("quarantine-interactions.parquet"))
    assert table.column("item_id").to_pylist() == [99, 5]
    assert table.column("reason").to_pylist() == ["time_out_of_range", "time_out_of_range"]
    assert ref.meta["id_type"] == "int32"


def test_too_many_items_stop_the_run(tmp_path: Path) -> None:
    config = sample(tmp_path, catalog=catalog_table(item_id=[*IDS[:9], "i00", "i00", None]))
    with pytest.raises(InputError) as caught:
        read(config, tmp_path)
    text = str(caught.value)
    assert "catalog rows: 3 of 12 (25.0%)" in text
    assert "duplicate_id (2)" in text
    assert "source.max_quarantined = 0.2" in text
    assert caught.value.exit_code == 2
    assert "\n" not in text
    assert not list((tmp_path / "stages").glob("*"))


def test_too_many_features_stop_the_run_by_share_of_those_given(tmp_path: Path) -> None:
    rows: list[Any] = [None] * 8 + [[1.0, 2.0]] * 3 + [[1.0]]
    config = sample(tmp_path, catalog=catalog_table(image=rows))
    with pytest.raises(
        InputError, match=r"source\.modalities\.image.*'image'.*1 of 4 \(25\.0%\).*wrong_width \(1\).*max_quarantined"
    ):
        read(config, tmp_path)
    assert read(source_config(tmp_path, max_quarantined=0.25), tmp_path).meta["modalities"]["image"]["present"] == 3


def test_too_many_interactions_stop_the_run_by_share_of_the_positive(tmp_path: Path) -> None:
    items = ["nowhere" if i < 9 else "i00" for i in range(40)]
    ratings = [5.0] * 36 + [1.0] * 4
    config = sample(tmp_path, log=log_table(item_id=items, rating=ratings), positive="rating >= 4")
    with pytest.raises(
        InputError,
        match=r"positive interactions: 9 of 36 \(25\.0%\).*"
        r"unknown_item \(9\).*the log has 'nowhere' and the catalog 'i00', 'i01', 'i02'.*max_quarantined",
    ):
        read(config, tmp_path)


def test_null_times_are_read_although_time_is_pushed_down(tmp_path: Path) -> None:
    times = [instant(20) if i >= 20 else instant(1) for i in range(40)]
    column = pa.array([None if i in (3, 25) else x for i, x in enumerate(times)], pa.timestamp("us", tz="UTC"))
    config = sample(tmp_path, log=log_table(event_time=column))
    write(log_table(event_time=column), tmp_path / "log.parquet", row_group_size=20)
    counts = read(config, tmp_path, date(2024, 3, 2)).meta["counts"]
    assert counts["interactions_read"] == 21
    assert counts["interactions_quarantined"]["null_time"] == 2


def test_the_bytes_of_a_sink_do_not_depend_on_how_rows_arrive(tmp_path: Path) -> None:
    rows = ROW_GROUP * 2 + 17
    table = pa.table({"x": np.arange(rows), "y": [str(x % 1_000) for x in range(rows)]})
    written = []
    for step in (rows, ROW_GROUP - 1, 10_007):
        path = tmp_path / f"{step}.parquet"
        with ParquetSink(path, table.schema) as sink:
            for start in range(0, rows, step):
                sink.add(table.slice(start, step))
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]
    assert pq.read_table(tmp_path / f"{rows}.parquet").equals(table)

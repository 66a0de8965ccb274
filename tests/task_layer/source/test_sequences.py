"""Reading a modality that is a sequence: what the stage output holds, what is left out, and the counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rectifier_core.base.arrays import Float32
from tasks.errors import InputError
from tasks.store.store import Ref
from tests.support.source_samples import NUM_ITEMS, catalog_table, quarantined, read, sample, write

MODALITIES = {"image": "image", "video": "video"}


def video_rows(least: int = 0) -> list[list[list[float]] | None]:
    """Zero to four segments of three numbers that half precision holds exactly; the item at index 3 has no sequence."""
    rng = np.random.default_rng(3)
    rows: list[list[list[float]] | None] = [
        (rng.integers(1, 60, (max(least, i % 5), 3)) / 4).tolist() for i in range(NUM_ITEMS)
    ]
    rows[3] = None
    return rows


def read_video(folder: Path, video: Any, **changed: Any) -> Ref:
    return read(sample(folder, catalog=catalog_table(video=video), modalities=MODALITIES, **changed), folder)


def sequences(ref: Ref) -> list[Float32]:
    """The segments item by item."""
    offsets, segments = ref.array("offsets-video"), ref.array("segments-video")
    return [np.asarray(segments[offsets[i] : offsets[i + 1]]) for i in range(NUM_ITEMS)]


def test_segments_lie_item_by_item_and_the_feature_is_their_mean(tmp_path: Path) -> None:
    rows = video_rows()
    ref = read_video(tmp_path, pa.array(rows, pa.list_(pa.list_(pa.float32()))))
    counts = [len(x or []) for x in rows]
    segments, offsets, positions = (ref.array(f"{x}-video") for x in ("segments", "offsets", "positions"))
    assert (segments.shape, segments.dtype, offsets.dtype, positions.dtype) == (
        (sum(counts), 3),
        np.float32,
        np.int64,
        np.int32,
    )
    assert offsets.tolist() == np.concatenate([[0], np.cumsum(counts)]).tolist()
    assert [x.tolist() for x in sequences(ref)] == [x or [] for x in rows]
    assert positions.tolist() == [p for count in counts for p in range(count)]
    assert ref.array("present-video").tolist() == [count > 0 for count in counts]
    wanted = [np.mean(x, axis=0).tolist() if x else [0.0] * 3 for x in rows]
    np.testing.assert_allclose(ref.array("features-video"), wanted, rtol=1e-6)
    assert ref.meta["modalities"]["video"] == {
        "column": "video",
        "width": 3,
        "present": 8,
        "missing": 4,
        "quarantined": 0,
        "segments": sum(counts),
        "segments_missing": 0,
        "segments_quarantined": 0,
    }
    assert "segments" not in ref.meta["modalities"]["image"]
    assert list(ref.meta["counts"]["segments_quarantined"]) == ["video"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.list_(pa.float16())),
        pa.large_list(pa.large_list(pa.float64())),
        pa.large_list(pa.list_(pa.float16(), 3)),
        pa.list_view(pa.list_(pa.float32())),
        pa.list_(pa.list_view(pa.float32())),
    ],
    ids=str,
)
def test_every_form_of_sequence_gives_the_same_digest(tmp_path: Path, kind: pa.DataType) -> None:
    plain = read_video(tmp_path / "plain", pa.array(video_rows(), pa.list_(pa.list_(pa.float32()))))
    other = read_video(tmp_path / "other", pa.array(video_rows(), kind))
    assert other.digest == plain.digest


def test_a_file_without_any_sequence_is_no_reason_to_stop(tmp_path: Path) -> None:
    table = catalog_table(video=pa.array(video_rows(), pa.list_(pa.list_(pa.float32()))))
    config = sample(tmp_path, modalities=MODALITIES, catalog=table)
    (tmp_path / "catalog.parquet").unlink()
    write(table.slice(6), tmp_path / "catalog.parquet" / "b.parquet")
    write(
        table.slice(0, 6).set_column(table.column_names.index("video"), "video", pa.nulls(6)),
        tmp_path / "catalog.parquet" / "a.parquet",
    )
    ref = read(config, tmp_path)
    assert ref.array("offsets-video")[:7].tolist() == [0] * 7
    assert [x.tolist() for x in sequences(ref)[6:]] == [x or [] for x in video_rows()[6:]]


def test_what_cannot_be_used_is_dropped_named_and_counted(tmp_path: Path) -> None:
    good: list[Any] = [1.0, 2.0]
    rows: list[Any] = [[good, good] for _ in range(NUM_ITEMS)]
    rows[0] = [good, [math.nan, 1.0], [3.0, 4.0]]
    rows[1] = [[0.0, 0.0], good, [1.0, 2.0, 3.0]]
    rows[2] = [[math.inf, 1.0], None]
    rows[4] = [[1.0, -2.0], [-1.0, 2.0]]
    rows[5] = []
    rows[6] = [[1e300, 0.0], good]
    rows[7] = None
    ref = read_video(tmp_path, pa.array(rows, pa.list_(pa.list_(pa.float64()))), max_quarantined=0.5)
    assert [(x["item_id"], x["reason"]) for x in quarantined(ref, "features")] == [
        ("i00", "segment_nan_or_infinite"),
        ("i01", "segment_wrong_width"),
        ("i02", "no_usable_segment"),
        ("i02", "segment_nan_or_infinite"),
        ("i04", "zero_norm"),
        ("i06", "segment_nan_or_infinite"),
    ]
    assert {x["modality"] for x in quarantined(ref, "features")} == {"video"}
    counts = ref.meta["counts"]
    assert counts["features_quarantined"]["video"] == {"zero_norm": 1, "no_usable_segment": 1}
    assert counts["segments_quarantined"]["video"] == {
        "segment_nan_or_infinite": 3,
        "segment_zero_norm": 0,
        "segment_wrong_width": 1,
        "segment_unreadable": 0,
    }
    found = ref.meta["modalities"]["video"]
    assert (found["present"], found["missing"], found["quarantined"], found["segments_quarantined"]) == (8, 2, 2, 4)
    assert found["segments_missing"] == 2
    assert found["present"] + found["missing"] + found["quarantined"] == NUM_ITEMS
    assert [len(x) for x in sequences(ref)] == [2, 1, 0, 2, 0, 0, 1, 0, 2, 2, 2, 2]
    assert found["segments"] == len(ref.array("segments-video")) == 14
    assert ref.array("positions-video")[:5].tolist() == [0, 2, 1, 0, 1]
    assert ref.array("features-video")[0].tolist() == [2.0, 3.0]
    assert not ref.array("features-video")[[2, 4, 5, 7]].any()


def test_too_many_broken_segments_stop_the_run(tmp_path: Path) -> None:
    rows = [[[1.0, 2.0], [math.nan, 2.0]] for _ in range(NUM_ITEMS)]
    with pytest.raises(InputError, match=r"the segments in column 'video'.*12 of 24"):
        read_video(tmp_path, rows)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[[[1.0]]]] * NUM_ITEMS, "a list of such lists for a sequence"),
        (pa.array([[[]]] * NUM_ITEMS, pa.list_(pa.list_(pa.float32()))), "holds no embedding"),
    ],
)
def test_what_is_no_sequence_is_refused(tmp_path: Path, column: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_video(tmp_path, column)


def test_files_must_agree_and_names_must_be_free(tmp_path: Path) -> None:
    vectors = catalog_table(video=[[1.0, 2.0, 3.0]] * 12)
    config = sample(tmp_path, modalities=MODALITIES, catalog=vectors)
    (tmp_path / "catalog.parquet").unlink()
    write(vectors, tmp_path / "catalog.parquet" / "a.parquet")
    write(catalog_table(video=video_rows()), tmp_path / "catalog.parquet" / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet.*'video' is a sequence, but a vector in other files"):
        read(config, tmp_path)
    taken = sample(
        tmp_path / "taken",
        catalog=catalog_table(video=video_rows()),
        modalities={"video": "video", "video_segments": "text"},
    )
    with pytest.raises(InputError, match="video_segments: a published column of a sequence has this name"):
        read(taken, tmp_path / "taken")

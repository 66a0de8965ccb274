"""Inputs as real catalogs and logs bring them: each kind gives its right value, or one line that names the way out."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError
from tasks.store.store import Ref
from tests.support.source_samples import DAY, IDS, NUM_ITEMS, catalog_table, log_table, quarantined, read, sample

INSTANTS = [x.replace(hour=0) for x in log_table().column("event_time").to_pylist()]
SECONDS = np.array([int(x.timestamp()) for x in INSTANTS])
DAYS = SECONDS // 86_400
COMPACT = [int(f"{x:%Y%m%d}") for x in INSTANTS]
TIMES: dict[str, tuple[Any, str]] = {
    "compact": (COMPACT, "dates written as 20260630"),
    "compact, 32 bit": (pa.array(COMPACT, pa.int32()), "dates written as 20260630"),
    "compact text": ([str(x) for x in COMPACT], "dates written as 20260630"),
    "days": (DAYS, "days since 1970"),
    "days, 16 bit": (DAYS.astype(np.int16), "days since 1970"),
    "hours": (SECONDS // 3_600, "hours since 1970"),
    "minutes": (SECONDS // 60, "minutes since 1970"),
    "seconds": (SECONDS, "seconds since 1970"),
    "seconds as text": ([str(x) for x in SECONDS], "seconds since 1970"),
    "seconds as doubles": (SECONDS + 0.5, "seconds since 1970"),
    "seconds as decimals": ([Decimal(int(x)) for x in SECONDS], "seconds since 1970"),
    "milliseconds": (SECONDS * 1_000, "milliseconds since 1970"),
    "microseconds, unsigned": ((SECONDS * 10**6).astype(np.uint64), "microseconds since 1970"),
    "nanoseconds": (SECONDS * 10**9, "nanoseconds since 1970"),
    "dates": (pa.array(DAYS.astype(np.int32)).cast(pa.date32()), "date32[day]"),
    "timestamps of no zone": (pa.array(INSTANTS).cast(pa.timestamp("us")), "timestamp[us]"),
    "timestamps in nanoseconds": (pa.array(INSTANTS).cast(pa.timestamp("ns", tz="UTC")), "timestamp[ns, tz=UTC]"),
    "timestamps of another zone": (
        pa.array(INSTANTS).cast(pa.timestamp("ms", tz="America/New_York")),
        "timestamp[ms, tz=America/New_York]",
    ),
    "date text": ([f"{x:%Y-%m-%d}" for x in INSTANTS], "string"),
    "ISO text": ([x.isoformat() for x in INSTANTS], "string"),
    "compact ISO text": ([f"{x:%Y%m%dT%H%M%SZ}" for x in INSTANTS], "string"),
    "ISO text, Z": ([f"{x:%Y-%m-%dT%H:%M:%S}.000Z" for x in INSTANTS], "string"),
    "ISO text of another offset": ([f"{x:%Y-%m-%d} 02:00:00+02:00" for x in INSTANTS], "string"),
}


def taken_for(ref: Ref, column: str) -> str:
    return next(x["taken_for"] for x in ref.notes["readings"] if x["column"] == column and x["input"] == "log")


@pytest.mark.parametrize("kind", TIMES)
def test_a_time_of_any_kind_is_the_same_instant(tmp_path: Path, kind: str) -> None:
    values, words = TIMES[kind]
    plain = read(sample(tmp_path / "plain", log=log_table(event_time=pa.array(SECONDS))), tmp_path, date(2024, 3, 7))
    ref = read(sample(tmp_path / "kind", log=log_table(event_time=values)), tmp_path, date(2024, 3, 7))
    assert ref.array("times").tolist() == plain.array("times").tolist()
    assert ref.meta["counts"]["interactions_read"] == 28
    assert taken_for(ref, "event_time").startswith(("whole numbers", "numbers", words))
    assert words in taken_for(ref, "event_time")
    assert "2024-03-01 to 2024-03-10" in taken_for(ref, "event_time") or kind in ("seconds as decimals",)
    assert ref.notes["newest_event"] == "2024-03-07"


BAD_TIMES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "two units": (
        [int(x) * (1_000 if i % 2 else 1) for i, x in enumerate(SECONDS)],
        {},
        r"holds two units: \d{10,13} in .*log\.parquet \(.*seconds since 1970\) and \d{10,13} in .*; write one",
    ),
    "no unit": (np.arange(40), {}, r"holds 0 in .*log\.parquet, which is no time from 1990 .* source\.time_unit"),
    "nanoseconds that were days": (
        pa.array(DAYS, pa.timestamp("ns")),
        {},
        r"'event_time' holds '1970-01-01.*no time from 1990 to 2100",
    ),
    "a unit that is another": (SECONDS * 1_000, {"time_unit": "s"}, r'with source\.time_unit = "s", which is no time'),
    "a unit of a timestamp": (INSTANTS, {"time_unit": "ms"}, r'source\.time_unit = "ms" does not apply'),
    "day first": ([f"{x:%d.%m.%Y}" for x in INSTANTS], {}, r"holds '01\.03\.2024' in .*ISO text"),
    "month first": ([f"{x:%m/%d/%Y}" for x in INSTANTS], {}, r"holds '03/01/2024' in .*ISO text"),
    "durations": (pa.array(SECONDS, pa.duration("s")), {}, r"is duration\[s\]; wanted a timestamp"),
}


@pytest.mark.parametrize("kind", BAD_TIMES)
def test_a_time_that_nothing_tells_is_refused(tmp_path: Path, kind: str) -> None:
    values, changed, message = BAD_TIMES[kind]
    with pytest.raises(InputError, match=message):
        read(sample(tmp_path, log=log_table(event_time=values), **changed), tmp_path)


def test_a_few_damaged_times_are_quarantined_and_change_no_unit(tmp_path: Path) -> None:
    values = SECONDS.copy()
    values[[3, 30]] = 0, values[30] * 1_000
    ref = read(sample(tmp_path, log=log_table(event_time=values)), tmp_path)
    assert {x["reason"] for x in quarantined(ref, "interactions")} == {"time_out_of_range"}
    assert ref.meta["counts"]["interactions_quarantined"]["time_out_of_range"] == 2


def test_a_time_unit_says_what_no_range_tells(tmp_path: Path) -> None:
    days = [int(x) for x in DAYS]
    ref = read(sample(tmp_path, log=log_table(event_time=days), time_unit="days"), tmp_path)
    assert ref.array("times").max() == SECONDS.max()


def test_local_days_hold_their_own_instants(tmp_path: Path) -> None:
    # 20:00 in Bogota is past midnight in UTC.
    times = [datetime(2024, 3, 1 + i // 4, 20 + i % 4, tzinfo=UTC).timestamp() + 5 * 3_600 for i in range(40)]
    log = log_table(event_time=pa.array([int(x) for x in times]))
    for i, day in enumerate(range(1, 11)):
        path = tmp_path / "log" / f"dt=2024-03-{day:02d}" / "a.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(log.slice(4 * i, 4), path)
    config = sample(tmp_path, interactions=str(tmp_path / "log"), lookback_days=2)
    with pytest.raises(
        InputError, match=r"event_after_as_of.* hours after the day ends in UTC: .*set source\.time_zone"
    ):
        read(config, tmp_path)
    local = sample(tmp_path, interactions=str(tmp_path / "log"), lookback_days=2, time_zone="America/Bogota")
    ref = read(local, tmp_path)
    assert ref.meta["counts"]["interactions_quarantined"]["event_after_as_of"] == 0
    assert ref.notes["newest_event"] == "2024-03-10"
    assert "days of America/Bogota" in taken_for(ref, "event_time")


def _uuids(numbers: Any) -> list[uuid.UUID]:
    return [uuid.UUID(int=2**127 + int(x)) for x in numbers]


IDS_OF: dict[str, tuple[Callable[[np.ndarray], Any], list[Any], str]] = {  # type: ignore[type-arg]
    "decimal(38,0)": (
        lambda x: pa.array([Decimal(int(y)) for y in x], pa.decimal128(38, 0)),
        list(range(NUM_ITEMS)),
        "int64",
    ),
    "decimal with zeros": (
        lambda x: pa.array([Decimal(int(y)) for y in x], pa.decimal128(20, 2)),
        list(range(NUM_ITEMS)),
        "int64",
    ),
    "whole doubles": (lambda x: x.astype(np.float64), list(range(NUM_ITEMS)), "int64"),
    "uint64": (lambda x: x.astype(np.uint64), list(range(NUM_ITEMS)), "uint64"),
    "uint64 beyond int64": (
        lambda x: pa.array([2**63 + int(y) for y in x], pa.uint64()),
        [str(2**63 + y) for y in range(NUM_ITEMS)],
        "string",
    ),
    "huge decimals": (
        lambda x: pa.array([Decimal(10**30 + int(y)) for y in x], pa.decimal128(38, 0)),
        [str(10**30 + y) for y in range(NUM_ITEMS)],
        "string",
    ),
    "binary": (lambda x: pa.array([b"i%02d" % y for y in x], pa.binary()), IDS, "string"),
    "fixed binary": (lambda x: pa.array([b"i%02d" % y for y in x], pa.binary(3)), IDS, "string"),
    "UUID": (
        lambda x: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([y.bytes for y in _uuids(x)], pa.binary(16))),
        [str(y) for y in _uuids(range(NUM_ITEMS))],
        "string",
    ),
    "UUID bytes": (
        lambda x: pa.array([y.bytes for y in _uuids(x)], pa.binary()),
        [str(y) for y in _uuids(range(NUM_ITEMS))],
        "string",
    ),
    "16 letters": (
        lambda x: pa.array([b"letters of id %02d" % y for y in x], pa.binary(16)),
        [f"letters of id {y:02d}" for y in range(NUM_ITEMS)],
        "string",
    ),
}


@pytest.mark.parametrize("kind", IDS_OF)
def test_ids_of_every_kind_match_and_are_published(tmp_path: Path, kind: str) -> None:
    make, ids, stored = IDS_OF[kind]
    numbers = np.array([(r * 7) % NUM_ITEMS for r in range(40)])
    catalog, log = catalog_table(item_id=make(np.arange(NUM_ITEMS))), log_table(item_id=make(numbers))
    ref = read(sample(tmp_path, catalog=catalog, log=log), tmp_path)
    assert ref.array("item_ids").tolist() == ids
    assert ref.meta["id_type"] == stored
    assert sum(ref.meta["counts"]["interactions_quarantined"].values()) == 0
    # As users they work too.
    as_users = log_table(user_id=make(numbers))
    assert read(sample(tmp_path / "users", log=as_users), tmp_path).meta["num_users"] == NUM_ITEMS


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.arange(12) + 0.5, "holds 0.5; a number is an id only if it is whole"),
        (np.arange(12, dtype=np.float32) * 1e8, r"holds 100000000; .* as float, at most 16,777,216"),
        ([True, False] * 6, "is bool; an id is a string, a UUID or a whole number"),
        ([b"\xff\xfe%d" % x for x in range(12)], "holds an id that cannot be read"),
    ],
    ids=["halves", "floats that lost digits", "bools", "bytes that are no text"],
)
def test_what_is_no_id_is_refused(tmp_path: Path, ids: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(sample(tmp_path, catalog=catalog_table(item_id=ids)), tmp_path)


@pytest.mark.parametrize(
    ("of_catalog", "of_log"),
    [
        (pa.int64(), pa.string()),
        (pa.string(), pa.int32()),
        (pa.int64(), pa.float64()),
        (pa.string(), pa.float64()),
        (pa.decimal128(38, 0), pa.string()),
        (pa.int32(), pa.uint64()),
        (pa.string(), pa.decimal128(20, 0)),
        (pa.binary(), pa.int64()),
    ],
    ids=str,
)
def test_ids_that_differ_by_type_alone_match(tmp_path: Path, of_catalog: pa.DataType, of_log: pa.DataType) -> None:
    def cast(numbers: list[int], kind: pa.DataType) -> pa.Array:
        text = pa.types.is_string(kind) or pa.types.is_binary(kind)
        return pa.array(numbers).cast(pa.string()).cast(kind) if text else pa.array(numbers).cast(kind)

    catalog = catalog_table(item_id=cast(list(range(100, 100 + NUM_ITEMS)), of_catalog))
    log = log_table(item_id=cast([100 + (r * 7) % NUM_ITEMS for r in range(40)], of_log))
    ref = read(sample(tmp_path, catalog=catalog, log=log), tmp_path)
    assert sum(ref.meta["counts"]["interactions_quarantined"].values()) == 0
    assert len(set(ref.array("items").tolist())) == NUM_ITEMS


SPELLINGS: dict[str, tuple[list[str], Callable[[str], str], str]] = {
    "padded": (IDS, lambda x: f"{x}  ", "trimming blanks would match 12 of 12"),
    "other case": (IDS, str.upper, "ignoring case would match 12 of 12"),
    "leading zeros": (
        [f"{x:05d}" for x in range(10, 22)],
        lambda x: str(int(x)),
        "dropping leading zeros would match 12 of 12",
    ),
    "written as a double": (
        [str(x) for x in range(10, 22)],
        lambda x: f"{x}.0",
        'dropping ".0" at the end would match 12 of 12',
    ),
    "padded and of other case": (IDS, lambda x: f" {x.upper()}", "trimming blanks and ignoring case would match"),
    "others": (IDS, lambda x: f"sku{hash(x) % 997}-x", "no simple spelling makes them match"),
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_ids_that_never_match_are_kept_and_shown(tmp_path: Path, kind: str) -> None:
    ids, spell, way = SPELLINGS[kind]
    items = [spell(ids[(r * 7) % NUM_ITEMS]) for r in range(40)]
    with pytest.raises(InputError) as caught:
        read(sample(tmp_path, catalog=catalog_table(item_id=ids), log=log_table(item_id=items)), tmp_path)
    text = str(caught.value)
    assert "most often unknown_item (40)" in text
    assert way in text
    assert f"the log has {items[0]!r}, {items[1]!r}, {items[2]!r} and the catalog {ids[0]!r}, {ids[1]!r}" in text
    assert "or raise source.max_quarantined" not in text
    kept = tmp_path / "refused" / DAY.isoformat() / "interactions.parquet"
    assert str(kept.parent) in text
    assert pq.read_table(kept).column("item_id").to_pylist() == items


def _udt(rows: list[Any]) -> pa.Array:
    kind = pa.struct(
        [
            ("type", pa.int8()),
            ("size", pa.int32()),
            ("indices", pa.list_(pa.int32())),
            ("values", pa.list_(pa.float64())),
        ]
    )
    values: list[Any] = []
    for at, row in enumerate(rows):
        if row is None:
            values.append(None)
        elif at % 2:
            values.append({"type": 1, "size": None, "indices": None, "values": row})
        else:
            kept = [i for i, x in enumerate(row) if x]
            values.append({"type": 0, "size": len(row), "indices": kept, "values": [row[i] for i in kept]})
    return pa.array(values, kind)


def _structs(rows: list[Any], name: str) -> pa.Array:
    kind = pa.list_(pa.struct([(name, pa.float64())]))
    return pa.array([None if row is None else [{name: x} for x in row] for row in rows], kind)


VECTORS: dict[str, tuple[Callable[[list[Any]], pa.Array], str | None]] = {
    "list<struct<element>>": (lambda rows: _structs(rows, "element"), None),
    "list<struct<item>>": (lambda rows: _structs(rows, "item"), None),
    "struct<list<struct<element>>>": (
        lambda rows: pa.array([None if row is None else {"list": [{"element": x} for x in row]} for row in rows]),
        None,
    ),
    "decimals": (
        lambda rows: pa.array(
            [None if row is None else [Decimal(str(x)) for x in row] for row in rows], pa.list_(pa.decimal128(12, 4))
        ),
        None,
    ),
    "VectorUDT": (_udt, None),
    **{
        str(kind): (lambda rows, kind=kind: pa.array(rows, kind), None)  # type: ignore[misc]
        for kind in (
            pa.list_(pa.float16()),
            pa.large_list(pa.float64()),
            pa.list_(pa.float32(), 6),
            pa.list_(pa.float16(), 6),
            pa.list_view(pa.float32()),
        )
    },
    "JSON": (lambda rows: pa.array([None if row is None else json.dumps(row) for row in rows]), "json"),
    "JSON bytes": (lambda rows: pa.array([None if row is None else json.dumps(row).encode() for row in rows]), "json"),
    "float32 bytes": (
        lambda rows: pa.array([None if row is None else np.array(row, "<f4").tobytes() for row in rows]),
        "float32",
    ),
    "float64 bytes": (
        lambda rows: pa.array([None if row is None else np.array(row, "<f8").tobytes() for row in rows]),
        "float64",
    ),
    "float16 bytes of fixed width": (
        lambda rows: pa.array(
            [np.zeros(6, "<f2").tobytes() if r is None else np.array(r, "<f2").tobytes() for r in rows]
        ).cast(pa.binary(12)),
        "float16",
    ),
}
ROWS: list[Any] = [None if i == 3 else [float(i + 1), 0.0, 0.5, 2.0, 0.0, 1.25] for i in range(NUM_ITEMS)]


@pytest.mark.parametrize("kind", VECTORS)
def test_vectors_of_every_kind_are_the_same_numbers(tmp_path: Path, kind: str) -> None:
    make, given = VECTORS[kind]
    formats = {} if given is None else {"image": given}
    ref = read(sample(tmp_path, catalog=catalog_table(image=make(ROWS)), vector_formats=formats), tmp_path)
    assert ref.array("features-image").tolist() == [row or [0.0] * 6 for row in ROWS]
    assert ref.array("present-image").tolist() == [row is not None for row in ROWS]
    assert ref.meta["modalities"]["image"]["quarantined"] == 0
    if given is not None:
        with pytest.raises(InputError, match=r"read only if the config says how: source\.vector_formats\.image = "):
            read(sample(tmp_path, catalog=catalog_table(image=make(ROWS))), tmp_path)


def test_a_setting_that_the_column_does_not_fit_is_refused(tmp_path: Path) -> None:
    for column, given in ((pa.array(ROWS), "json"), (VECTORS["JSON"][0](ROWS), "float32")):
        with pytest.raises(InputError, match=r"source\.vector_formats\.image = "):
            read(sample(tmp_path, catalog=catalog_table(image=column), vector_formats={"image": given}), tmp_path)


def test_text_that_is_no_vector_is_damage(tmp_path: Path) -> None:
    rows = [json.dumps(x) for x in [[1.0, 2.0]] * NUM_ITEMS]
    rows[1], rows[2], rows[4] = "[1.0, ", '{"a": 1}', ""
    ref = read(sample(tmp_path, catalog=catalog_table(image=rows), vector_formats={"image": "json"}), tmp_path)
    assert [x["reason"] for x in quarantined(ref, "features")] == ["unreadable", "unreadable"]
    assert ref.meta["counts"]["features_missing"]["image"] == {"null": 0, "empty": 1, "zero": 0, "nan": 0}


@pytest.mark.parametrize(
    ("value", "kind"),
    [([], "empty"), ([0.0] * 6, "zero"), ([float("nan")] * 6, "nan"), (None, "null"), ([None] * 6, "nan")],
)
def test_a_third_that_says_nothing_is_missing(tmp_path: Path, value: Any, kind: str) -> None:
    rows = [value if i % 3 == 0 else [1.0, 2.0, 3.0, 4.0, 5.0, float(i)] for i in range(NUM_ITEMS)]
    ref = read(sample(tmp_path, catalog=catalog_table(image=pa.array(rows, pa.list_(pa.float32())))), tmp_path)
    described = ref.meta["modalities"]["image"]
    assert (described["present"], described["missing"], described["quarantined"]) == (8, 4, 0)
    assert ref.meta["counts"]["features_missing"]["image"][kind] == 4
    assert quarantined(ref, "features") == []


def test_half_the_clicks_have_no_user(tmp_path: Path) -> None:
    users = [None if i % 4 else f"u{i}" for i in range(40)]
    ref = read(sample(tmp_path, log=log_table(user_id=users)), tmp_path)
    counts = ref.meta["counts"]
    assert (counts["anonymous"], ref.meta["num_users"]) == (30, 10)
    with pytest.raises(InputError, match=r"no interactions left .* 40 without a user"):
        read(sample(tmp_path, log=log_table(user_id=pa.nulls(40, pa.string()))), tmp_path)

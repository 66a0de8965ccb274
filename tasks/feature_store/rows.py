"""Rows of the published table as Feast writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from tasks.feature_store.feast_api import EntityKey, FloatList, Value
from tasks.feature_store.views import ITEM, feature_names, own_columns

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
_NULL = Value()


def source_columns(view: str) -> list[str]:
    """The table's columns that one view's rows need."""
    return [ITEM, *own_columns(view), "run_id"]


def feast_rows(view: str, rows: pa.Table, version: int, day: str) -> list[Row]:
    """The rows of one view, each under its item, with the event time of its day (midnight UTC)."""
    when = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    constant = (Value(int64_val=version), Value(unix_timestamp_val=int(when.timestamp())))
    names = feature_names(view)
    vector, *more = own_columns(view)
    small = zip(("float_val", "string_val"), more, strict=False)
    columns = zip(
        _vectors(rows[vector]),
        *(_values(kind, rows[name]) for kind, name in small),
        _values("string_val", rows["run_id"]),
        strict=True,
    )
    keys = entity_keys(rows[ITEM])
    return [
        (key, dict(zip(names, (*own, *constant), strict=True)), when, None)
        for key, own in zip(keys, columns, strict=True)
    ]


def entity_keys(ids: pa.ChunkedArray) -> list[EntityKey]:
    """The items as Feast's entity keys."""
    kind = "int64_val" if pa.types.is_integer(ids.type) else "string_val"
    return [EntityKey(join_keys=[ITEM], entity_values=[Value(**{kind: x})]) for x in ids.to_pylist()]


def same_values(stored: Mapping[str, Value] | None, wanted: Mapping[str, Value]) -> bool:
    """Whether the online store gives back what was written, null for null."""
    if stored is None:
        return False
    return all(
        name in stored and stored[name].SerializeToString() == value.SerializeToString()
        for name, value in wanted.items()
    )


def _values(kind: str, column: pa.ChunkedArray) -> Iterable[Value]:
    made: dict[Any, Value] = {None: _NULL}
    for x in column.to_pylist():
        if x not in made:
            made[x] = Value(**{kind: x})
        yield made[x]


def _vectors(column: pa.ChunkedArray) -> Iterable[Value]:
    for chunk in column.chunks:
        offsets, numbers = chunk.offsets.to_pylist(), chunk.values.to_numpy(zero_copy_only=False)
        for present, start, stop in zip(chunk.is_valid().to_pylist(), offsets[:-1], offsets[1:], strict=True):
            yield Value(float_list_val=FloatList(val=numbers[start:stop].tolist())) if present else _NULL

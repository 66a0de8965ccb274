"""Every type of column that the fuzzer knows: of ids, embeddings, times, labels and ratings, each from plain values."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.fuzz.fuzzed_shop import DAY


def _text(kind: pa.DataType) -> Callable[[list[int]], pa.Array]:
    return lambda numbers: pa.array([f"i{x:03d}" for x in numbers], pa.string()).cast(kind)


def _whole(kind: pa.DataType, shift: int = 0) -> Callable[[list[int]], pa.Array]:
    return lambda numbers: pa.array([x + shift for x in numbers], kind)


ID_TYPES: dict[str, Callable[[list[int]], pa.Array]] = {
    "large_string": _text(pa.large_string()),
    "string_view": _text(pa.string_view()),
    "dictionary": lambda numbers: pa.array([f"i{x:03d}" for x in numbers]).dictionary_encode(),
    "dictionary of integers": lambda numbers: pa.array(numbers, pa.int32()).dictionary_encode(),
    "binary": _text(pa.binary()),
    "large_binary": _text(pa.large_binary()),
    "fixed_size_binary": lambda numbers: pa.array([f"i{x:03d}".encode() for x in numbers], pa.binary(4)),
    "int8": _whole(pa.int8()),
    "uint8": _whole(pa.uint8()),
    "int64 at its end": lambda numbers: pa.array([2**63 - 1 - x for x in numbers], pa.int64()),
    "int64 at its start": lambda numbers: pa.array([-(2**63) + x for x in numbers], pa.int64()),
    "uint64": _whole(pa.uint64()),
    "uint64 beyond int64": _whole(pa.uint64(), 2**63),
    "decimal": lambda numbers: pa.array([Decimal(x) for x in numbers], pa.decimal128(20, 2)),
    "double": _whole(pa.float64()),
    "bool": lambda numbers: pa.array([x % 2 == 0 for x in numbers]),
    "date": _whole(pa.date32()),
    "timestamp": _whole(pa.timestamp("us", tz="Asia/Tokyo")),
    "struct": lambda numbers: pa.array([{"id": x} for x in numbers]),
    "list": lambda numbers: pa.array([[x] for x in numbers]),
    "null": lambda numbers: pa.nulls(len(numbers)),
    "uuid bytes": lambda numbers: pa.array([(2**127 + x).to_bytes(16) for x in numbers], pa.binary(16)),
    "huge decimal": lambda numbers: pa.array([Decimal(10**30 + x) for x in numbers], pa.decimal128(38, 0)),
    "half doubles": lambda numbers: pa.array([x + 0.5 for x in numbers]),
    "uuid": lambda numbers: pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([x.to_bytes(16) for x in numbers], pa.binary(16))
    ),
}
EMBEDDING_TYPES: dict[str, Callable[[list[Any]], pa.Array]] = {
    **{
        str(kind): lambda rows, kind=kind: pa.array([[kind_of(x, kind) for x in row] for row in rows], pa.list_(kind))
        for kind in (
            pa.float16(),
            pa.float64(),
            pa.int8(),
            pa.int64(),
            pa.decimal128(12, 4),
            pa.string(),
            pa.bool_(),
            pa.binary(),
        )
    },
    "fixed": lambda rows: pa.array(rows, pa.list_(pa.float32(), len(rows[0]))),
    "large": lambda rows: pa.array(rows, pa.large_list(pa.float64())),
    "view": lambda rows: pa.array(rows, pa.list_view(pa.float32())),
    "list of decimals": lambda rows: pa.array(
        [[Decimal(f"{x:.4f}") for x in row] for row in rows], pa.list_(pa.decimal128(12, 4))
    ),
    "VectorUDT": lambda rows: pa.array(
        [{"type": 1, "size": None, "indices": None, "values": row} for row in rows],
        pa.struct(
            [
                ("type", pa.int8()),
                ("size", pa.int32()),
                ("indices", pa.list_(pa.int32())),
                ("values", pa.list_(pa.float64())),
            ]
        ),
    ),
    "struct of a list of structs": lambda rows: pa.array([{"list": [{"element": x} for x in row]} for row in rows]),
    "struct": lambda rows: pa.array([{str(at): x for at, x in enumerate(row)} for row in rows]),
    "list of structs": lambda rows: pa.array([[{"x": x} for x in row] for row in rows]),
    "map": lambda rows: pa.array(
        [[(str(at), x) for at, x in enumerate(row)] for row in rows], pa.map_(pa.string(), pa.float32())
    ),
    "bytes": lambda rows: pa.array([np.array(row, np.float32).tobytes() for row in rows]),
    "text": lambda rows: pa.array([str(row) for row in rows]),
    "number": lambda rows: pa.array([row[0] for row in rows]),
    "null": lambda rows: pa.nulls(len(rows)),
    "list of null": lambda rows: pa.array([[None] * 4] * len(rows), pa.list_(pa.null())),
    "three deep": lambda rows: pa.array([[[row]] for row in rows]),
    "tensor": lambda rows: pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(rows, np.float32)),
}
TIME_TYPES: dict[str, Callable[[Any], pa.Array]] = {
    **{
        f"timestamp[{unit}]": lambda x, unit=unit: pa.array(x).cast(pa.timestamp("s")).cast(pa.timestamp(unit))
        for unit in ("s", "ms", "ns")
    },
    "zone": lambda x: pa.array(x).cast(pa.timestamp("s")).cast(pa.timestamp("us", tz="America/St_Johns")),
    "no zone": lambda x: pa.array(x).cast(pa.timestamp("s")).cast(pa.timestamp("us", tz="Not/AZone")),
    "date32": lambda x: pa.array(x // 86_400, pa.int32()).cast(pa.date32()),
    "date64": lambda x: pa.array(x // 86_400 * 86_400_000, pa.int64()).cast(pa.date64()),
    "int32": lambda x: pa.array(x, pa.int32()),
    "compact": lambda x: pa.array([int(f"{datetime.fromtimestamp(int(y), UTC):%Y%m%d}") for y in x]),
    "days": lambda x: pa.array(x // 86_400),
    "hours": lambda x: pa.array(x // 3_600),
    "minutes": lambda x: pa.array(x // 60),
    "ISO text": lambda x: pa.array([datetime.fromtimestamp(int(y), UTC).isoformat() for y in x]),
    "text of another order": lambda x: pa.array([f"{datetime.fromtimestamp(int(y), UTC):%d/%m/%Y}" for y in x]),
    "two units": lambda x: pa.array([int(y) * (1_000 if at % 2 else 1) for at, y in enumerate(x)]),
    "milliseconds": lambda x: pa.array(x * 1_000),
    "nanoseconds": lambda x: pa.array(x * 1_000_000_000),
    "uint64": lambda x: pa.array(x, pa.uint64()),
    "uint64 beyond int64": lambda x: pa.array([2**64 - 1 - int(y) for y in x], pa.uint64()),
    "double": lambda x: pa.array(x, pa.float64()),
    "text": lambda x: pa.array([str(y) for y in x]),
    "time32": lambda x: pa.array(x % 86_400, pa.int32()).cast(pa.time32("s")),
    "duration": lambda x: pa.array(x).cast(pa.duration("s")),
    "decimal": lambda x: pa.array([Decimal(int(y)) for y in x], pa.decimal128(20, 3)),
    "dictionary": lambda x: pa.array(x).cast(pa.timestamp("s")).dictionary_encode(),
    "null": lambda x: pa.nulls(len(x)),
    "struct": lambda x: pa.array([{"at": int(y)} for y in x]),
}
LABEL_TYPES: dict[str, Callable[[int], pa.Array]] = {
    "int": lambda n: pa.array(range(n)),
    "double": lambda n: pa.array([x + 0.5 for x in range(n)]),
    "bool": lambda n: pa.array([x % 2 == 0 for x in range(n)]),
    "list": lambda n: pa.array([["a", "b"]] * n),
    "list with nulls": lambda n: pa.array([["a", None], None] * (n // 2)),
    "list of numbers": lambda n: pa.array([[1, 2]] * n),
    "struct": lambda n: pa.array([{"en": "kettle"}] * n),
    "map": lambda n: pa.array([[("en", "kettle")]] * n, pa.map_(pa.string(), pa.string())),
    "null": lambda n: pa.nulls(n),
    "binary": lambda n: pa.array([b"kettle"] * n),
    "binary that is no text": lambda n: pa.array([b"\xff\xfe\x00"] * n),
    "decimal": lambda n: pa.array([Decimal("1.50")] * n),
    "zone": lambda n: pa.array([DAY] * n, pa.timestamp("ms", tz="Asia/Kathmandu")),
    "dictionary": lambda n: pa.array(["a", "b"] * (n // 2)).dictionary_encode(),
    "string_view": lambda n: pa.array(["a", "b"] * (n // 2), pa.string_view()),
    "list of views": lambda n: pa.array([["a"]] * n, pa.list_(pa.string_view())),
    "fixed list": lambda n: pa.array([["a", "b"]] * n, pa.list_(pa.string(), 2)),
}
RATING_TYPES: dict[str, Callable[[list[float]], pa.Array]] = {
    "int8": lambda x: pa.array([int(y) for y in x], pa.int8()),
    "half": lambda x: pa.array([np.float16(y) for y in x], pa.float16()),
    "decimal": lambda x: pa.array([Decimal(int(y)) for y in x], pa.decimal128(5, 2)),
    "wide decimal": lambda x: pa.array([Decimal(int(y)) for y in x], pa.decimal256(60, 2)),
    "text": lambda x: pa.array([str(y) for y in x]),
    "bool": lambda x: pa.array([y > 3 for y in x]),
    "null": lambda x: pa.nulls(len(x)),
    "nan": lambda x: pa.array([float("nan")] * len(x)),
    "infinite": lambda x: pa.array([float("inf")] * len(x)),
    "list": lambda x: pa.array([[y] for y in x]),
    "struct": lambda x: pa.array([{"stars": y} for y in x]),
    "dictionary": lambda x: pa.array(x).dictionary_encode(),
    "binary": lambda x: pa.array([str(y).encode() for y in x]),
    "map": lambda x: pa.array([[("stars", y)] for y in x], pa.map_(pa.string(), pa.float64())),
}


def kind_of(value: float, kind: pa.DataType) -> Any:
    """A number as a value of ``kind``."""
    if pa.types.is_integer(kind):
        return int(value * 10)
    if pa.types.is_decimal(kind):
        return Decimal(f"{value:.4f}")
    if pa.types.is_boolean(kind):
        return value > 0
    if pa.types.is_binary(kind):
        return str(value).encode()
    return str(value) if pa.types.is_string(kind) else np.float16(value) if pa.types.is_float16(kind) else value

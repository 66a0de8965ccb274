"""What a vector is: a list of numbers in any of the forms that tools write, read as float32.

- Lists, large lists, lists of fixed size and list views of integers, floats or decimals.
- Structs around one field, as BigQuery writes lists, and Spark's VectorUDT, dense or sparse.
- A list of such is a sequence. JSON text and raw bytes are read only where `source.vector_formats` allows them.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Float32, Int64
from tasks.errors import InputError
from tasks.object_store import StoredFile
from tasks.source.columns.arrow import is_bytes, is_list, is_number, is_text, plain_type, plain_values

USABLE = -1
FEATURE_REASONS = ("nan_or_infinite", "zero_norm", "wrong_width", "unreadable")
# A feature that says nothing is missing, which is no damage.
MISSING_KINDS = ("null", "empty", "zero", "nan")
Format = Literal["json", "float16", "float32", "float64"]
BYTE_TYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}
VECTOR_UDT = ("type", "size", "indices", "values")
_FLOATS = pa.list_(pa.float64())


def is_vector_udt(kind: pa.DataType) -> bool:
    """Whether a type is the struct that Spark stores a VectorUDT in."""
    return bool(pa.types.is_struct(kind)) and sorted(kind.names) == sorted(VECTOR_UDT)


def _only_field(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.num_fields == 1


def embedding_kind(
    kind: pa.DataType, file: StoredFile, key: str, name: str, given: Format | None
) -> Literal["vector", "sequence"] | None:
    """ "vector" for a list of numbers, "sequence" for a list of such lists, None for null (a file without any value).

    ``given`` is the format that the config names for the modality ``name``. Raises InputError for any other type, with the way out.
    """
    inner = plain_type(kind)
    if pa.types.is_null(inner):
        return None
    setting = f"source.vector_formats.{name}"
    if is_text(inner) or is_bytes(inner):
        wanted = "json" if is_text(inner) else "float32"
        if given is None:
            other = " (or float64, float16)" if wanted == "float32" else ""
            raise InputError(
                f'{file.uri}: {key} is {kind}; vectors in text or bytes are read only if the config says how: {setting} = "{wanted}"{other}'
            )
        if given != "json" and is_text(inner):
            raise InputError(
                f'{file.uri}: {key} is {kind}, which {setting} = "{given}" cannot read; correct the setting'
            )
        return "vector"
    if given is not None:
        raise InputError(f'{file.uri}: {key} is {kind}, so {setting} = "{given}" does not apply; take it out')
    depth, numbers = _depth(inner)
    if depth in (1, 2) and pa.types.is_null(numbers):
        # What pandas writes where every list is empty.
        return None
    if depth not in (1, 2) or not is_number(numbers):
        raise InputError(
            f"{file.uri}: {key} is {kind}; an embedding is a list of numbers, or a list of such lists for a sequence"
        )
    return "vector" if depth == 1 else "sequence"


def _depth(kind: pa.DataType) -> tuple[int, pa.DataType]:
    """How many lists stand around the innermost type, and that type."""
    depth, inner = 0, plain_type(kind)
    while is_list(inner) or _only_field(inner):
        depth += is_list(inner)
        inner = plain_type(inner.field(0).type if _only_field(inner) else inner.value_type)
    return (depth + 1, pa.float64()) if is_vector_udt(inner) else (depth, inner)


def as_lists(column: pa.Array, given: Format | None = None) -> pa.Array:
    """A column that ``embedding_kind`` accepts as plain lists, or lists of lists, of numbers. What cannot be read becomes [NaN, inf].

    Structs, VectorUDTs, JSON and bytes are unwrapped; plain lists of numbers are not copied.
    """
    values = plain_values(column)
    if pa.types.is_null(values.type):
        return values.cast(pa.list_(pa.float32()))
    if given is not None:
        return _decoded(values, given)
    return _unwrapped(values)


def _unwrapped(values: pa.Array) -> pa.Array:
    values = plain_values(values)
    kind = values.type
    if is_vector_udt(kind):
        return _dense(values)
    if _only_field(kind):
        return _unwrapped(pc.struct_field(values, [0]))
    if pa.types.is_null(kind):
        return values.cast(pa.float32())
    if pa.types.is_decimal(kind):
        return values.cast(pa.float64())
    if not is_list(kind):
        return values
    item = plain_type(kind.value_type)
    if pa.types.is_integer(item) or pa.types.is_floating(item):
        return values
    counts = pc.list_value_length(values)
    flat = _unwrapped(values.flatten())
    offsets = np.concatenate([[0], np.cumsum(np.asarray(counts.fill_null(0)).astype(np.int64))])
    return pa.LargeListArray.from_arrays(pa.array(offsets), flat, mask=counts.is_null())


def _dense(values: pa.Array) -> pa.Array:
    """Spark's VectorUDT as lists: a dense vector (type 1) is its values, a sparse one has zeros outside its indices."""
    names = {name: pc.struct_field(values, name) for name in VECTOR_UDT}
    sparse = pc.equal(names["type"], 0)
    if not pc.any(sparse).as_py():
        return names["values"]
    rows = []
    for row in values.to_pylist():
        if row is None or row["type"] != 0:
            rows.append(None if row is None else row["values"])
            continue
        full = [0.0] * row["size"]
        for at, number in zip(row["indices"], row["values"], strict=True):
            full[at] = number
        rows.append(full)
    return pa.array(rows, _FLOATS)


# Neither NaN alone, which is a missing feature, nor of any width that a catalog has: judged as unreadable.
_UNREADABLE: list[float] = [float("nan"), float("inf")]


def _decoded(values: pa.Array, given: Format) -> pa.Array:
    decode = _json_vector if given == "json" else _bytes_vector
    return pa.array([None if raw is None else decode(raw, given) for raw in values.to_pylist()], _FLOATS)


def _json_vector(raw: str | bytes, given: Format) -> list[float] | None:
    if not raw.strip():
        return []
    try:
        found = json.loads(raw)
        return None if found is None else [float("nan") if x is None else float(x) for x in found]
    except (ValueError, TypeError, RecursionError):
        return _UNREADABLE


def _bytes_vector(raw: bytes, given: Format) -> list[float] | np.ndarray[Any, Any]:
    kind = BYTE_TYPES[given]
    return _UNREADABLE if len(raw) % kind.itemsize else np.frombuffer(raw, kind).astype(np.float64)


def lengths(lists: pa.Array) -> Int64:
    """How many entries each of ``as_lists`` has [N] int64, -1 where it is null."""
    counts: Int64 = np.asarray(pc.list_value_length(lists).fill_null(-1)).astype(np.int64)
    return counts


def embeddings(lists: pa.Array, width: int) -> tuple[Int64, Float32]:
    """The rows whose embedding has this width [K] int64, and the embeddings [K, width] float32. A null number becomes NaN."""
    counts = lengths(lists)
    numbers = plain_values(lists.flatten()).to_numpy(zero_copy_only=False)
    right_width, present = counts == width, counts >= 0
    if not np.array_equal(right_width, present):
        numbers = numbers[np.repeat(right_width[present], counts[present])]
    # Doubles beyond float32 become infinite here and are quarantined as such.
    with np.errstate(over="ignore"):
        values: Float32 = numbers.astype(np.float32, copy=False).reshape(-1, width)
    return np.flatnonzero(right_width).astype(np.int64), values


def missing_kinds(lists: pa.Array) -> NDArray[np.int8]:
    """The index in ``MISSING_KINDS`` of each list that says nothing, -1 for the others: null, empty, all zero, or all NaN [N] int8."""
    counts, kinds = lengths(lists), np.full(len(lists), -1, np.int8)
    kinds[counts < 0], kinds[counts == 0] = 0, 1
    filled = np.flatnonzero(counts > 0)
    if len(filled):
        numbers = plain_values(lists.flatten()).to_numpy(zero_copy_only=False)
        starts = np.cumsum(counts[filled]) - counts[filled]
        blank = np.isnan(numbers) if numbers.dtype.kind == "f" else np.zeros(len(numbers), np.bool_)
        for index, rows in ((2, numbers == 0), (3, blank)):
            kinds[filled[np.logical_and.reduceat(rows, starts)]] = index
    return kinds


def judge_features(values: Float32) -> tuple[Bool, NDArray[np.int8]]:
    """Which rows [K, D] can be used [K] bool, and the index in ``FEATURE_REASONS`` or ``USABLE`` [K] int8.

    The norm is taken in float32, as in every later stage, so a row whose squares overflow or vanish there is not usable either.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", values, values)
    finite, zero = np.isfinite(squares), squares == 0
    codes = np.full(len(values), USABLE, dtype=np.int8)
    codes[zero] = FEATURE_REASONS.index("zero_norm")
    codes[~finite] = FEATURE_REASONS.index("nan_or_infinite")
    return finite & ~zero, codes


def unreadable(lists: pa.Array) -> Bool:
    """Which rows [N] are what ``as_lists`` makes of JSON or bytes that it cannot read."""
    found = np.zeros(len(lists), np.bool_)
    rows = np.flatnonzero(lengths(lists) == len(_UNREADABLE))
    if len(rows):
        pairs = embeddings(lists, len(_UNREADABLE))[1]
        found[rows] = np.isnan(pairs[:, 0]) & np.isposinf(pairs[:, 1])
    return found

"""Arrow columns of any accepted type as the few types that the rest of the pipeline knows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Float32, Int64
from tasks.errors import InputError
from tasks.object_store import StoredFile
from tasks.source.quarantine import USABLE

DAY_SECONDS = 86_400
EPOCH = date(1970, 1, 1).toordinal()
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
# Epoch seconds pass this in the year 5138, epoch milliseconds did in 1973: a larger integer is in a finer unit.
LARGEST_SECONDS = 100_000_000_000
INT64 = np.iinfo(np.int64)
FEATURE_REASONS = ("nan_or_infinite", "zero_norm", "wrong_width")
_LIST_TESTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves: of a dictionary its values, of an extension type its storage, of a view of text the text."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    found = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_string_view(found) else found


def plain_values(column: pa.Array) -> pa.Array:
    """The column with its dictionary or extension type taken off."""
    if isinstance(column.type, pa.BaseExtensionType):
        return plain_values(column.storage)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is one of Arrow's string types."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether the type is one of Arrow's types of bytes of any length."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def id_family(kind: pa.DataType, file: StoredFile, key: str) -> pa.DataType:
    """The common type of an id column, int64 or large_string. Raises InputError if it holds neither integers nor strings."""
    kind = plain_type(kind)
    if pa.types.is_integer(kind):
        return pa.int64()
    if is_text(kind):
        return pa.large_string()
    raise InputError(f"{file.uri}: {key} is {kind}; an id is a string or an integer")


def as_ids(column: pa.Array, family: pa.DataType, file: StoredFile, key: str) -> pa.Array:
    """The ids as ``family``, nulls kept. Raises InputError for text that is not UTF-8 and for integers beyond int64."""
    column = plain_values(column)
    try:
        column.validate(full=True)
        return column.cast(family)
    except pa.ArrowInvalid as error:
        raise InputError(f"{file.uri}: {key} holds an id that cannot be read ({error})") from error


def as_text(column: pa.Array, file: StoredFile, key: str) -> pa.Array:
    """A label column as large_string; the entries of a list are joined by a comma, and bytes that are no UTF-8 become U+FFFD: people
    read labels and nothing else does, so a garbled one must not cost the night. Raises InputError if it has no form as text.
    """
    column = plain_values(column)
    if is_text(column.type) or is_bytes(column.type):
        return _decoded(column)
    try:
        column.validate(full=True)
        if (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) and is_text(column.type.value_type):
            return pc.binary_join(column.cast(pa.list_(pa.string())), ", ").cast(pa.large_string())
        return column.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{file.uri}: {key} is {column.type} and cannot be shown as text; name another column or leave it out"
        ) from error


def _decoded(column: pa.Array) -> pa.Array:
    try:
        column.validate(full=True)
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        told = (None if x is None else x.decode("utf-8", "replace") for x in column.cast(pa.large_binary()).to_pylist())
        return pa.array(told, pa.large_string())


def check_time(kind: pa.DataType, file: StoredFile, key: str) -> None:
    """Raises InputError unless the type is a timestamp, a date or an integer."""
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind)):
        raise InputError(
            f"{file.uri}: {key} is {kind}; wanted a timestamp, a date, or an integer of seconds or milliseconds since 1970"
        )


def as_seconds(column: pa.Array) -> tuple[Int64, Bool]:
    """Whole seconds since the epoch, UTC [N] int64 (0 where null), and which are not null [N] bool.

    A timestamp without a zone is UTC, a date its midnight. Of integers the magnitude tells the unit: up to ``LARGEST_SECONDS`` seconds,
    beyond it milliseconds, beyond a thousand times that microseconds, then nanoseconds.
    """
    valid: Bool = np.asarray(column.is_valid())
    if pa.types.is_date32(column.type):
        return _numbers(column.cast(pa.int32())).astype(np.int64) * DAY_SECONDS, valid
    raw = _numbers(column.cast(pa.int64(), safe=False))
    if pa.types.is_timestamp(column.type):
        return raw // UNITS[column.type.unit], valid
    if pa.types.is_date64(column.type):
        return raw // UNITS["ms"], valid
    for _ in UNITS:
        raw = np.where((raw > LARGEST_SECONDS) | (raw < -LARGEST_SECONDS), raw // 1_000, raw)
    return raw, valid


def _numbers(column: pa.Array) -> NDArray[Any]:
    found: NDArray[Any] = np.asarray(column.fill_null(0))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Event times to read, in whole seconds since the epoch, UTC: ``start`` included, ``stop`` not."""

    start: int
    stop: int

    @classmethod
    def of_days(cls, first: date | None, last: date) -> Window:
        """All of the days from ``first`` (None: since ever) up to and including ``last``."""
        start = INT64.min if first is None else (first.toordinal() - EPOCH) * DAY_SECONDS
        return cls(start=int(start), stop=(last.toordinal() + 1 - EPOCH) * DAY_SECONDS)

    @staticmethod
    def day(seconds: int) -> date:
        """The UTC day of an event time."""
        return date.fromordinal(EPOCH + seconds // DAY_SECONDS)

    def predicate(self, column: str, kind: pa.DataType) -> pc.Expression:
        """An expression over the raw column that holds wherever the event time is null or within the window, for push-down.

        Of integers it also holds for a few outside: those that would be within it in another unit.
        """
        storage = pa.int32() if pa.types.is_date32(kind) else kind if pa.types.is_integer(kind) else pa.int64()
        if pa.types.is_date32(kind):
            bounds = [(self.start // DAY_SECONDS, (self.stop - 1) // DAY_SECONDS)]
        else:
            unit = kind.unit if pa.types.is_timestamp(kind) else "ms" if pa.types.is_date64(kind) else None
            bounds = [(self.start * x, self.stop * x - 1) for x in ([UNITS[unit]] if unit else UNITS.values())]
        limits, field = np.iinfo(storage.to_pandas_dtype()), pc.field(column)
        chosen = field.is_null()
        for bound in bounds:
            low, high = (pa.scalar(min(max(x, int(limits.min)), int(limits.max)), storage).cast(kind) for x in bound)
            chosen = chosen | ((field >= low) & (field <= high))
        return chosen


def embedding_kind(kind: pa.DataType, file: StoredFile, key: str) -> Literal["vector", "sequence"] | None:
    """Whether the type is a list (plain, large, fixed-size or view) of numbers or a list of such lists; None for null (a file without any).

    Raises InputError if it is anything else.
    """
    found = plain_type(kind)
    if pa.types.is_null(found):
        return None
    depth = 0
    while any(test(found) for test in _LIST_TESTS):
        depth, found = depth + 1, plain_type(found.value_type)
    if depth not in (1, 2) or not (pa.types.is_floating(found) or pa.types.is_integer(found)):
        raise InputError(
            f"{file.uri}: {key} is {kind}; an embedding is a list of numbers, or a list of such lists for a sequence"
        )
    return "vector" if depth == 1 else "sequence"


def lengths(column: pa.Array) -> Int64:
    """How many numbers each embedding has [N] int64, -1 where it is null."""
    found: Int64 = np.asarray(pc.list_value_length(_lists(column)).fill_null(-1)).astype(np.int64)
    return found


def _lists(column: pa.Array) -> pa.Array:
    return column.cast(pa.list_(pa.float32())) if pa.types.is_null(column.type) else plain_values(column)


def embeddings(column: pa.Array, width: int) -> tuple[Int64, Float32]:
    """The rows whose embedding has this width [K] int64, and the embeddings [K, width] float32; a null number becomes NaN."""
    found = lengths(column)
    flat = _lists(column).flatten().to_numpy(zero_copy_only=False)
    right, given = found == width, found >= 0
    if not np.array_equal(right, given):
        flat = flat[np.repeat(right[given], found[given])]
    # Doubles beyond float32 become infinite here, and are told apart as such afterwards.
    with np.errstate(over="ignore"):
        values: Float32 = flat.astype(np.float32, copy=False).reshape(-1, width)
    return np.flatnonzero(right).astype(np.int64), values


def segment_lists(column: pa.Array) -> tuple[Int64, pa.Array]:
    """How many segments each row of a sequence column has [N] int64, -1 where it is null, and all of them one after the other."""
    if pa.types.is_null(column.type):
        return np.full(len(column), -1, np.int64), pa.array([], pa.list_(pa.float32()))
    return lengths(column), _lists(column).flatten()


def judge_features(values: Float32) -> tuple[Bool, NDArray[np.int8]]:
    """Which rows [K, D] can be used [K] bool, and the index in ``FEATURE_REASONS`` or ``USABLE`` [K] int8.

    The norm is judged in float32, as everything after works in it: a row whose squares overflow or vanish there is of no use either.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", values, values)
    finite, zero = np.isfinite(squares), squares == 0
    codes = np.full(len(values), USABLE, dtype=np.int8)
    codes[zero] = FEATURE_REASONS.index("zero_norm")
    codes[~finite] = FEATURE_REASONS.index("nan_or_infinite")
    return finite & ~zero, codes

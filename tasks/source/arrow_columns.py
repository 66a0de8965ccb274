"""What an id, a label, a time and an embedding is: Arrow columns of any accepted type as the few types that the pipeline uses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

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
INT64_MIN = int(np.iinfo(np.int64).min)
FEATURE_REASONS = ("nan_or_infinite", "zero_norm", "wrong_width")
_LIST_TESTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of ``plain_values`` of a column of this type."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def plain_values(column: pa.Array) -> pa.Array:
    """The column without dictionary, extension type or string views, which several Arrow functions do not support."""
    if isinstance(column.type, pa.BaseExtensionType):
        return plain_values(column.storage)
    kind = plain_type(column.type)
    return column if kind == column.type else column.cast(kind)


def is_text(kind: pa.DataType) -> bool:
    """Whether a plain type is a string type."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


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
    try:
        column.validate(full=True)
        return column.cast(family)
    except pa.ArrowInvalid as error:
        raise InputError(f"{file.uri}: {key} holds an id that cannot be read ({error})") from error


def as_text(column: pa.Array, file: StoredFile, key: str) -> pa.Array:
    """A label column as large_string. The entries of a list are joined by a comma.

    Bytes that are not UTF-8 become U+FFFD: only people read labels, so a bad one must not stop the run. Raises InputError for a type that
    cannot be written as text.
    """
    kind = column.type
    try:
        column.validate(full=True)
        if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_text(plain_type(kind.value_type)):
            return pc.binary_join(column.cast(pa.list_(pa.string())), ", ").cast(pa.large_string())
        return column.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            labels = column.cast(pa.large_binary()).to_pylist()
            decoded = [None if label is None else label.decode("utf-8", "replace") for label in labels]
            return pa.array(decoded, pa.large_string())
        raise InputError(
            f"{file.uri}: {key} is {kind} and cannot be shown as text; name another column or leave it out"
        ) from error


def check_time(kind: pa.DataType, file: StoredFile, key: str) -> None:
    """Raises InputError unless the type is a timestamp, a date or an integer."""
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind)):
        raise InputError(
            f"{file.uri}: {key} is {kind}; wanted a timestamp, a date, or an integer of seconds or milliseconds since 1970"
        )


def as_seconds(column: pa.Array) -> tuple[Int64, Bool]:
    """Whole seconds since the epoch, UTC [N] int64 (0 where null), and which rows are not null [N] bool.

    A timestamp without a zone is UTC. A date is its midnight. The size of an integer gives its unit: up to ``LARGEST_SECONDS`` it is in
    seconds, up to a thousand times that in milliseconds, then in microseconds and nanoseconds.
    """
    valid: Bool = np.asarray(column.is_valid())
    if pa.types.is_date32(column.type):
        return np.asarray(column.cast(pa.int32()).fill_null(0)).astype(np.int64) * DAY_SECONDS, valid
    numbers = np.asarray(column.cast(pa.int64(), safe=False).fill_null(0))
    if pa.types.is_timestamp(column.type):
        return numbers // UNITS[column.type.unit], valid
    if pa.types.is_date64(column.type):
        return numbers // UNITS["ms"], valid
    for _ in UNITS:
        numbers = np.where((numbers > LARGEST_SECONDS) | (numbers < -LARGEST_SECONDS), numbers // 1_000, numbers)
    return numbers, valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Event times to read, in whole seconds since the epoch, UTC: ``start`` included, ``stop`` not."""

    start: int
    stop: int

    @classmethod
    def of_days(cls, last: date, num_days: int | None = None) -> Window:
        """The ``num_days`` days that end with ``last``, or all days up to it."""
        stop = (last.toordinal() + 1 - EPOCH) * DAY_SECONDS
        return cls(start=INT64_MIN if num_days is None else max(stop - num_days * DAY_SECONDS, INT64_MIN), stop=stop)

    def contains(self, seconds: Int64) -> Bool:
        """Which of these times lie in the window."""
        inside: Bool = (seconds >= self.start) & (seconds < self.stop)
        return inside

    def predicate(self, column: str, kind: pa.DataType) -> pc.Expression:
        """An expression over the raw column that holds where the event time is null or in the window. It selects row groups.

        For integers it allows every unit, so it also holds for a few values outside the window.
        """
        if pa.types.is_date32(kind):
            storage, bounds = pa.int32(), [(self.start // DAY_SECONDS, (self.stop - 1) // DAY_SECONDS)]
        else:
            storage = kind if pa.types.is_integer(kind) else pa.int64()
            unit = kind.unit if pa.types.is_timestamp(kind) else "ms" if pa.types.is_date64(kind) else None
            scales = [UNITS[unit]] if unit else UNITS.values()
            bounds = [(self.start * scale, self.stop * scale - 1) for scale in scales]
        limits, field = np.iinfo(storage.to_pandas_dtype()), pc.field(column)
        selected = field.is_null()
        for bound in bounds:
            low, high = (pa.scalar(min(max(x, int(limits.min)), int(limits.max)), storage).cast(kind) for x in bound)
            selected = selected | ((field >= low) & (field <= high))
        return selected


def embedding_kind(kind: pa.DataType, file: StoredFile, key: str) -> Literal["vector", "sequence"] | None:
    """ "vector" for a list of numbers, "sequence" for a list of such lists, None for null (a file without any value).

    A list may be plain, large, of fixed size or a view. Raises InputError for any other type.
    """
    inner = plain_type(kind)
    if pa.types.is_null(inner):
        return None
    depth = 0
    while any(test(inner) for test in _LIST_TESTS):
        depth, inner = depth + 1, plain_type(inner.value_type)
    if depth not in (1, 2) or not (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
        raise InputError(
            f"{file.uri}: {key} is {kind}; an embedding is a list of numbers, or a list of such lists for a sequence"
        )
    return "vector" if depth == 1 else "sequence"


def lengths(column: pa.Array) -> Int64:
    """How many entries each list has [N] int64, -1 where it is null."""
    counts: Int64 = np.asarray(pc.list_value_length(_lists(column)).fill_null(-1)).astype(np.int64)
    return counts


def _lists(column: pa.Array) -> pa.Array:
    return column.cast(pa.list_(pa.float32())) if pa.types.is_null(column.type) else plain_values(column)


def embeddings(column: pa.Array, width: int) -> tuple[Int64, Float32]:
    """The rows whose embedding has this width [K] int64, and the embeddings [K, width] float32. A null number becomes NaN."""
    counts = lengths(column)
    numbers = _lists(column).flatten().to_numpy(zero_copy_only=False)
    right_width, present = counts == width, counts >= 0
    if not np.array_equal(right_width, present):
        numbers = numbers[np.repeat(right_width[present], counts[present])]
    # Doubles beyond float32 become infinite here and are quarantined as such.
    with np.errstate(over="ignore"):
        values: Float32 = numbers.astype(np.float32, copy=False).reshape(-1, width)
    return np.flatnonzero(right_width).astype(np.int64), values


def segment_lists(column: pa.Array) -> tuple[Int64, pa.Array]:
    """How many segments each row of a sequence column has [N] int64, -1 where it is null, and all segments in order."""
    if pa.types.is_null(column.type):
        return np.full(len(column), -1, np.int64), pa.array([], pa.list_(pa.float32()))
    return lengths(column), _lists(column).flatten()


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

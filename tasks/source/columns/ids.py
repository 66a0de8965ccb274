"""What an id is: a whole number or text, whatever type a file gives it.

- Integers, decimals and doubles that are whole are whole numbers. Beyond int64 they are text.
- Text is text. Bytes are UTF-8 text; 16 bytes that are not all UTF-8 are UUIDs, as is the UUID type. A UUID is written as text.
- A number and its digits are one id where the catalog and the log differ in type: 7 is "7", but not "07".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import InputError
from tasks.object_store import StoredFile
from tasks.source.columns.arrow import is_bytes, is_number, is_text, plain_type, plain_values

NUMBER, TEXT = pa.int64(), pa.large_string()
UUID_BYTES = 16
# Beyond these a float no longer holds every whole number.
LARGEST = {pa.float64(): 2**53, pa.float32(): 2**24, pa.float16(): 2**11}


@dataclass(frozen=True, slots=True)
class IdColumn:
    """How a column is read: the plain ``types`` of its files, its ``family`` (int64 or large_string), and whether its bytes are UUIDs."""

    types: tuple[pa.DataType, ...]
    family: pa.DataType
    uuid: bool

    def published_type(self, family: pa.DataType) -> pa.DataType:
        """The type that ids are published in, if their values are of this ``family``: their own, where they have one that can hold them."""
        if len(self.types) == 1 and keeps_type(self.types[0]) and is_text(self.types[0]) == (family == TEXT):
            return self.types[0]
        return pa.int64() if family == NUMBER else pa.string()

    def __str__(self) -> str:
        """What the column was taken for, in words."""
        what = "UUIDs, as text" if self.uuid else "whole numbers" if self.family == NUMBER else "text"
        names = ", ".join(sorted({str(kind) for kind in self.types}))
        return f"{what} ({names})" if names else what


def id_family(kind: pa.DataType, file: StoredFile, key: str) -> pa.DataType | None:
    """``NUMBER`` or ``TEXT`` by the type alone, None for a column of nulls. Raises InputError for a type that holds no ids."""
    plain = plain_type(kind)
    if pa.types.is_null(plain):
        return None
    if is_number(plain):
        return NUMBER
    if is_text(plain) or is_bytes(plain):
        return TEXT
    raise InputError(f"{file.uri}: {key} is {kind}; an id is a string, a UUID or a whole number; cast the column")


def keeps_type(kind: pa.DataType) -> bool:
    """Whether ids of this plain type are published as they came: integers of up to 64 bits, and text."""
    return bool(pa.types.is_integer(kind) or is_text(kind))


def read_ids(column: pa.Array, uuid: bool, file: StoredFile, key: str) -> pa.Array:
    """The ids as int64 or, for text and for numbers beyond int64, as large_string. Nulls stay, and NaN is null.

    Raises InputError with an example for text that is not UTF-8 and for numbers that are not whole.
    """
    values = plain_values(column)
    kind = values.type
    try:
        values.validate(full=True)
        if pa.types.is_null(kind):
            return values.cast(NUMBER)
        if pa.types.is_floating(kind):
            return _whole_doubles(values, file, key)
        if pa.types.is_decimal(kind):
            whole = values.cast(pa.decimal256(76, 0)) if kind.scale else values
            return _as_int64(whole)
        if pa.types.is_integer(kind):
            return _as_int64(values)
        if not is_bytes(kind):
            return values.cast(TEXT)
        return _uuid_text(values, file, key) if uuid else values.cast(pa.large_binary()).cast(TEXT)
    except pa.ArrowInvalid as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise InputError(
            f"{file.uri}: {key} holds an id that cannot be read ({reason}); write whole numbers or UTF-8 text"
        ) from error


def _as_int64(values: pa.Array) -> pa.Array:
    try:
        return values.cast(NUMBER)
    except pa.ArrowInvalid:
        return values.cast(pa.string()).cast(TEXT)


def _whole_doubles(values: pa.Array, file: StoredFile, key: str) -> pa.Array:
    numbers, largest = np.asarray(values.cast(pa.float64()).fill_null(np.nan)), LARGEST[values.type]
    missing = np.isnan(numbers)
    odd = ~missing & ((numbers != np.floor(numbers)) | (np.abs(numbers) > largest))
    if odd.any():
        raise InputError(
            f"{file.uri}: {key} is {values.type} and holds {numbers[odd][0]:.15g}; a number is an id only if it is whole"
            f" and, as {values.type}, at most {largest:,}; write integers or text"
        )
    return pa.array(np.where(missing, 0, numbers).astype(np.int64), NUMBER, mask=missing)


def _uuid_text(values: pa.Array, file: StoredFile, key: str) -> pa.Array:
    rows = [None if x is None else x.hex() for x in values.to_pylist()]
    other = next((x for x in rows if x is not None and len(x) != 2 * UUID_BYTES), None)
    if other is not None:
        raise InputError(f"{file.uri}: {key} holds UUIDs of 16 bytes and also 0x{other[:40]}; write all ids alike")
    text = [None if x is None else f"{x[:8]}-{x[8:12]}-{x[12:16]}-{x[16:20]}-{x[20:]}" for x in rows]
    return pa.array(text, TEXT)


def holds_uuids(sample: pa.Array) -> bool:
    """Whether a sample of bytes holds UUIDs: all are 16 bytes, and not all are UTF-8."""
    rows = [x for x in sample.to_pylist() if x is not None]
    return bool(rows) and all(len(x) == UUID_BYTES for x in rows) and not all(map(_is_utf8, rows))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def in_family(ids: pa.Array, family: pa.DataType) -> pa.Array:
    """What ``read_ids`` returned, in the family of the whole column. Text never becomes a number here."""
    return ids if ids.type == family else ids.cast(pa.string()).cast(TEXT)


def common_family(chunks: Iterable[pa.Array]) -> pa.DataType:
    """int64 if every chunk that ``read_ids`` returned is, else large_string."""
    return TEXT if any(chunk.type == TEXT for chunk in chunks) else NUMBER


def positions(ids: pa.Array, among: pa.Array) -> pa.Array:
    """The place of each id in ``among``, null where it is not there. Either may be numbers while the other is text."""
    if ids.type != among.type:
        ids, among = in_family(ids, TEXT), in_family(among, TEXT)
    return pc.index_in(ids, value_set=among)

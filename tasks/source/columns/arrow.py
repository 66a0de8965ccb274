"""Arrow columns without wrappers: no dictionaries, extension types, views, or structs around the only field."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import InputError
from tasks.object_store import StoredFile

LIST_TESTS = (
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


def is_list(kind: pa.DataType) -> bool:
    """Whether a plain type is a list of any kind."""
    return any(test(kind) for test in LIST_TESTS)


def is_number(kind: pa.DataType) -> bool:
    """Whether a plain type is an integer, a decimal or a float."""
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_floating(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a plain type is a string type."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a plain type is binary, of fixed width or not."""
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


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
        if is_text(kind) or is_bytes(kind):
            labels = column.cast(pa.large_binary()).to_pylist()
            decoded = [None if label is None else label.decode("utf-8", "replace") for label in labels]
            return pa.array(decoded, pa.large_string())
        raise InputError(
            f"{file.uri}: {key} is {kind} and cannot be shown as text; name another column or leave it out"
        ) from error

"""The core's records as stage outputs: arrays as ``.npy`` files, the rest as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

import numpy as np

from tasks.store.store import Ref, StageWriter, plain

Record = TypeVar("Record")


def save_record(writer: StageWriter, record: Any) -> None:
    """Write a core record: arrays as ``<field>.npy``, mappings as ``<field>-<key>.npy``, the rest into ``meta.json``."""
    meta: dict[str, Any] = {}
    for part in fields(record):
        value = getattr(record, part.name)
        if isinstance(value, np.ndarray):
            writer.array(part.name, value)
        elif isinstance(value, Mapping):
            meta[part.name] = sorted(value)
            for key, array in value.items():
                writer.array(f"{part.name}-{key}", array)
        else:
            meta[part.name] = plain(value)
    writer.meta(meta)


def load_record(ref: Ref, kind: type[Record]) -> Record:
    """Read back what ``save_record`` wrote, arrays memory-mapped; the record checks itself as it is built."""
    meta, values = ref.meta, dict[str, Any]()
    for name, hint in get_type_hints(kind).items():
        if ref.file(f"{name}.npy").exists():
            values[name] = ref.array(name)
        elif isinstance(meta.get(name), list):
            values[name] = {key: ref.array(f"{name}-{key}") for key in meta[name]}
        elif isinstance(hint, type) and issubclass(hint, Enum):
            values[name] = hint[meta[name]]
        else:
            values[name] = float("nan") if hint is float and meta.get(name) is None else meta.get(name)
    return kind(**values)


@lru_cache(maxsize=8)
def open_record(ref: Ref, kind: type[Record]) -> Record:
    """``load_record``, kept for the next shard: the checks of a large record read all of it."""
    return load_record(ref, kind)


def save_part(writer: StageWriter, name: str, part: Any) -> None:
    """Write a dataclass of arrays and numbers beside a record, as ``<name>_<field>.npy``: what the next run starts from."""
    for field in fields(part):
        writer.array(f"{name}_{field.name}", np.asarray(getattr(part, field.name)))


def load_part(ref: Ref, name: str, kind: type[Record]) -> Record:
    """Read back what ``save_part`` wrote."""
    arrays = {field.name: np.asarray(ref.array(f"{name}_{field.name}")) for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{field: array if array.ndim else array.item() for field, array in arrays.items()})

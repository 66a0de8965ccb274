"""The columns that one modality has in the published table, and a block of their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rectifier_core.base.published_records import Status

_EMBEDDING = pa.list_(pa.field("element", pa.float32()))
_SEQUENCE = pa.list_(pa.field("element", _EMBEDDING))
_POSITIONS = pa.list_(pa.field("element", pa.int32()))


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRows:
    """A sequence's memory maps: ``segments`` [S, D] float32, ``trust`` [S] float32 (NaN: it cannot be told), ``positions`` [S] int32.

    Item i owns the segments from ``offsets[i]`` up to ``offsets[i + 1]`` ([I + 1] int64).
    """

    segments: np.ndarray[Any, Any]
    trust: np.ndarray[Any, Any]
    positions: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityRows:
    """One modality's memory maps: ``features`` [I, D] float32, ``status`` [I] int8, ``trust`` [I] float32, NaN where it cannot be told.

    ``sequence`` is what a sequence modality publishes beside its pooled feature.
    """

    name: str
    features: np.ndarray[Any, Any]
    status: np.ndarray[Any, Any]
    trust: np.ndarray[Any, Any]
    sequence: SequenceRows | None = None

    @property
    def vectors(self) -> list[str]:
        """The columns that hold nothing but finite numbers."""
        return [self.name] if self.sequence is None else [self.name, f"{self.name}_segments"]


def most_bytes(sequence: SequenceRows, rows: int) -> int:
    """The bytes of the longest run of ``rows`` items, wherever it starts."""
    ends = np.asarray(sequence.offsets)
    return int((ends[rows:] - ends[:-rows]).max()) * 4 * int(2 + sequence.segments.shape[1])


def check_shapes(modality: ModalityRows, rows: int) -> None:
    """Raises ValueError unless the arrays are of one modality of ``rows`` items."""
    wanted = {"features": (np.float32, 2), "status": (np.int8, 1), "trust": (np.float32, 1)}
    for field, (dtype, dimensions) in wanted.items():
        array = getattr(modality, field)
        if array.dtype != dtype or array.ndim != dimensions or len(array) != rows or not rows:
            raise ValueError(
                f"{field}-{modality.name}: wanted {np.dtype(dtype)}, {dimensions} dimensions, {rows} rows; got {array.dtype} {array.shape}"
            )
    if modality.sequence is not None:
        _check_sequence(modality.name, modality.sequence, rows)


def _check_sequence(name: str, sequence: SequenceRows, rows: int) -> None:
    count = len(sequence.segments)
    offsets = np.asarray(sequence.offsets)
    if offsets.shape != (rows + 1,) or offsets[0] != 0 or offsets[-1] != count or (np.diff(offsets) < 0).any():
        raise ValueError(
            f"offsets-{name}: wanted {rows + 1} values rising from 0 to the {count} segments, got shape {offsets.shape}"
        )
    wanted = {"segments": (np.float32, 2), "trust": (np.float32, 1), "positions": (np.int32, 1)}
    for field, (dtype, dimensions) in wanted.items():
        array = getattr(sequence, field)
        if array.dtype != dtype or array.ndim != dimensions or len(array) != count:
            raise ValueError(
                f"{field} of the segments of {name}: wanted {np.dtype(dtype)}, {count} rows; got {array.dtype} {array.shape}"
            )


def published_fields(modality: ModalityRows) -> list[pa.Field]:
    """The modality's columns in the table."""
    name = modality.name
    found = [
        pa.field(name, _EMBEDDING),
        pa.field(f"{name}_trust", pa.float32()),
        pa.field(f"{name}_status", pa.string()),
    ]
    if modality.sequence is not None:
        found += [pa.field(f"{name}_segments", _SEQUENCE), pa.field(f"{name}_segment_positions", _POSITIONS)]
        found.append(pa.field(f"{name}_segment_trust", _EMBEDDING))
    return found


def published_columns(modality: ModalityRows, rows: slice) -> list[pa.Array]:
    """These rows of ``published_fields``."""
    codes = np.asarray(modality.status[rows])
    given = codes != Status.MISSING.code
    features = np.asarray(modality.features[rows])
    offsets = np.concatenate([[0], np.cumsum(given, dtype=np.int64) * features.shape[1]]).astype(np.int32)
    values = pa.array((features if given.all() else features[given]).ravel())
    lists = pa.ListArray.from_arrays(
        pa.array(offsets), values, type=_EMBEDDING, mask=None if given.all() else pa.array(~given)
    )
    words = pa.array([x.value for x in Status]).take(pa.array(codes))
    columns = [lists, pa.array(np.asarray(modality.trust[rows]), from_pandas=True), words]
    return columns if modality.sequence is None else columns + _sequence_columns(modality.sequence, rows)


def _sequence_columns(sequence: SequenceRows, rows: slice) -> list[pa.Array]:
    """The segments, their places and their trust; null for an item without any."""
    ends = np.asarray(sequence.offsets[rows.start : rows.stop + 1])
    part, bounds = slice(int(ends[0]), int(ends[-1])), pa.array((ends - ends[0]).astype(np.int32))
    none = np.diff(ends) == 0
    mask = pa.array(none) if none.any() else None
    vectors = np.asarray(sequence.segments[part])
    inner = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * np.int32(vectors.shape[1]))
    segments = pa.ListArray.from_arrays(inner, pa.array(vectors.ravel()), type=_EMBEDDING)
    trust = pa.array(np.asarray(sequence.trust[part]), from_pandas=True)
    parts = ((segments, _SEQUENCE), (pa.array(np.asarray(sequence.positions[part])), _POSITIONS), (trust, _EMBEDDING))
    return [pa.ListArray.from_arrays(bounds, values, type=kind, mask=mask) for values, kind in parts]

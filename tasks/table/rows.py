"""The rows that a run publishes: its memory-mapped arrays, and blocks of them as columns of the table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rectifier_core.base.published_records import Status
from tasks.errors import InputError
from tasks.source.config import BEHAVIOUR
from tasks.store.store import Ref

_BLOCK_BYTES = 16 << 20
_MOST_BLOCK_ROWS = 100_000
_WIDENED = {"uint8": "int16", "uint16": "int32", "uint32": "int64", "uint64": "int64"}
_UNUSABLE_NAME = re.compile(r"[ ,;{}()\n\t=]|^$")
_VECTOR = pa.list_(pa.field("element", pa.float32()))
_VECTORS = pa.list_(pa.field("element", _VECTOR))
_POSITIONS = pa.list_(pa.field("element", pa.int32()))
_WORDS = pa.array([x.value for x in Status])
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRows:
    """A sequence's arrays: ``segments`` [S, D] float32, ``trust`` [S] float32 (NaN: unknown), ``positions`` [S] int32.

    Item i owns the segments from ``offsets[i]`` up to ``offsets[i + 1]`` ([I + 1] int64).
    """

    segments: Array
    trust: Array
    positions: Array
    offsets: Array

    def most_bytes(self, rows: int) -> int:
        """Return the bytes of the longest run of ``rows`` items, wherever it starts."""
        ends = np.asarray(self.offsets)
        return int((ends[rows:] - ends[:-rows]).max()) * 4 * int(2 + self.segments.shape[1])

    def columns(self, rows: slice) -> list[pa.Array]:
        """Return the segments, positions and trust of these items, null for an item without segments."""
        ends = np.asarray(self.offsets[rows.start : rows.stop + 1])
        part, bounds = slice(int(ends[0]), int(ends[-1])), pa.array((ends - ends[0]).astype(np.int32))
        empty = np.diff(ends) == 0
        mask = pa.array(empty) if empty.any() else None
        vectors = np.asarray(self.segments[part])
        inner = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * np.int32(vectors.shape[1]))
        lists = (
            (pa.ListArray.from_arrays(inner, pa.array(vectors.ravel()), type=_VECTOR), _VECTORS),
            (pa.array(np.asarray(self.positions[part])), _POSITIONS),
            (pa.array(np.asarray(self.trust[part]), from_pandas=True), _VECTOR),
        )
        return [pa.ListArray.from_arrays(bounds, values, type=kind, mask=mask) for values, kind in lists]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityRows:
    """One modality's arrays: ``features`` [I, D] float32, ``status`` [I] int8, ``trust`` [I] float32 (NaN: unknown).

    ``moved`` [I] float32 is NaN where the item has no feature of its own. ``sequence`` is None unless the modality publishes its segments.
    """

    name: str
    features: Array
    status: Array
    trust: Array
    moved: Array
    sequence: SequenceRows | None = None

    @property
    def fields(self) -> list[pa.Field]:
        """The modality's columns in the table."""
        types = {"": _VECTOR, "_trust": pa.float32(), "_status": pa.string(), "_moved": pa.float32()}
        if self.sequence is not None:
            types |= {"_segments": _VECTORS, "_segment_positions": _POSITIONS, "_segment_trust": _VECTOR}
        return [pa.field(self.name + suffix, kind) for suffix, kind in types.items()]

    def columns(self, rows: slice) -> list[pa.Array]:
        """Return these rows of ``fields``. A missing feature is null."""
        codes = np.asarray(self.status[rows])
        vectors = _vectors(np.asarray(self.features[rows]), codes != Status.MISSING.code)
        trust, moved = (pa.array(np.asarray(x[rows]), from_pandas=True) for x in (self.trust, self.moved))
        segments = [] if self.sequence is None else self.sequence.columns(rows)
        return [vectors, trust, _WORDS.take(pa.array(codes)), moved, *segments]


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviourRows:
    """The anchors: ``vectors`` [I, A] float32, unit rows, and ``trained`` [I] bool, False for an item without interactions."""

    vectors: Array
    trained: Array

    def column(self, rows: slice) -> pa.Array:
        """Return these rows of the column ``behaviour``. An item without interactions has null."""
        return _vectors(np.asarray(self.vectors[rows]), np.asarray(self.trained[rows]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRows:
    """All rows of one run in the catalog's order. ``schema`` is that of the data files, without the partition column ``as_of``.

    ``behaviour`` is None unless the anchors are published.
    """

    item_ids: Array
    modalities: tuple[ModalityRows, ...]
    behaviour: BehaviourRows | None = None
    run_id: str
    schema: pa.Schema

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def block_rows(self) -> int:
        """The number of rows in memory at once, and in one row group of a file."""
        row_bytes = 64 + sum(4 * x.features.shape[1] for x in self.modalities)
        row_bytes += 0 if self.behaviour is None else 4 * self.behaviour.vectors.shape[1]
        rows = int(max(1, min(_MOST_BLOCK_ROWS, len(self), _BLOCK_BYTES // row_bytes)))
        # The longest sequences may lie side by side, and no block of them may pass the bound.
        while rows > 1 and sum(x.sequence.most_bytes(rows) for x in self.modalities if x.sequence) > _BLOCK_BYTES:
            rows //= 2
        return rows

    def block(self, rows: slice) -> pa.RecordBatch:
        """Return the published columns of these rows, in memory of their own."""
        ids = pa.array(self.item_ids[rows]).cast(self.schema.field("item_id").type)
        columns = [column for modality in self.modalities for column in modality.columns(rows)]
        if self.behaviour is not None:
            columns.append(self.behaviour.column(rows))
        return pa.record_batch([ids, *columns, pa.repeat(self.run_id, len(ids))], schema=self.schema)


def open_rows(
    source: Ref, rectified: Ref, run_id: str, *, sequences: bool = True, anchors: Ref | None = None
) -> PublishedRows:
    """Return the rows to publish, memory-mapped.

    Each modality m in ``meta["sequences"]`` of ``rectified`` publishes its segments too, unless ``sequences`` is False. They are
    ``segments-<m>`` and ``segment_trust-<m>`` of ``rectified``, and ``offsets-<m>`` and ``positions-<m>`` of ``source``. ``anchors`` fill
    the column ``behaviour``; without them there is none. Raises InputError for a modality whose name cannot be a column or an id that fits
    no Delta type, ValueError for arrays of other items.
    """
    item_ids = source.array("item_ids")
    segmented = rectified.meta.get("sequences", []) if sequences else []
    modalities = []
    for name in map(str, rectified.meta["features"]):
        sequence = None
        if name in segmented:
            sequence = SequenceRows(
                segments=rectified.array(f"segments-{name}"),
                trust=rectified.array(f"segment_trust-{name}"),
                positions=source.array(f"positions-{name}"),
                offsets=source.array(f"offsets-{name}"),
            )
        arrays = {field: rectified.array(f"{field}-{name}") for field in ("features", "status", "trust", "moved")}
        modalities.append(ModalityRows(name=name, sequence=sequence, **arrays))
        if len(item_ids) != len(arrays["features"]):
            raise ValueError(f"features-{name}: the arrays are not of the {len(item_ids)} items of the source")
    behaviour = None
    if anchors is not None:
        behaviour = BehaviourRows(vectors=anchors.array("items"), trained=anchors.array("trained"))
        if len(item_ids) != len(behaviour.vectors):
            raise ValueError(f"anchors: the arrays are not of the {len(item_ids)} items of the source")
    schema = _schema(modalities, _id_type(source.meta["id_type"], item_ids), behaviour is not None)
    return PublishedRows(
        item_ids=item_ids, modalities=tuple(modalities), behaviour=behaviour, run_id=run_id, schema=schema
    )


def _vectors(values: Array, present: Array) -> pa.Array:
    """Return rows of ``values`` as a column of lists, null where not ``present``."""
    offsets = np.concatenate([[0], np.cumsum(present, dtype=np.int64) * values.shape[1]]).astype(np.int32)
    numbers = pa.array((values if present.all() else values[present]).ravel())
    mask = None if present.all() else pa.array(~present)
    return pa.ListArray.from_arrays(pa.array(offsets), numbers, type=_VECTOR, mask=mask)


def _schema(modalities: list[ModalityRows], id_type: pa.DataType, behaviour: bool) -> pa.Schema:
    fields = [pa.field("item_id", id_type), *(x for m in modalities for x in m.fields)]
    fields += [pa.field(BEHAVIOUR, _VECTOR)] if behaviour else []
    fields.append(pa.field("run_id", pa.string()))
    columns = ["as_of", *(x.name.casefold() for x in fields)]
    for modality in modalities:
        taken = any(columns.count(field.name.casefold()) > 1 for field in modality.fields)
        if taken or _UNUSABLE_NAME.search(modality.name):
            raise InputError(
                f"source.modalities.{modality.name}: the name cannot be a column of the published table beside the others;"
                " rename the modality"
            )
    return pa.schema(fields)


def _id_type(name: str, item_ids: Array) -> pa.DataType:
    """Return the Delta type of the ids. Unsigned integers, which Delta lacks, get the next wider type."""
    if item_ids.dtype.kind in "US":
        return pa.string()
    if item_ids.dtype.kind not in "iu":
        raise InputError(
            f"source.item_column: an id of type {name} cannot be published; make it a string or an integer"
        )
    if item_ids.dtype == np.uint64 and int(item_ids.max(initial=0)) >= 2**63:
        raise InputError("source.item_column: an unsigned id of 2^63 or more fits no Delta type; make the ids strings")
    integer = name if re.fullmatch(r"u?int(8|16|32|64)", name) else str(item_ids.dtype)
    return pa.type_for_alias(_WIDENED.get(integer, integer))

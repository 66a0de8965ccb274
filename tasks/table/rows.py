"""The rows that a run publishes: its memory maps, and a block of them as the table's columns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.errors import InputError
from tasks.store.store import Ref
from tasks.table.columns import (
    ModalityRows,
    SequenceRows,
    check_shapes,
    most_bytes,
    published_columns,
    published_fields,
)

_BLOCK_BYTES = 16 << 20
_MOST_BLOCK_ROWS = 100_000
_WIDENED = {"uint8": "int16", "uint16": "int32", "uint32": "int64", "uint64": "int64"}
_UNUSABLE_NAME = re.compile(r"[ ,;{}()\n\t=]|^$")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRows:
    """All rows of one run, in the catalog's order; ``schema`` is that of the data files, without the partition column ``as_of``."""

    item_ids: np.ndarray[Any, Any]
    modalities: tuple[ModalityRows, ...]
    run_id: str
    schema: pa.Schema

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def block_rows(self) -> int:
        """How many rows are in memory at once, and in one row group of a file."""
        row_bytes = 64 + sum(4 * x.features.shape[1] for x in self.modalities)
        rows = int(max(1, min(_MOST_BLOCK_ROWS, len(self), _BLOCK_BYTES // row_bytes)))
        # The longest sequences may lie side by side: no block of them, wherever it starts, is to pass the same bound.
        while rows > 1 and sum(most_bytes(x.sequence, rows) for x in self.modalities if x.sequence) > _BLOCK_BYTES:
            rows //= 2
        return rows

    def block(self, rows: slice) -> pa.RecordBatch:
        """The published columns of these rows, in memory of their own."""
        ids = pa.array(self.item_ids[rows]).cast(self.schema.field("item_id").type)
        columns = [ids]
        for modality in self.modalities:
            columns += published_columns(modality, rows)
        return pa.record_batch([*columns, pa.repeat(self.run_id, len(ids))], schema=self.schema)


def open_rows(source: Ref, rectified: Ref, run_id: str, *, sequences: bool = True) -> PublishedRows:
    """The rows to publish, memory-mapped.

    Of each modality m that ``meta["sequences"]`` of ``rectified`` lists, unless ``sequences`` is False, the segments as well:
    ``segments-<m>`` and ``segment_trust-<m>`` of ``rectified`` with ``offsets-<m>`` and ``positions-<m>`` of ``source``.

    Raises InputError for a modality whose name cannot be a column or an id that fits no Delta type, ValueError for arrays that do not fit
    together.
    """
    item_ids = source.array("item_ids")
    meta = rectified.meta
    names, segmented = [str(x) for x in meta["features"]], meta.get("sequences", []) if sequences else []
    modalities = tuple(
        ModalityRows(
            name=name,
            features=rectified.array(f"features-{name}"),
            status=rectified.array(f"status-{name}"),
            trust=rectified.array(f"trust-{name}"),
            sequence=_open_sequence(source, rectified, name) if name in segmented else None,
        )
        for name in names
    )
    for modality in modalities:
        check_shapes(modality, len(item_ids))
    return PublishedRows(
        item_ids=item_ids,
        modalities=modalities,
        run_id=run_id,
        schema=_schema(modalities, _id_type(source.meta["id_type"], item_ids)),
    )


def _open_sequence(source: Ref, rectified: Ref, name: str) -> SequenceRows:
    return SequenceRows(
        segments=rectified.array(f"segments-{name}"),
        trust=rectified.array(f"segment_trust-{name}"),
        positions=source.array(f"positions-{name}"),
        offsets=source.array(f"offsets-{name}"),
    )


def _schema(modalities: tuple[ModalityRows, ...], id_type: pa.DataType) -> pa.Schema:
    own = {modality.name: published_fields(modality) for modality in modalities}
    fields = [
        pa.field("item_id", id_type),
        *(field for found in own.values() for field in found),
        pa.field("run_id", pa.string()),
    ]
    columns = ["as_of", *(x.name.casefold() for x in fields)]
    for name, found in own.items():
        if _UNUSABLE_NAME.search(name) or any(columns.count(field.name.casefold()) > 1 for field in found):
            raise InputError(
                f"source.modalities.{name}: the name cannot be a column of the published table beside the others; rename the modality"
            )
    return pa.schema(fields)


def _id_type(name: str, item_ids: np.ndarray[Any, Any]) -> pa.DataType:
    if item_ids.dtype.kind in "US":
        return pa.string()
    if item_ids.dtype.kind not in "iu":
        raise InputError(
            f"source.item_column: an id of type {name} cannot be published; make it a string or an integer"
        )
    given = name if name in _WIDENED or re.fullmatch(r"int(8|16|32|64)", name) else str(item_ids.dtype)
    if item_ids.dtype == np.uint64 and int(item_ids.max(initial=0)) >= 2**63:
        raise InputError("source.item_column: an unsigned id of 2^63 or more fits no Delta type; make the ids strings")
    return pa.type_for_alias(_WIDENED.get(given, given))

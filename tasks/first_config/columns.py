"""The columns of an input that no config names yet, as ``tasks/source`` reads their values: ids, times, vectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import InputError
from tasks.source.columns.arrow import is_bytes, is_text, plain_type
from tasks.source.columns.ids import holds_uuids, read_ids
from tasks.source.columns.times import COARSE, UNIT_NAMES
from tasks.source.columns.vectors import Format, as_lists, embedding_kind, lengths, unreadable
from tasks.source.config import PUBLISHED, SourceConfig
from tasks.source.files import ParquetFiles, list_files_of, open_parquet
from tasks.source.footers import Footer, Problems, read_footers, sample
from tasks.source.time_unit import read_time_column

T = TypeVar("T")
TIME_NAME = re.compile(r".*(time|date|day|timestamp|_at|_ts|_on)|ts|at", re.I)
_EMBEDDING = re.compile(r"_?(embeddings?|emb|vectors?|vec|features?|feats?)$", re.I)
SAMPLE, FEW = 20_000, 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The newest file of an input that has rows: the types of its columns by name, samples of their values, and the input's days."""

    uri: str
    files: ParquetFiles
    footer: Footer
    days: tuple[str, ...]
    _samples: dict[tuple[str, int], pa.Array] = field(default_factory=dict)

    @classmethod
    def of(cls, uri: str) -> Columns:
        """Raises InputError if the input cannot be read, or has no rows."""
        listing = list_files_of(uri)
        everything = listing.everything
        for file in reversed(everything.files):
            files = replace(everything, files=(file,))
            with open_parquet(files.filesystem, file, {}) as parquet:
                names = parquet.schema_arrow.names
            for footer in read_footers(files, {x: x for x in names if names.count(x) == 1}, Problems()):
                days = tuple(listing.days.label(day) for day in listing.by_day)
                return cls(uri=uri, files=files, footer=footer, days=days)
        raise InputError(f"{uri}: has no rows, so what its columns hold is unknown")

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The plain type of each column."""
        return {name: plain_type(kind) for name, kind in self.footer.types.items()}

    def sample(self, column: str, rows: int = FEW) -> pa.Array:
        """The first values of a column."""
        if (column, rows) not in self._samples:
            found = next(sample(self.files, [self.footer], column, rows), None)
            self._samples[column, rows] = pa.nulls(0) if found is None else found[1]
        return self._samples[column, rows]

    def ids(self) -> list[str]:
        """The columns whose values are ids."""
        flat = [x for x, kind in self.types.items() if not pa.types.is_nested(kind) and not pa.types.is_null(kind)]
        return [x for x in flat if self._holds_ids(x)]

    def _holds_ids(self, column: str) -> bool:
        kind, file = self.types[column], self.footer.file
        if not (is_text(kind) or is_bytes(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            return bool(pa.types.is_decimal(kind) and kind.scale == 0)
        # A picture is bytes too; a few are enough to see that.
        values = self.sample(column, 20 if is_bytes(kind) else FEW)
        ids = _accepted(lambda: read_ids(values, is_bytes(kind) and holds_uuids(values), file, column))
        return ids is not None and ids.null_count < len(ids)

    def distinct(self, column: str) -> bool:
        """Whether no value of the sample comes twice."""
        values = self.sample(column, SAMPLE)
        return len(values) > 0 and pc.count_distinct(values).as_py() == len(values)

    def embedding_kind(self, column: str) -> str | None:
        """ "vector" or "sequence", None for any other column."""
        return _accepted(lambda: embedding_kind(self.footer.types[column], self.footer.file, "", "", None))

    def time_unit(self, column: str) -> str | None:
        """In words what the times of a column are, None if it holds no times."""
        config = SourceConfig(
            catalog=self.uri,
            interactions=self.uri,
            item_column=column,
            user_column=column,
            time_column=column,
            modalities={"none": column},
        )
        reading = _accepted(lambda: read_time_column(self.files, [self.footer], config))
        if reading is None or not reading.seconds(self.sample(column))[2].any():
            return None
        kind = self.types[column]
        small = reading.unit in COARSE and not is_text(kind)
        if small and not TIME_NAME.fullmatch(column):
            # Small numbers are days or minutes only in a column that is named like a time.
            return None
        return str(kind) if reading.unit is None else UNIT_NAMES[reading.unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A column of vectors, with the ``doubt`` that is left, if any. ``format`` is what its text or bytes need in ``vector_formats``."""

    column: str
    doubt: str
    format: Format | None = None

    @property
    def modality(self) -> str:
        """The name of its modality."""
        name = re.sub(r"\W", "_", _EMBEDDING.sub("", self.column), flags=re.ASCII).lower().strip("_")[:60]
        # The published table has columns of its own.
        return name if re.match(r"[a-z]", name) and name not in PUBLISHED else f"m_{name}" if name else "embedding"


def find_embeddings(catalog: Columns) -> list[Embedding]:
    """The columns of vectors in any form that a run reads, in the file's order."""
    found: list[Embedding] = []
    for column, kind in catalog.types.items():
        if is_bytes(kind) and _EMBEDDING.search(column):
            found.append(Embedding(column=column, doubt="bytes, whose format nobody can tell", format="float32"))
        elif is_text(kind):
            values = catalog.sample(column).drop_null()
            lists = as_lists(values, "json") if _looks_like_json(values) else None
            if lists is not None and not unreadable(lists).any():
                found.append(Embedding(column=column, doubt=_doubt(lists, column), format="json"))
        elif pa.types.is_nested(kind):
            what = catalog.embedding_kind(column)
            if what is not None:
                lists = as_lists(catalog.sample(column))
                found.append(Embedding(column=column, doubt="" if what == "sequence" else _doubt(lists, column)))
    return found


def _looks_like_json(values: pa.Array) -> bool:
    return len(values) > 0 and bool(values[0].as_py().lstrip().startswith("["))


def _doubt(lists: pa.Array, column: str) -> str:
    """Why lists of numbers may be no vectors: ids and tags are whole numbers, a history has any length. Empty where there is no doubt."""
    widths = np.unique(lengths(lists))
    widths = widths[widths > 0]
    if len(widths) != 1:
        return "lists of different lengths" if len(widths) else "no value"
    if _EMBEDDING.search(column):
        return ""
    if pa.types.is_integer(lists.type.value_type):
        return "lists of whole numbers, which may be ids"
    return "" if widths[0] > 1 else "lists of one number"


def _accepted(read: Callable[[], T]) -> T | None:
    """What ``read`` returns, None where it refuses the values."""
    try:
        return read()
    except InputError:
        return None

"""What the footers of Parquet files tell without reading a row: columns, types, and the range of values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.errors import InputError
from tasks.object_store import StoredFile, reading
from tasks.source.columns.arrow import plain_type, plain_values
from tasks.source.files import ParquetFiles, check_column, open_parquet

T = TypeVar("T")
_READERS = 8


@dataclass(slots=True)
class Problems:
    """Mistakes that were found. The first one is raised, unless ``collect``: then all are kept as lines."""

    collect: bool = False
    found: list[str] = field(default_factory=list)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Keep an InputError of the block if mistakes are collected."""
        try:
            yield
        except InputError as error:
            if not self.collect:
                raise
            if str(error) not in self.found:
                self.found.append(str(error))

    def attempt(self, work: Callable[[], T]) -> T | None:
        """The result of ``work``, or None where it raised an InputError that is kept."""
        result = None
        with self.caught():
            result = work()
        return result


@dataclass(frozen=True, slots=True)
class Footer:
    """One file with rows: its number of rows, the type of each wanted column, and the least and largest value [2] where the file has them."""

    file: StoredFile
    rows: int
    types: Mapping[str, pa.DataType]
    ranges: Mapping[str, pa.Array]


def read_footers(files: ParquetFiles, columns: Mapping[str, str], problems: Problems) -> list[Footer]:
    """The footers of the files that have rows. ``columns`` maps each wanted column to its config key.

    Raises InputError for a file that is gone or unreadable, or lacks a column; with collected problems such a column is left out.
    """

    def read(file: StoredFile) -> Footer | list[InputError]:
        mistakes: list[InputError] = []
        types: dict[str, pa.DataType] = {}
        try:
            with open_parquet(files.filesystem, file, {}) as parquet:
                rows, schema = parquet.metadata.num_rows, parquet.schema_arrow
                for column, key in columns.items() if rows else ():
                    try:
                        check_column(file, schema.names, column, key)
                        types[column] = schema.field(column).type
                    except InputError as error:
                        mistakes.append(error)
                return mistakes or Footer(file, rows, types, _ranges(parquet, types))
        except InputError as error:
            return [error]

    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(read, files.files))
    footers = []
    for entry in found:
        if isinstance(entry, Footer):
            footers += [entry] if entry.rows else []
            continue
        for error in entry:
            with problems.caught():
                raise error
    return footers


def _ranges(parquet: pq.ParquetFile, types: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
    """The range of each flat column, where every row group with values states it."""
    metadata = parquet.metadata
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    names = [groups[0].column(at).path_in_schema for at in range(metadata.num_columns)] if groups else []
    found = {}
    for index, name in enumerate(names):
        chunks = [group.column(index) for group in groups] if name in types else []
        ends = [value_range(chunk, types[name]) for chunk in chunks if not _all_null(chunk)]
        known = [x for x in ends if x is not None]
        if known and len(known) == len(ends):
            with suppress(pa.ArrowNotImplementedError):
                whole = pc.min_max(pa.concat_arrays(known))
                found[name] = pa.array([whole["min"], whole["max"]], known[0].type)
    return found


def value_range(chunk: pq.ColumnChunkMetaData, kind: pa.DataType) -> pa.Array | None:
    """The least and the largest value [2] of a column of this type in one row group, None where the statistics do not say."""
    # Some types have statistics that Python has no value for.
    with suppress(ValueError, OverflowError, TypeError, pa.ArrowException):
        known = chunk.statistics
        if known is not None and known.has_min_max:
            return pa.array([known.min, known.max], plain_type(kind))
    return None


def _all_null(chunk: pq.ColumnChunkMetaData) -> bool:
    known = chunk.statistics
    return known is not None and known.has_null_count and known.null_count == chunk.num_values


def sample(
    files: ParquetFiles, footers: Sequence[Footer], column: str, rows: int
) -> Iterator[tuple[StoredFile, pa.Array]]:
    """The first rows of a column in each of these files, with plain values. Raises InputError."""
    for footer in footers:
        with open_parquet(files.filesystem, footer.file, {}) as parquet, reading(footer.file.uri):
            batch = next(parquet.iter_batches(rows, columns=[column]), None)
        if batch is not None:
            yield footer.file, plain_values(batch.column(0))


def types_of(footers: Iterable[Footer], column: str) -> list[pa.DataType]:
    """The distinct types of a column without dictionaries and extension types, those of nulls left out."""
    found = dict.fromkeys(plain_type(footer.types[column]) for footer in footers if column in footer.types)
    return [kind for kind in found if not pa.types.is_null(kind)]

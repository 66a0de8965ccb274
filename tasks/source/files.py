"""Which Parquet files a run reads, and reading them batch by batch in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError
from tasks.object_store import StoredFile, changed_since, list_files, reading
from tasks.source.arrow_columns import plain_values

PARTITION = "dt="
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
# Parquet column chunks are read through a buffer of this many bytes: without one, pyarrow holds each chunk of a row group whole.
READ_BUFFER = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFiles:
    """The files of one input, in reading order; ``partitioned`` when they lie in ``dt=YYYY-MM-DD`` folders."""

    uri: str
    filesystem: fs.FileSystem
    files: tuple[StoredFile, ...]
    partitioned: bool

    @property
    def fingerprint(self) -> list[list[str | int]]:
        """Path, size and modification time of each file."""
        return [[x.uri, x.size, x.modified_ns] for x in self.files]

    def raise_if_changed(self) -> None:
        """Raises InputError if a file was overwritten since it was listed: what was read may be half old, half new."""
        changed = changed_since(self.filesystem, self.files)
        if changed is not None:
            raise InputError(
                f"{changed.uri}: was overwritten while it was being read; run again when nothing writes to it"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All files of one input, and the same by ``dt=`` day in order (empty without such partitions)."""

    everything: ParquetFiles
    by_day: Mapping[date, tuple[StoredFile, ...]]

    def catalog(self, as_of: date) -> ParquetFiles:
        """The newest snapshot not after a day, or all files without partitions. Raises InputError if there is none."""
        if not self.by_day:
            return self.everything
        days = [day for day in self.by_day if day <= as_of]
        if not days:
            raise InputError(
                f"{self.everything.uri}: no catalog snapshot on or before {as_of}; the oldest is dt={min(self.by_day)}"
            )
        return replace(self.everything, files=self.by_day[days[-1]])

    def log(self, as_of: date, lookback_days: int | None) -> ParquetFiles:
        """The partitions of the ``lookback_days`` days that end with ``as_of``, or all files without partitions.

        Raises InputError if no partition is left.
        """
        if not self.by_day:
            return self.everything
        first = date.fromordinal(1 if lookback_days is None else max(1, as_of.toordinal() + 1 - lookback_days))
        files = tuple(file for day, of_day in self.by_day.items() if first <= day <= as_of for file in of_day)
        if not files:
            since = "" if lookback_days is None else f" from {first} on (source.lookback_days = {lookback_days})"
            range_ = f"it holds dt={min(self.by_day)} to dt={max(self.by_day)}"
            raise InputError(
                f"{self.everything.uri}: no interactions left: no partition up to {as_of}{since}; {range_}"
            )
        return replace(self.everything, files=files)


def list_input(uri: str) -> Listing:
    """List the files of an input. Raises InputError if only some of them lie in ``dt=`` partitions."""
    filesystem, files = list_files(uri)
    by_day: dict[date | None, list[StoredFile]] = {}
    for file in files:
        by_day.setdefault(_partition_day(file), []).append(file)
    unpartitioned = by_day.pop(None, [])
    if by_day and unpartitioned:
        raise InputError(
            f"{unpartitioned[0].uri}: lies outside the dt= partitions of {uri}; move it into one or take it away"
        )
    everything = ParquetFiles(uri=uri, filesystem=filesystem, files=files, partitioned=bool(by_day))
    dated = {day: tuple(of_day) for day, of_day in by_day.items() if day is not None}
    return Listing(everything=everything, by_day=dict(sorted(dated.items())))


def _partition_day(file: StoredFile) -> date | None:
    """The day of the innermost ``dt=`` folder above a file. Raises InputError if it is no day."""
    partitions = [folder for folder in file.path.split("/")[:-1] if folder.startswith(PARTITION)]
    if not partitions:
        return None
    day = partitions[-1].removeprefix(PARTITION)
    try:
        if DAY.fullmatch(day):
            return date.fromisoformat(day)
    except ValueError:
        pass
    raise InputError(f"{file.uri}: its partition {partitions[-1]!r} is no day; wanted dt=YYYY-MM-DD")


@contextmanager
def open_parquet(filesystem: fs.FileSystem, file: StoredFile, columns: Mapping[str, str]) -> Iterator[pq.ParquetFile]:
    """Open one file; ``columns`` maps each column that will be read to the config key that asked for it.

    Raises InputError if the file is gone or unreadable, or lacks a column.
    """
    with reading(file.uri):
        source = filesystem.open_input_file(file.path)
    with source:
        with reading(file.uri):
            parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=READ_BUFFER, page_checksum_verification=True)
        names = parquet.schema_arrow.names
        for column, key in columns.items():
            if column not in names:
                shown = ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
                raise InputError(f"{file.uri}: no column {column!r} ({key}); it has {shown or 'no columns'}")
            if names.count(column) > 1:
                raise InputError(
                    f"{file.uri}: {names.count(column)} columns are called {column!r} ({key}); rename all but one"
                )
        yield parquet


def stream(
    files: ParquetFiles,
    columns: Mapping[str, str],
    batch_rows: int,
    progress: Progress = silent,
    what: str = "",
    row_groups: Callable[[pq.ParquetFile, StoredFile], Sequence[int] | None] = lambda parquet, file: None,
) -> Iterator[tuple[StoredFile, pa.RecordBatch]]:
    """The rows of all files in order, with plain values, at most ``batch_rows`` at a time. Progress counts bytes of the files.

    ``row_groups`` gets each file when it is opened and returns the row groups to read (None: all). Raises InputError for a broken file.
    """
    total, previous_files = sum(file.size for file in files.files), 0
    for file in files.files:
        with open_parquet(files.filesystem, file, columns) as parquet:
            rows_read, num_rows = 0, max(1, parquet.metadata.num_rows)
            selected = row_groups(parquet, file)
            with reading(file.uri):
                batches = parquet.iter_batches(batch_rows, columns=list(columns), row_groups=selected)
            while True:
                with reading(file.uri):
                    batch = next(batches, None)
                if batch is None:
                    break
                plain = [plain_values(column) for column in batch.columns]
                yield file, pa.RecordBatch.from_arrays(plain, names=batch.schema.names)
                rows_read += batch.num_rows
                progress(what, previous_files + file.size * rows_read // num_rows, total)
        previous_files += file.size
    progress(what, total, total)


def in_blocks(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly ``rows`` rows, except for the last."""
    pending: list[pa.Table] = []
    count = 0
    for table in tables:
        pending.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(pending)
            yield whole.slice(0, rows).combine_chunks()
            pending, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(pending).combine_chunks()

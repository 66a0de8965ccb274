"""Which Parquet files a run reads, and reading them batch by batch in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError
from tasks.object_store import StoredFile, changed_since, list_files, reading
from tasks.source.columns.arrow import plain_values
from tasks.source.config import SourceConfig
from tasks.source.layout.partitions import DayFolders, by_days, folders_below
from tasks.source.layout.table_formats import check_folders, delta_root, open_delta

# Parquet column chunks are read through a buffer of this many bytes: without one, pyarrow holds each chunk of a row group whole.
READ_BUFFER = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFiles:
    """The files of one input, in reading order.

    ``partitioned`` when they lie in day folders; ``undated`` are those of the partition without a day. ``what`` names the choice in words.
    ``fixed`` files are never overwritten, as those of a Delta table.
    """

    uri: str
    filesystem: fs.FileSystem
    files: tuple[StoredFile, ...]
    partitioned: bool
    undated: tuple[StoredFile, ...] = ()
    what: str = ""
    fixed: bool = False

    @property
    def fingerprint(self) -> list[list[str | int]]:
        """Path, size and modification time of each file."""
        return [[x.uri, x.size, x.modified_ns] for x in (*self.files, *self.undated)]

    def raise_if_changed(self) -> None:
        """Raises InputError if a file was overwritten since it was listed: what was read may be half old, half new."""
        if self.fixed or not self.files:
            return
        changed = changed_since(self.filesystem, self.files)
        if changed is not None:
            raise InputError(
                f"{changed.uri}: was overwritten while it was being read; run again when nothing writes to it"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All files of one input, and the same by day in order (``days.by_day`` is empty without day folders).

    ``version_of`` reads a Delta table without day folders as of a day.
    """

    everything: ParquetFiles
    days: DayFolders
    version_of: Callable[[date], ParquetFiles] | None = None

    @property
    def by_day(self) -> Mapping[date, tuple[StoredFile, ...]]:
        """The files of each day, oldest first."""
        return self.days.by_day

    def catalog(self, as_of: date) -> ParquetFiles:
        """The newest snapshot not after a day, or all files without day folders. Raises InputError if there is none."""
        if not self.by_day:
            return self.everything if self.version_of is None else self.version_of(as_of)
        days = [day for day in self.by_day if day <= as_of]
        if not days:
            raise InputError(
                f"{self.everything.uri}: no catalog snapshot on or before {as_of}; the oldest is {self.days.label(min(self.by_day))}"
            )
        what = f"{self.everything.what}snapshot {self.days.label(days[-1])}, of {len(self.by_day):,}"
        return replace(self.everything, files=self.by_day[days[-1]], undated=self.days.undated, what=what)

    def log(self, as_of: date, lookback_days: int | None) -> ParquetFiles:
        """The files of the ``lookback_days`` days that end with ``as_of``, or all files without day folders.

        Raises InputError if no file is left.
        """
        if not self.by_day:
            return self.everything
        first = date.fromordinal(1 if lookback_days is None else max(1, as_of.toordinal() + 1 - lookback_days))
        days = [day for day in self.by_day if first <= day <= as_of]
        oldest, newest = self.days.label(min(self.by_day)), self.days.label(max(self.by_day))
        if not days:
            since = "" if lookback_days is None else f" from {first} on (source.lookback_days = {lookback_days})"
            raise InputError(
                f"{self.everything.uri}: no interactions left: no partition up to {as_of}{since}; it holds {oldest} to {newest}"
            )
        files = tuple(file for day in days for file in self.by_day[day])
        what = f"{self.everything.what}{len(days):,} of {len(self.by_day):,} day folders, {self.days.label(days[0])} to {self.days.label(days[-1])}"
        return replace(self.everything, files=files, undated=self.days.undated, what=what)


def list_catalog(config: SourceConfig) -> Listing:
    """List the catalog. Raises InputError where it is missing or its days cannot be read."""
    return _listed(config.catalog, "catalog", config.catalog_partition, config.catalog_version)


def list_log(config: SourceConfig) -> Listing:
    """List the interaction log. Raises InputError where it is missing or its days cannot be read."""
    return _listed(config.interactions, "interactions", config.interactions_partition, config.interactions_version)


def list_files_of(uri: str) -> Listing:
    """List an input that no config names yet. Raises InputError where it is missing or its days cannot be read."""
    return _listed(uri, "catalog", None, None)


def _listed(uri: str, name: str, partition: str | None, version: int | None) -> Listing:
    key, versions = f"source.{name}_partition", f"source.{name}_version"
    if delta_root(uri):
        return _delta_listing(uri, key, partition, versions, version)
    if version is not None:
        raise InputError(f"{versions} = {version}: {uri} is no Delta table; leave the key out")
    listed = list_files(uri, check_folders)
    days = by_days(uri, folders_below(listed.files, listed.folder), key, partition)
    everything = ParquetFiles(
        uri=uri,
        filesystem=listed.filesystem,
        files=listed.files,
        partitioned=bool(days.by_day),
        what="" if days.by_day else "no day folders",
    )
    return Listing(everything=everything, days=days)


def _delta_listing(uri: str, key: str, partition: str | None, versions: str, version: int | None) -> Listing:
    newest = open_delta(uri, versions, version)
    days = by_days(uri, newest.folders, key, partition)

    def files(until: date | None) -> ParquetFiles:
        found = newest if until is None else open_delta(uri, versions, None, until)
        what = f"{found.what}, " if days.by_day else found.what
        return ParquetFiles(
            uri=uri,
            filesystem=found.filesystem,
            files=tuple(found.folders),
            partitioned=bool(days.by_day),
            what=what,
            fixed=True,
        )

    as_of = None if days.by_day or version is not None else files
    return Listing(everything=files(None), days=days, version_of=as_of)


@contextmanager
def open_parquet(filesystem: fs.FileSystem, file: StoredFile, columns: Mapping[str, str]) -> Iterator[pq.ParquetFile]:
    """Open one file; ``columns`` maps each column that will be read to the config key that asked for it.

    A file without rows may lack any of them: tools write no columns for an empty table. Raises InputError if the file is gone or
    unreadable, or lacks a column.
    """
    with reading(file.uri):
        source = filesystem.open_input_file(file.path)
    with source:
        with reading(file.uri):
            parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=READ_BUFFER, page_checksum_verification=True)
        names = parquet.schema_arrow.names
        for column, key in columns.items() if parquet.metadata.num_rows else ():
            check_column(file, names, column, key)
        yield parquet


def check_column(file: StoredFile, names: Sequence[str], column: str, key: str) -> None:
    """Raise InputError unless a file with these ``names`` of columns has exactly one of this name, which the config ``key`` asks for."""
    if column not in names:
        raise InputError(_no_column(file, column, key, names))
    if names.count(column) > 1:
        raise InputError(f"{file.uri}: {names.count(column)} columns are called {column!r} ({key}); rename all but one")


def _no_column(file: StoredFile, column: str, key: str, names: Sequence[str]) -> str:
    if any(folder.startswith(f"{column}=") for folder in file.path.split("/")[:-1]):
        way = "leave the key out" if key == "source.time_column" else "write it into the files"
        return f"{file.uri}: no column {column!r} ({key}); {column}= is only in the folders' names; {way}"
    shown = ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
    return f"{file.uri}: no column {column!r} ({key}); it has {shown or 'no columns'}"


def stream(
    files: ParquetFiles,
    columns: Mapping[str, str],
    batch_rows: int,
    progress: Progress = silent,
    what: str = "",
    row_groups: Callable[[pq.ParquetFile, StoredFile], Sequence[int] | None] = lambda parquet, file: None,
) -> Iterator[tuple[StoredFile, pa.RecordBatch]]:
    """The rows of all files in order, at most ``batch_rows`` at a time. Progress counts bytes of the files.

    ``row_groups`` gets each file when it is opened and returns the row groups to read (None: all). Raises InputError for a broken file.
    """
    total, previous_files = sum(file.size for file in files.files), 0
    for file in files.files:
        # The next batch is decoded while the caller works on this one.
        with open_parquet(files.filesystem, file, columns) as parquet, ThreadPoolExecutor(1) as ahead:
            rows_read, num_rows = 0, parquet.metadata.num_rows
            selected = row_groups(parquet, file) if num_rows else []
            with reading(file.uri):
                batches = parquet.iter_batches(batch_rows, columns=list(columns), row_groups=selected)
            decoded = ahead.submit(next, batches, None)
            while num_rows:
                with reading(file.uri):
                    batch = decoded.result()
                if batch is None:
                    break
                decoded = ahead.submit(next, batches, None)
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

"""Which Parquet files a run reads, and reading them batch by batch in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import date
from typing import TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rectifier_core.base.numerics import Progress
from tasks.errors import InputError
from tasks.object_store import StoredFile, changed_since, list_files, reading

T = TypeVar("T")
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
        """What tells these very files, as they are now, from any others: path, size and modification time of each."""
        return [[x.uri, x.size, x.modified_ns] for x in self.files]

    def raise_if_changed(self) -> None:
        """Raises InputError if a file was overwritten since it was listed: what was read may be half old, half new."""
        changed = changed_since(self.filesystem, self.files)
        if changed is not None:
            raise InputError(
                f"{changed.uri}: was overwritten while it was being read; run again when nothing writes to it"
            )


Listed = tuple[ParquetFiles, dict[date, tuple[StoredFile, ...]]]


def list_input(uri: str) -> Listed:
    """All files of an input, and the same by ``dt=`` day (empty without such partitions). Raises InputError if only some have a day."""
    filesystem, files = list_files(uri)
    by_day: dict[date, list[StoredFile]] = {}
    for file in files:
        day = partition_day(file)
        if day is not None:
            by_day.setdefault(day, []).append(file)
    dated = sum(map(len, by_day.values()))
    if by_day and dated < len(files):
        stray = next(x.uri for x in files if partition_day(x) is None)
        raise InputError(
            f"{stray}: lies outside the dt= partitions that other files of {uri} lie in; move it into one or take it away"
        )
    everything = ParquetFiles(uri=uri, filesystem=filesystem, files=files, partitioned=bool(by_day))
    return everything, {day: tuple(found) for day, found in sorted(by_day.items())}


def partition_day(file: StoredFile) -> date | None:
    """The day of the innermost ``dt=`` folder above a file. Raises InputError if it is no day."""
    named = [x for x in file.path.split("/")[:-1] if x.startswith(PARTITION)]
    if not named:
        return None
    text = named[-1].removeprefix(PARTITION)
    try:
        if DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise InputError(f"{file.uri}: its partition {named[-1]!r} is no day; wanted dt=YYYY-MM-DD")


def catalog_files(uri: str, as_of: date) -> ParquetFiles:
    """The catalog as of a day: with ``dt=`` partitions the newest snapshot not after it. Raises InputError if there is none."""
    return snapshot_of(list_input(uri), as_of)


def snapshot_of(listed: Listed, as_of: date) -> ParquetFiles:
    """The same from a listing."""
    everything, by_day = listed
    if not by_day:
        return everything
    days = [day for day in by_day if day <= as_of]
    if not days:
        raise InputError(f"{everything.uri}: no catalog snapshot on or before {as_of}; the oldest is dt={min(by_day)}")
    return replace(everything, files=by_day[days[-1]])


def interaction_files(uri: str, as_of: date, lookback_days: int | None) -> ParquetFiles:
    """The files of the log that a run of that day may open: partitions in ``(as_of - lookback_days, as_of]``, or all where there are none.

    Raises InputError if no partition is left.
    """
    return log_of(list_input(uri), as_of, lookback_days)


def log_of(listed: Listed, as_of: date, lookback_days: int | None) -> ParquetFiles:
    """The same from a listing."""
    everything, by_day = listed
    if not by_day:
        return everything
    first = date.min if lookback_days is None else first_day(as_of, lookback_days)
    files = tuple(file for day, found in by_day.items() if first <= day <= as_of for file in found)
    if not files:
        since = "" if lookback_days is None else f" from {first} on (source.lookback_days = {lookback_days})"
        held = f"it holds dt={min(by_day)} to dt={max(by_day)}"
        raise InputError(f"{everything.uri}: no interactions left: no partition up to {as_of}{since}; {held}")
    return replace(everything, files=files)


def first_day(as_of: date, lookback_days: int) -> date:
    """The oldest day of a window of ``lookback_days`` whole days that ends with ``as_of``."""
    return date.fromordinal(max(1, as_of.toordinal() + 1 - lookback_days))


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


def batches(
    parquet: pq.ParquetFile,
    file: StoredFile,
    columns: Sequence[str],
    batch_rows: int,
    row_groups: Sequence[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of an open file in order, only these columns, at most ``batch_rows`` at a time. Raises InputError if the file is broken."""
    with reading(file.uri):
        for batch in parquet.iter_batches(batch_size=batch_rows, columns=list(columns), row_groups=row_groups):
            yield _without_views(batch)


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    # Arrow has no kernel that filters views of text.
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    schema = pa.schema([x.with_type(plain.get(x.type, x.type)) for x in batch.schema])
    return batch if schema == batch.schema else batch.cast(schema)


def stream(
    files: ParquetFiles,
    columns: Mapping[str, str],
    batch_rows: int,
    progress: Progress,
    what: str,
    row_groups: Callable[[pq.ParquetFile, StoredFile], Sequence[int] | None] = lambda parquet, file: None,
) -> Iterator[tuple[StoredFile, pa.RecordBatch]]:
    """The rows of all files in order, batch by batch; progress counts bytes of the files.

    ``row_groups`` looks at each file as it is opened and says which of its row groups to read (None: all).
    """
    total, before = sum(x.size for x in files.files), 0
    for file in files.files:
        with open_parquet(files.filesystem, file, columns) as parquet:
            done, rows = 0, max(1, parquet.metadata.num_rows)
            for batch in batches(parquet, file, list(columns), batch_rows, row_groups(parquet, file)):
                yield file, batch
                done += batch.num_rows
                progress(what, before + file.size * done // rows, total)
        before += file.size
    progress(what, total, total)


def ahead(given: Iterator[T]) -> Iterator[T]:
    """The same in the same order, the next one already made by another thread while one is looked at."""
    end = object()

    def draw() -> T | object:
        return next(given, end)

    # What a thread says is logged with the run it works for.
    context = copy_context()
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: Future[T | object] = pool.submit(context.run, draw)
        while (found := waiting.result()) is not end:
            waiting = pool.submit(context.run, draw)
            yield cast(T, found)


def in_blocks(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly ``rows`` rows, but for the last."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows).combine_chunks()
            held, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held).combine_chunks()

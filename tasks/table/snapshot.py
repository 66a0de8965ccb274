"""One day of one version of the published table, read in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable

from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError
from tasks.source.config import BEHAVIOUR, MODALITY
from tasks.source.files import READ_BUFFER, in_blocks
from tasks.table.config import PublishConfig
from tasks.table.embedding_models import named_models
from tasks.table.files import TableFiles, storage_errors
from tasks.table.log import LOOK, DataFile, LogEntry, commit_of, days_shown, open_table, read_log, visible_files

READ_AGAIN = "nothing was written; ask for a version whose files are still there, or try again"
POSITIONS = "_segment_positions"
_BLOCK_BYTES = 32 << 20
_MOST_BLOCK_ROWS = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotModality:
    """One modality of a snapshot.

    ``segments`` is their number in all items, None if none are published. ``embedding_model`` is None if the commit does not name it.
    """

    name: str
    width: int
    segments: int | None = None
    embedding_model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The rows that ``version`` of the table at ``uri`` shows for ``day`` (YYYY-MM-DD), in the order they were published.

    ``table_id`` is Delta's id of the table, ``log`` its commits, oldest first, and ``files`` are those of all days of the version.
    ``schema`` is that of the data files ``paths``, without ``as_of``. ``commit`` is the info of the commit that published the day, empty if
    the log no longer holds it. ``longest_id`` is the number of characters of the longest text id, 0 for integers. ``behaviour`` is the
    width of the anchors, None if they are not published.
    """

    uri: str
    table_id: str
    log: tuple[LogEntry, ...]
    version: int
    files: tuple[DataFile, ...]
    day: str
    paths: tuple[str, ...]
    schema: pa.Schema
    rows: int
    modalities: tuple[SnapshotModality, ...]
    longest_id: int
    behaviour: int | None = None
    commit: Mapping[str, Any] = field(default_factory=dict)

    @property
    def block_rows(self) -> int:
        """The number of rows in memory at once. It depends on the rows only, not on the files, so exports have the same bytes."""
        row_bytes = 64 + 4 * (self.behaviour or 0)
        row_bytes += sum(4 * x.width + 4 * (x.width + 2) * (x.segments or 0) // self.rows for x in self.modalities)
        return int(min(_MOST_BLOCK_ROWS, 1 << max(0, (_BLOCK_BYTES // row_bytes).bit_length() - 1)))

    def blocks(
        self, columns: Sequence[str], progress: Progress = silent, what: str = "exporting rows"
    ) -> Iterator[pa.Table]:
        """Yield these columns, ``block_rows`` rows at a time. Raises StorageError if a file cannot be read."""
        done = 0
        for block in in_blocks(_tables(self.uri, self.paths, columns, self.block_rows), self.block_rows):
            yield block
            done += len(block)
            progress(what, done, self.rows)


def open_snapshot(config: PublishConfig, *, version: int | None = None, day: date | None = None) -> Snapshot:
    """Return one day of one version; by default the newest day of the newest version.

    Raises InputError for a table, version or day that does not exist, StorageError if it cannot be read.
    """
    uri, table = config.uri, existing_table(config)
    version = table.version() if version is None else version
    with storage_errors(uri, "reading its versions", LOOK):
        log = read_log(TableFiles(uri))
    shown = files_of_version(config, log, version, asked="--version")
    days = days_shown(shown)
    if not days:
        raise InputError(f"publish.uri: version {version} of {uri} shows no rows; publish a run first")
    wanted = days[-1] if day is None else day.isoformat()
    if wanted not in days:
        has = f"{len(days)} days, {days[0]} to {days[-1]}" if len(days) > 1 else days[0]
        raise InputError(f"--day {wanted}: version {version} of {uri} does not show that day; it has {has}")
    paths = tuple(x.path for x in shown if x.day == wanted)
    with storage_errors(uri, f"reading {wanted}", READ_AGAIN):
        dataset = ds.dataset(list(paths), filesystem=TableFiles(uri).filesystem)
        other = next((x.path for x in dataset.get_fragments() if not x.physical_schema.equals(dataset.schema)), None)
        rows = dataset.count_rows()
    if other is not None:
        raise InputError(f"publish.uri: {other} in {uri} has other columns than {paths[0]}; publish that day again")
    commit = commit_of(log, paths)
    modalities, longest = _measured(uri, paths, dataset.schema, named_models(commit))
    return Snapshot(
        uri=uri,
        table_id=str(table.metadata().id),
        log=tuple(log),
        version=version,
        files=tuple(shown),
        day=wanted,
        paths=paths,
        schema=dataset.schema,
        rows=rows,
        modalities=modalities,
        longest_id=longest,
        behaviour=_width(uri, paths, BEHAVIOUR) if BEHAVIOUR in dataset.schema.names else None,
        commit=commit,
    )


def existing_table(config: PublishConfig) -> DeltaTable:
    """Return the table at its newest version. Raises InputError if there is none."""
    table = open_table(config.uri)
    if table is None:
        raise InputError(f"publish.uri: there is no table at {config.uri} yet; publish a run first")
    return table


def files_of_version(config: PublishConfig, log: list[LogEntry], version: int, *, asked: str) -> list[DataFile]:
    """Return the data files of a version. ``asked`` is the option that named it.

    Raises InputError for a version that does not exist or whose files are gone.
    """
    versions = [x.version for x in log]
    if version not in versions:
        raise InputError(f"{asked} {version}: {config.uri} has no such version; it has {versions[0]} to {versions[-1]}")
    with storage_errors(config.uri, "reading its versions", LOOK):
        old = open_table(config.uri, version)
        shown = visible_files(old) if old is not None else []
        there = TableFiles(config.uri).entries(x.path for x in shown)
    gone = [x.path for x in shown if x.path not in there]
    if gone:
        raise InputError(
            f"{asked} {version}: {len(gone)} of that version's {len(shown)} files are gone ({gone[0]}{', ...' if len(gone) > 1 else ''}),"
            f" deleted {config.vacuum_after_hours:g} hours after they were dropped, or by another tool's VACUUM;"
            " choose a version that `versions` calls restorable"
        )
    return shown


def _tables(uri: str, paths: Sequence[str], columns: Sequence[str], batch_rows: int) -> Iterator[pa.Table]:
    """Yield these columns of the files in order, a few rows at a time. A dataset's scanner would hold whole files in memory."""
    files = TableFiles(uri)
    for path in paths:
        with (
            storage_errors(uri, f"reading {path}", READ_AGAIN),
            files.open(path) as stream,
            pq.ParquetFile(stream, pre_buffer=False, buffer_size=READ_BUFFER) as parquet,
        ):
            for batch in parquet.iter_batches(batch_size=batch_rows, columns=list(columns)):
                yield pa.Table.from_batches([batch]).select(columns)


def _measured(
    uri: str, paths: Sequence[str], schema: pa.Schema, models: Mapping[str, str]
) -> tuple[tuple[SnapshotModality, ...], int]:
    """Return the modalities with widths and numbers of segments, and the length of the longest id."""
    names = modality_names(uri, schema)
    segments = {name: 0 for name in names if f"{name}{POSITIONS}" in schema.names}
    longest, text = 0, not pa.types.is_integer(schema.field("item_id").type)
    for table in _tables(uri, paths, ["item_id", *(f"{x}{POSITIONS}" for x in segments)], _MOST_BLOCK_ROWS):
        longest = max(longest, (pc.max(pc.utf8_length(table["item_id"])).as_py() or 0) if text else 0)
        for name in segments:
            segments[name] += pc.sum(pc.list_value_length(table[f"{name}{POSITIONS}"])).as_py() or 0
    modalities = (
        SnapshotModality(
            name=name,
            width=_width(uri, paths, name),
            segments=segments.get(name),
            embedding_model=models.get(name),
        )
        for name in names
    )
    return tuple(modalities), longest


def modality_names(uri: str, schema: pa.Schema) -> list[str]:
    """Return the columns that are a modality: they have a trust and a status column."""
    names = [x for x in schema.names if {f"{x}_trust", f"{x}_status"} <= set(schema.names)]
    strange = next((x for x in names if not MODALITY.fullmatch(x)), None)
    if strange is not None:
        raise InputError(
            f"publish.uri: the column {strange!r} of {uri} cannot name a file; export a table that this pipeline published"
        )
    return names


def _width(uri: str, paths: Sequence[str], name: str) -> int:
    """Return the length of the first feature that is not null, 0 if there is none."""
    lengths = (pc.max(pc.list_value_length(table[name])).as_py() for table in _tables(uri, paths, [name], 1 << 10))
    return next((int(length) for length in lengths if length is not None), 0)

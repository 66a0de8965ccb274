"""What a run would read, and what it takes each column for, by listings and footers alone. Nothing is computed or written.

The run logs these readings, its report shows them, and `validate` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa

from tasks.errors import InputError
from tasks.source.columns.arrow import plain_type
from tasks.source.columns.times import UNIT_NAMES
from tasks.source.config import SourceConfig
from tasks.source.files import Listing, ParquetFiles, list_catalog, list_log
from tasks.source.footers import Footer, Problems, read_footers
from tasks.source.layout.table_formats import YOUNGER
from tasks.source.positive_filter import Predicate
from tasks.source.schema import (
    ITEM_KEY,
    USER_KEY,
    CatalogSchema,
    LogSchema,
    catalog_schema,
    label_columns,
    log_columns,
    log_schema,
    wanted_columns,
)
from tasks.source.time_unit import TIME_KEY, time_range


@dataclass(frozen=True, slots=True)
class Reading:
    """What one column, or the files of one input, were taken for. ``key`` is the config key that names it."""

    input: str
    column: str
    key: str
    taken_for: str

    def __str__(self) -> str:
        return f"{self.input} {self.column}: {self.taken_for}"

    @property
    def values(self) -> dict[str, str]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The files that a day reads, how many rows those of the log have, the schemas of both inputs, the readings, and the log's newest day
    folder that has rows.
    """

    catalog: ParquetFiles
    log: ParquetFiles
    log_rows: int
    catalog_schema: CatalogSchema
    log_schema: LogSchema
    readings: tuple[Reading, ...]
    newest_folder: date | None
    notes: tuple[str, ...] = field(default=())


def inspect_source(config: SourceConfig, as_of: date) -> Inspection:
    """List both inputs and check their columns in every file. Raises InputError for the first mistake."""
    found = _inspect(config, as_of, Problems())
    assert isinstance(found, Inspection)
    return found


def find_problems(config: SourceConfig, as_of: date) -> tuple[Inspection | None, list[str]]:
    """As ``inspect_source``, but with every mistake as a line; None instead of the inspection where there is one."""
    problems = Problems(collect=True)
    found = _inspect(config, as_of, problems)
    return (None if problems.found else found), problems.found


def _inspect(config: SourceConfig, as_of: date, problems: Problems) -> Inspection | None:
    text = config.positive
    predicate = None if text is None else problems.attempt(lambda: Predicate(text))
    readings: list[Reading] = []

    def inspect_catalog() -> dict[str, Any]:
        listing = list_catalog(config)
        files = listing.catalog(as_of)
        footers = read_footers(files, wanted_columns(config), problems)
        if not footers and not problems.found:
            raise InputError(f"{files.uri}: the catalog is empty: it has no rows ({files.what})")
        schema = catalog_schema(files, footers, config, problems)
        readings.extend(_of_catalog(config, files, footers, schema))
        notes = (*_notes(listing, as_of), *((f"catalog: {files.what}",) if YOUNGER in files.what else ()))
        return {"catalog": files, "catalog_schema": schema, "notes": notes}

    def inspect_log() -> dict[str, Any]:
        listing = list_log(config)
        files = listing.log(as_of, config.lookback_days)
        if config.lookback_days is not None and not files.partitioned and config.time_column is None:
            raise InputError(
                f"source.lookback_days: {files.uri} has neither day folders nor a {TIME_KEY} to tell the days by"
            )
        footers = read_footers(files, log_columns(config, predicate), problems)
        schema = log_schema(files, footers, config, problems)
        span = None
        if config.time_column is not None and not problems.found:
            span = time_range(files, footers, config.time_column, schema.times)
        readings.extend(_of_log(config, files, footers, schema, span))
        if not files.partitioned and span is not None and span[2]:
            _check_span(files, config, as_of, span)
        rows, newest = sum(x.rows for x in footers), _newest_folder(listing, as_of, footers)
        return {"log": files, "log_schema": schema, "log_rows": rows, "newest_folder": newest}

    catalog, log = problems.attempt(inspect_catalog), problems.attempt(inspect_log)
    if catalog is None or log is None:
        return None
    return Inspection(**catalog, **log, readings=tuple(readings))


def _of_catalog(
    config: SourceConfig, files: ParquetFiles, footers: Sequence[Footer], schema: CatalogSchema
) -> Iterator[Reading]:
    yield Reading("catalog", "files", "source.catalog", _files(files, footers))
    yield Reading("catalog", config.item_column, ITEM_KEY, str(schema.items))
    for name, column in config.modalities.items():
        kinds = sorted({str(x.types[column]) for x in footers if not pa.types.is_null(plain_type(x.types[column]))})
        given = config.vector_formats.get(name)
        what = "sequences of vectors" if name in schema.sequences else "vectors"
        what += f" in {given}" if given else ""
        shown = ", ".join(x if len(x) <= 60 else f"{x[:57]}..." for x in kinds)
        yield Reading("catalog", column, f"source.modalities.{name}", f"{what} ({shown})" if shown else "no value")
    for _, column, key in label_columns(config):
        yield Reading("catalog", column, key, "text to show")


def _of_log(
    config: SourceConfig,
    files: ParquetFiles,
    footers: Sequence[Footer],
    schema: LogSchema,
    span: tuple[date, date, bool] | None,
) -> Iterator[Reading]:
    yield Reading("log", "files", "source.interactions", _files(files, footers))
    yield Reading("log", config.user_column, USER_KEY, str(schema.users))
    yield Reading("log", config.item_column, ITEM_KEY, str(schema.items))
    if config.time_column is None:
        return
    column = config.time_column
    kinds = {str(x.types[column]) for x in footers}
    unit = schema.times.unit
    what = f"{_number_kind(kinds)}, {UNIT_NAMES[unit]}" if unit is not None else ", ".join(sorted(kinds))
    what += f", {span[0]} to {span[1]}" if span is not None else ""
    what += f", days of {config.time_zone}" if config.time_zone else ", UTC"
    yield Reading("log", column, TIME_KEY, what)


def _check_span(files: ParquetFiles, config: SourceConfig, as_of: date, span: tuple[date, date, bool]) -> None:
    """Raise InputError if no event can lie in the days that are read."""
    first = date.min.toordinal() if config.lookback_days is None else as_of.toordinal() + 1 - config.lookback_days
    if span[0] <= as_of and span[1].toordinal() >= first:
        return
    since = "" if config.lookback_days is None else f", source.lookback_days = {config.lookback_days}"
    raise InputError(
        f"{files.uri}: no interactions left as of {as_of}{since}: the events of {TIME_KEY} {config.time_column!r} are of"
        f" {span[0]} to {span[1]}; give a day of these"
    )


def _number_kind(kinds: set[str]) -> str:
    return "whole numbers" if all("int" in kind for kind in kinds) else f"numbers ({', '.join(sorted(kinds))})"


def _files(files: ParquetFiles, footers: Sequence[Footer]) -> str:
    rows = sum(x.rows for x in footers)
    count = len(files.files)
    empty = count - len(footers)
    what = f"{files.what}: {count:,} {'file' if count == 1 else 'files'}, {rows:,} rows"
    what += f", {empty:,} without rows" if empty else ""
    return what + (f", and {len(files.undated):,} files of the partition without a day" if files.undated else "")


def _newest_folder(listing: Listing, as_of: date, footers: Sequence[Footer]) -> date | None:
    filled = {x.file for x in footers}
    return max((day for day, of_day in listing.by_day.items() if day <= as_of and filled & set(of_day)), default=None)


def _notes(listing: Listing, as_of: date) -> tuple[str, ...]:
    """A warning where the newest snapshot has less than half the bytes of the one before, as a feed of changes has."""
    days = [day for day in listing.by_day if day <= as_of]
    if len(days) < 2:
        return ()
    older, newest = (sum(x.size for x in listing.by_day[day]) for day in days[-2:])
    if newest * 2 >= older:
        return ()
    labels = [listing.days.label(day) for day in days[-2:]]
    return (
        f"catalog snapshot {labels[1]} has {newest:,} bytes, {labels[0]} has {older:,}: each must hold every item, not only what changed",
    )

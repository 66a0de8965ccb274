"""What the columns of the catalog and of the log were taken for, by the footers of all their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from tasks.errors import InputError
from tasks.source.columns.arrow import is_bytes, plain_type
from tasks.source.columns.ids import NUMBER, TEXT, IdColumn, holds_uuids, id_family
from tasks.source.columns.times import TimeReading
from tasks.source.columns.vectors import embedding_kind
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles
from tasks.source.footers import Footer, Problems, sample, types_of
from tasks.source.positive_filter import KEY as POSITIVE_KEY
from tasks.source.positive_filter import Predicate
from tasks.source.time_unit import TIME_KEY, read_time_column

ITEM_KEY, USER_KEY = "source.item_column", "source.user_column"
# Columns that a sequence publishes besides its pooled feature, as <modality>_<part>.
SEQUENCE_COLUMNS = ("segments", "segment_positions", "segment_trust")
SAMPLED_IDS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSchema:
    """How the catalog's item ids are read, and which modalities are sequences."""

    items: IdColumn
    sequences: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSchema:
    """How the log's user ids, item ids and times are read."""

    users: IdColumn
    items: IdColumn
    times: TimeReading


def wanted_columns(config: SourceConfig) -> dict[str, str]:
    """The catalog's columns that are read, each with the config key that names it."""
    wanted = {column: f"source.modalities.{name}" for name, column in config.modalities.items()}
    wanted |= {column: key for _, column, key in label_columns(config)}
    return wanted | {config.item_column: ITEM_KEY}


def label_columns(config: SourceConfig) -> list[tuple[str, str, str]]:
    """The configured label columns: name in ``labels.parquet``, name in the catalog, config key."""
    columns = {
        "title": config.title_column,
        "category": config.category_column,
        "text": config.text_column,
        "picture": config.picture_column,
    }
    return [(name, column, f"source.{name}_column") for name, column in columns.items() if column is not None]


def log_columns(config: SourceConfig, predicate: Predicate | None) -> dict[str, str]:
    """The log's columns that are read, each with the config key that names it."""
    columns = dict.fromkeys(predicate.columns if predicate else (), POSITIVE_KEY)
    columns |= {config.user_column: USER_KEY, config.item_column: ITEM_KEY}
    return columns | ({} if config.time_column is None else {config.time_column: TIME_KEY})


def catalog_schema(
    files: ParquetFiles, footers: Sequence[Footer], config: SourceConfig, problems: Problems
) -> CatalogSchema:
    """Check the catalog's columns in every file. Raises InputError for a column of an unusable type, and where files differ in it."""
    key = f"{ITEM_KEY} {config.item_column!r}"
    families: dict[pa.DataType, Footer] = {}
    kinds: dict[str, str] = {}
    for footer in footers:
        with problems.caught():
            family = id_family(footer.types[config.item_column], footer.file, key)
            if family is not None and families and family not in families:
                first = next(iter(families.values()))
                here, there = footer.types[config.item_column], first.types[config.item_column]
                raise InputError(
                    f"{footer.file.uri}: {key} is {here}, but {there} in {first.file.uri}; write both alike"
                )
            if family is not None:
                families.setdefault(family, footer)
        for name, column in config.modalities.items():
            with problems.caught():
                _check_embedding(files, footer, name, column, config, kinds)
    sequences = frozenset(name for name, kind in kinds.items() if kind == "sequence")
    for taken in sorted(f"{name}_{part}" for name in sequences for part in SEQUENCE_COLUMNS):
        with problems.caught():
            if taken.casefold() in {x.casefold() for x in config.modalities}:
                raise InputError(
                    f"source.modalities.{taken}: a published column of a sequence has this name; choose another name"
                )
    items = _id_column(files, footers, config.item_column, next(iter(families), TEXT))
    return CatalogSchema(items=items, sequences=sequences)


def _check_embedding(
    files: ParquetFiles, footer: Footer, name: str, column: str, config: SourceConfig, kinds: dict[str, str]
) -> None:
    key = f"source.modalities.{name} {column!r}"
    kind = embedding_kind(footer.types[column], footer.file, key, name, config.vector_formats.get(name))
    if kind is not None and kinds.setdefault(name, kind) != kind:
        raise InputError(f"{footer.file.uri}: {key} is a {kind}, but a {kinds[name]} in other files of {files.uri}")


def _id_column(files: ParquetFiles, footers: Sequence[Footer], column: str, family: pa.DataType) -> IdColumn:
    """Bytes are UUIDs by their type, or by the first values."""
    uuid = any(isinstance(x.types[column], pa.UuidType) for x in footers)
    if not uuid:
        of_bytes = [x for x in footers if is_bytes(plain_type(x.types[column]))]
        uuid = any(holds_uuids(values) for _, values in sample(files, of_bytes[:1], column, SAMPLED_IDS))
    return IdColumn(types=tuple(types_of(footers, column)), family=family, uuid=uuid)


def log_schema(files: ParquetFiles, footers: Sequence[Footer], config: SourceConfig, problems: Problems) -> LogSchema:
    """Check the log's columns in every file. Raises InputError for a column of an unusable type, or times in no clear unit."""

    def id_column(column: str, key: str) -> IdColumn:
        families = set()
        for footer in footers:
            with problems.caught():
                families.add(id_family(footer.types[column], footer.file, f"{key} {column!r}"))
        family = TEXT if TEXT in families or not _fit_int64(footers, column) else NUMBER
        return _id_column(files, footers, column, family)

    users, items = id_column(config.user_column, USER_KEY), id_column(config.item_column, ITEM_KEY)
    times = TimeReading(zone=config.zone)
    with problems.caught():
        times = read_time_column(files, footers, config)
    return LogSchema(users=users, items=items, times=times)


def _fit_int64(footers: Sequence[Footer], column: str) -> bool:
    """Whether all ids of a column of numbers fit int64, as far as types and ranges tell."""
    for footer in footers:
        kind = plain_type(footer.types[column])
        wide = kind == pa.uint64() or (pa.types.is_decimal(kind) and kind.precision - kind.scale > 18)
        ends = footer.ranges.get(column)
        if wide and (ends is None or not all(-(2**63) <= x < 2**63 for x in ends.to_pylist())):
            return False
    return True

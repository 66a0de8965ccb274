"""What the columns of the catalog and of the log were taken for, by the footers of all their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from tasks.errors import InputError
from tasks.source.columns.arrow import is_bytes, is_text, plain_type
from tasks.source.columns.ids import NUMBER, TEXT, holds_uuids, id_kind, keeps_type
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
    """The catalog's item ids: their types, "numbers" or "text", and whether bytes are UUIDs. And which modalities are sequences."""

    id_types: tuple[pa.DataType, ...]
    ids: str
    uuid: bool
    sequences: frozenset[str]

    def published_type(self, family: pa.DataType) -> pa.DataType:
        """The type that ids are published in, if their values are of this ``family``: their own, where they have one that can hold them."""
        if len(self.id_types) == 1 and keeps_type(self.id_types[0]) and is_text(self.id_types[0]) == (family == TEXT):
            return self.id_types[0]
        return pa.int64() if family == NUMBER else pa.string()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSchema:
    """The log's user and item ids: the family each column is read as, and whether bytes are UUIDs. And how its times are read."""

    user_types: tuple[pa.DataType, ...]
    item_types: tuple[pa.DataType, ...]
    user_family: pa.DataType
    item_family: pa.DataType
    user_uuid: bool
    item_uuid: bool
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
    ids: dict[str, Footer] = {}
    kinds: dict[str, str] = {}
    for footer in footers:
        with problems.caught():
            kind = id_kind(footer.types[config.item_column], footer.file, key)
            if kind is not None and ids and kind not in ids:
                first = next(iter(ids.values()))
                here, there = footer.types[config.item_column], first.types[config.item_column]
                raise InputError(
                    f"{footer.file.uri}: {key} is {here}, but {there} in {first.file.uri}; write both alike"
                )
            if kind is not None:
                ids.setdefault(kind, footer)
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
    return CatalogSchema(
        id_types=tuple(types_of(footers, config.item_column)),
        ids=next(iter(ids), "text"),
        uuid=_uuids(files, footers, config.item_column),
        sequences=sequences,
    )


def _check_embedding(
    files: ParquetFiles, footer: Footer, name: str, column: str, config: SourceConfig, kinds: dict[str, str]
) -> None:
    key = f"source.modalities.{name} {column!r}"
    kind = embedding_kind(footer.types[column], footer.file, key, name, config.vector_formats.get(name))
    if kind is not None and kinds.setdefault(name, kind) != kind:
        raise InputError(f"{footer.file.uri}: {key} is a {kind}, but a {kinds[name]} in other files of {files.uri}")


def _uuids(files: ParquetFiles, footers: Sequence[Footer], column: str) -> bool:
    """Whether the bytes of an id column are UUIDs, by its type or by the first values."""
    known = [x for x in footers if column in x.types]
    if any(isinstance(x.types[column], pa.UuidType) for x in known):
        return True
    known = [x for x in known if is_bytes(plain_type(x.types[column]))]
    return any(holds_uuids(values) for _, values in sample(files, known[:1], column, SAMPLED_IDS))


def log_schema(files: ParquetFiles, footers: Sequence[Footer], config: SourceConfig, problems: Problems) -> LogSchema:
    """Check the log's columns in every file. Raises InputError for a column of an unusable type, or times in no clear unit."""
    families = {}
    for column, key in ((config.user_column, USER_KEY), (config.item_column, ITEM_KEY)):
        kinds = set()
        for footer in footers:
            with problems.caught():
                kinds.add(id_kind(footer.types[column], footer.file, f"{key} {column!r}"))
        families[column] = TEXT if "text" in kinds or not _fit_int64(footers, column) else NUMBER
    times = TimeReading(zone=config.zone)
    with problems.caught():
        times = read_time_column(files, footers, config)
    return LogSchema(
        user_types=tuple(types_of(footers, config.user_column)),
        item_types=tuple(types_of(footers, config.item_column)),
        user_family=families[config.user_column],
        item_family=families[config.item_column],
        user_uuid=_uuids(files, footers, config.user_column),
        item_uuid=_uuids(files, footers, config.item_column),
        times=times,
    )


def plain_type_of(footer: Footer, column: str | None) -> pa.DataType:
    """The plain type of one column of a file."""
    return types_of([footer], str(column))[0] if types_of([footer], str(column)) else pa.null()


def _fit_int64(footers: Sequence[Footer], column: str) -> bool:
    """Whether all ids of a column of numbers fit int64, as far as types and ranges tell."""
    for footer in footers:
        kind = plain_type_of(footer, column)
        wide = kind == pa.uint64() or (pa.types.is_decimal(kind) and kind.precision - kind.scale > 18)
        ends = footer.ranges.get(column)
        if wide and (ends is None or not all(-(2**63) <= x < 2**63 for x in ends)):
            return False
    return True

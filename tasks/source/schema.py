"""The catalog's columns that are read, and the check of their types in every file."""

from __future__ import annotations

import pyarrow as pa

from tasks.errors import InputError
from tasks.source.arrow_columns import embedding_kind, id_family, plain_type
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, open_parquet

ITEM_KEY = "source.item_column"
# Columns that a sequence publishes besides its pooled feature, as <modality>_<part>.
SEQUENCE_COLUMNS = ("segments", "segment_positions", "segment_trust")


def wanted_columns(config: SourceConfig) -> dict[str, str]:
    """The catalog's columns that are read, each with the config key that names it."""
    wanted = {column: f"source.modalities.{name}" for name, column in config.modalities.items()}
    wanted |= {column: key for _, column, key in label_columns(config)}
    return wanted | {config.item_column: ITEM_KEY}


def label_columns(config: SourceConfig) -> list[tuple[str, str, str]]:
    """The configured label columns: name in ``labels.parquet``, name in the catalog, config key."""
    columns = {"title": config.title_column, "category": config.category_column, "picture": config.picture_column}
    return [(name, column, f"source.{name}_column") for name, column in columns.items() if column is not None]


def check_columns(files: ParquetFiles, config: SourceConfig) -> tuple[pa.DataType, pa.DataType, set[str]]:
    """The common type of the ids, their type in the files, and which modalities are sequences.

    This checks every file before any row is read. Raises InputError for a column that is missing or of an unusable type.
    """
    families, types, kinds = [], [], dict[str, str]()
    for file in files.files:
        with open_parquet(files.filesystem, file, wanted_columns(config)) as parquet:
            schema = parquet.schema_arrow
        id_type = schema.field(config.item_column).type
        families.append(id_family(id_type, file, f"{ITEM_KEY} {config.item_column!r}"))
        types.append(plain_type(id_type))
        if families[-1] != families[0]:
            raise InputError(
                f"{file.uri}: {ITEM_KEY} {config.item_column!r} is {types[-1]}, but {types[0]} in {files.files[0].uri}"
            )
        for name, column in config.modalities.items():
            kind = embedding_kind(schema.field(column).type, file, f"source.modalities.{name} {column!r}")
            if kind is not None and kinds.setdefault(name, kind) != kind:
                raise InputError(
                    f"{file.uri}: source.modalities.{name} {column!r} is a {kind}, but a {kinds[name]} in other files of {files.uri}"
                )
    sequences = {name for name, kind in kinds.items() if kind == "sequence"}
    for taken in sorted(f"{name}_{part}" for name in sequences for part in SEQUENCE_COLUMNS):
        if taken.casefold() in {x.casefold() for x in config.modalities}:
            raise InputError(
                f"source.modalities.{taken}: a published column of a sequence has this name; choose another name"
            )
    return families[0], types[0] if all(x == types[0] for x in types) else families[0], sequences

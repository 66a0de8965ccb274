"""What Feast is told of the published table: an entity, a feature view a modality, one feature service, generated from the table's schema.

Every refresh that writes online is a generation, and a view's name ends with its number: ``image_v7``. So a generation's rows lie apart
from every other's, and neither of Feast's ways with older rows can hurt: its SQLite store lets them overwrite newer ones, its Redis store
silently drops them. The feature service gives the views their plain names. It is one object, read at once, so all modalities that a
reader gets are of one generation, also while the registry is being replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, ValueType
from feast.types import Array, Float32, Int64, String, UnixTimestamp

from tasks.errors import InputError
from tasks.feature_store.config import FeatureStoreConfig

ITEM = "item_id"
EVENT = "event_timestamp"
VERSION = "table_version"
STATE = "catalog-rectifier.served"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSchema:
    """The modalities that a day has, and whether its ids are integers."""

    modalities: tuple[str, ...]
    integer_ids: bool

    @classmethod
    def of(cls, schema: pa.Schema, modalities: Sequence[str]) -> ServedSchema:
        """That of data files. Raises InputError for a modality whose features could not be told from another's."""
        names = [name for m in modalities for name in feature_names(m)]
        twice = next((x for x in names if names.count(x) > 1), None)
        if twice is not None:
            raise InputError(
                f"source.modalities: two modalities would both give the feature {twice} to the feature store; rename one"
            )
        return cls(modalities=tuple(modalities), integer_ids=pa.types.is_integer(schema.field(ITEM).type))


def feature_names(modality: str) -> tuple[str, ...]:
    """A modality's features: the vector, its trust and status, and which run and version of the table they are of, as of which day."""
    return (modality, *(f"{modality}_{x}" for x in ("trust", "status", "run_id", "version", "as_of")))


def view_name(modality: str, generation: int) -> str:
    """The feature view of one modality in one generation."""
    return f"{modality}_v{generation}"


def feature_view(
    modality: str, schema: ServedSchema, generation: int, files: str, tags: Mapping[str, str]
) -> FeatureView:
    """The view of one modality; ``files`` is the pattern of its offline files, whose folders say version, event time and day; ``tags`` say
    which embedding model made its vectors."""
    vector, trust, status, run_id, version, as_of = feature_names(modality)
    name = view_name(modality, generation)
    types = {
        vector: Array(Float32),
        trust: Float32,
        status: String,
        run_id: String,
        version: Int64,
        as_of: UnixTimestamp,
    }
    key = Field(name=ITEM, dtype=Int64 if schema.integer_ids else String)
    source = FileSource(
        name=name, path=files, timestamp_field=EVENT, field_mapping={"run_id": run_id, VERSION: version, "as_of": as_of}
    )
    return FeatureView(
        name=name,
        entities=[entity(schema)],
        ttl=timedelta(0),
        source=source,
        schema=[key, *(Field(name=x, dtype=kind) for x, kind in types.items())],
        tags=dict(tags),
    )


def entity(schema: ServedSchema) -> Entity:
    """The item."""
    return Entity(name=ITEM, join_keys=[ITEM], value_type=ValueType.INT64 if schema.integer_ids else ValueType.STRING)


def registry_objects(
    config: FeatureStoreConfig,
    schema: ServedSchema,
    views: dict[str, FeatureView],
    earlier: Sequence[FeatureView],
    state: str,
) -> list[Any]:
    """All that the registry is to hold: ``views`` by modality, in the service; ``earlier`` ones for readers who still ask for them."""
    service = FeatureService(name=config.service, features=[view.with_name(m) for m, view in views.items()])
    project = Project(name=config.project, tags={STATE: state})
    return [project, entity(schema), *earlier, *views.values(), service]

"""Feast's objects for the published table: an entity, a feature view per modality, and one feature service.

Every refresh that writes online is a generation, and the name of a view ends with its number: ``image_v7``. So the rows of generations
never mix. This avoids two faults of Feast: its SQLite store lets older rows overwrite newer ones, and its Redis store silently drops them.
The feature service gives the views their plain names. It is one object, so a reader gets all modalities of one generation, even while the
registry is being replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

from tasks.errors import InputError
from tasks.feature_store.config import FeatureStoreConfig
from tasks.feature_store.feast_api import (
    Array,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float32,
    Int64,
    Project,
    String,
    UnixTimestamp,
    ValueType,
)

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
        """The schema of data files. Raises InputError if two modalities would give a feature of the same name."""
        names = [name for m in modalities for name in feature_names(m)]
        twice = next((x for x in names if names.count(x) > 1), None)
        if twice is not None:
            raise InputError(
                f"source.modalities: two modalities would both give the feature {twice} to the feature store; rename one"
            )
        return cls(modalities=tuple(modalities), integer_ids=pa.types.is_integer(schema.field(ITEM).type))


def feature_names(modality: str) -> tuple[str, ...]:
    """A modality's features: the vector, its trust and status, and the run, table version and day that they come from."""
    return (modality, *(f"{modality}_{x}" for x in ("trust", "status", "run_id", "version", "as_of")))


def view_name(modality: str, generation: int) -> str:
    """The feature view of one modality in one generation."""
    return f"{modality}_v{generation}"


def feature_view(
    modality: str, schema: ServedSchema, generation: int, files: str, tags: Mapping[str, str]
) -> FeatureView:
    """The view of one modality. ``files`` is the pattern of its offline files; ``tags`` name its embedding model."""
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
    previous: Sequence[FeatureView],
    state: str,
) -> list[Any]:
    """All objects of the registry: ``views`` by modality, in the service, and ``previous`` views for readers that still use them."""
    service = FeatureService(name=config.service, features=[view.with_name(m) for m, view in views.items()])
    project = Project(name=config.project, tags={STATE: state})
    return [project, entity(schema), *previous, *views.values(), service]

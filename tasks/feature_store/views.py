"""Feast's objects for the published table: an entity, a feature view per modality and one of behaviour, and one feature service.

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
from tasks.source.config import BEHAVIOUR

ITEM = "item_id"
EVENT = "event_timestamp"
VERSION = "table_version"
STATE = "catalog-rectifier.served"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSchema:
    """The modalities that a day has, whether its ids are integers, and whether it has the anchors as ``behaviour``."""

    modalities: tuple[str, ...]
    integer_ids: bool
    behaviour: bool = False

    @classmethod
    def of(cls, schema: pa.Schema, modalities: Sequence[str]) -> ServedSchema:
        """The schema of data files. Raises InputError if two views would give a feature of the same name."""
        served = cls(
            modalities=tuple(modalities),
            integer_ids=pa.types.is_integer(schema.field(ITEM).type),
            behaviour=BEHAVIOUR in schema.names,
        )
        names = [name for view in served.views for name in feature_names(view)]
        twice = next((x for x in names if names.count(x) > 1), None)
        if twice is not None:
            raise InputError(
                f"source.modalities: two modalities would both give the feature {twice} to the feature store; rename one"
            )
        return served

    @property
    def views(self) -> tuple[str, ...]:
        """The plain names of the views: the modalities, and ``behaviour`` where the day has it."""
        return (*self.modalities, *((BEHAVIOUR,) if self.behaviour else ()))


def own_columns(view: str) -> tuple[str, ...]:
    """The table's columns of one view: the vector, and of a modality its trust and status."""
    return (view,) if view == BEHAVIOUR else (view, f"{view}_trust", f"{view}_status")


def feature_names(view: str) -> tuple[str, ...]:
    """A view's features: its own columns, and the run, table version and day that they come from."""
    return (*own_columns(view), *(f"{view}_{x}" for x in ("run_id", "version", "as_of")))


def view_name(view: str, generation: int) -> str:
    """The feature view of one modality, or of behaviour, in one generation."""
    return f"{view}_v{generation}"


def feature_view(view: str, schema: ServedSchema, generation: int, files: str, tags: Mapping[str, str]) -> FeatureView:
    """The view of one modality, or of behaviour. ``files`` is the pattern of its offline files; ``tags`` name its embedding model."""
    *own, run_id, version, as_of = feature_names(view)
    name = view_name(view, generation)
    types = dict(zip(own, (Array(Float32), Float32, String), strict=False))
    types |= {run_id: String, version: Int64, as_of: UnixTimestamp}
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
    """All objects of the registry: ``views`` by plain name, in the service, and ``previous`` views for readers that still use them."""
    service = FeatureService(name=config.service, features=[view.with_name(m) for m, view in views.items()])
    project = Project(name=config.project, tags={STATE: state})
    return [project, entity(schema), *previous, *views.values(), service]

"""What we use of Feast, imported in one second instead of four.

Feast imports torch to offer tensors, which nobody here asks for, and rewrites its functions to check the types of their arguments. Both are
left out while it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typeguard


@contextmanager
def _quickly() -> Iterator[None]:
    checked, blocked = typeguard.typechecked, "torch" not in sys.modules

    def unchecked(target: Any = None, **_: Any) -> Any:
        return target if target is not None else lambda x: x

    typeguard.typechecked = unchecked
    if blocked:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checked
        if blocked:
            del sys.modules["torch"]


with _quickly():
    from feast import (
        Entity,
        FeatureService,
        FeatureStore,
        FeatureView,
        Field,
        FileSource,
        Project,
        RepoConfig,
        ValueType,
    )
    from feast.infra.key_encoding_utils import deserialize_entity_key
    from feast.infra.online_stores.helpers import _mmh3, _redis_key, get_online_store_from_config
    from feast.infra.online_stores.redis import RedisOnlineStore
    from feast.protos.feast.core.Registry_pb2 import Registry
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import FloatList, Value
    from feast.types import Array, Float32, Int64, String, UnixTimestamp

__all__ = [
    "Array",
    "Entity",
    "EntityKey",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "Field",
    "FileSource",
    "Float32",
    "FloatList",
    "Int64",
    "Project",
    "RedisOnlineStore",
    "Registry",
    "RepoConfig",
    "String",
    "UnixTimestamp",
    "Value",
    "ValueType",
    "_mmh3",
    "_redis_key",
    "deserialize_entity_key",
    "get_online_store_from_config",
]

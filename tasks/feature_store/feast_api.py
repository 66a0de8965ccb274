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
    from feast import Entity as Entity
    from feast import FeatureService as FeatureService
    from feast import FeatureStore as FeatureStore
    from feast import FeatureView as FeatureView
    from feast import Field as Field
    from feast import FileSource as FileSource
    from feast import Project as Project
    from feast import RepoConfig as RepoConfig
    from feast import ValueType as ValueType
    from feast.infra.key_encoding_utils import deserialize_entity_key as deserialize_entity_key
    from feast.infra.online_stores.helpers import _mmh3 as _mmh3
    from feast.infra.online_stores.helpers import _redis_key as _redis_key
    from feast.infra.online_stores.helpers import get_online_store_from_config as get_online_store_from_config
    from feast.infra.online_stores.redis import RedisOnlineStore as RedisOnlineStore
    from feast.protos.feast.core.Registry_pb2 import Registry as Registry
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKey
    from feast.protos.feast.types.Value_pb2 import FloatList as FloatList
    from feast.protos.feast.types.Value_pb2 import Value as Value
    from feast.types import Array as Array
    from feast.types import Float32 as Float32
    from feast.types import Int64 as Int64
    from feast.types import String as String
    from feast.types import UnixTimestamp as UnixTimestamp

"""The Redis of a feature store: its connection string, which stays secret, and the removal of what is not served.

Feast keeps all views of an item in one hash, under its entity key followed by the project's name. Feast's own clean-up matches only the
end of a key, so it would also match another project's name that ends the same. Here the whole key must match.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.errors import InputError
from tasks.feature_store.config import FeatureStoreConfig
from tasks.feature_store.feast_api import RedisOnlineStore, _mmh3, _redis_key, deserialize_entity_key

_SECONDS = {"socket_timeout": 30, "socket_connect_timeout": 10}
_NODE = re.compile(r"[^:=,@/\s]+:\d+")
_KEYS = 2000


def connection_string(config: FeatureStoreConfig) -> str:
    """Feast's connection string from the environment, with timeouts. Raises InputError, which does not repeat it."""
    text = os.environ.get(config.redis_variable, "")
    variable = f"feature_store.online: the environment variable {config.redis_variable}"
    if not text:
        raise InputError(
            f'{variable} is not set; give it Feast\'s connection string for Redis, host:port,password="...",db=0'
        )
    node, *options = text.split(",")
    # The readers' feature_store.yaml puts it in single quotes.
    if not _NODE.fullmatch(node) or not all("=" in option for option in options) or "'" in text:
        raise InputError(
            f'{variable} is no connection string of one Redis; wanted host:port,password="...",db=0, with no comma or quote in a value'
        )
    names = {option.partition("=")[0] for option in options}
    return ",".join([text, *(f"{name}={seconds}" for name, seconds in _SECONDS.items() if name not in names)])


def without_secrets(text: str, config: FeatureStoreConfig) -> str:
    """``text`` with stars in place of the connection string's password and user name."""
    _, options = RedisOnlineStore._parse_connection_string(os.environ.get(config.redis_variable, ""))
    for name in ("password", "username"):
        if secret := str(options.get(name, "")):
            text = text.replace(secret, "***")
    return text


def redis_client(config: FeatureStoreConfig, **options: Any) -> Redis:
    """A client of the Redis that the connection string names."""
    (node,), from_string = RedisOnlineStore._parse_connection_string(connection_string(config))
    return Redis(host=node["host"], port=int(node["port"]), **options | from_string)


def clear_redis(config: FeatureStoreConfig, kept: Mapping[str, Sequence[str]]) -> None:
    """Delete everything of the project except the features of the views in ``kept``. Raises redis.RedisError."""
    fields = {_mmh3(f"{view}:{name}") for view, names in kept.items() for name in names}
    fields |= {f"_ts:{view}".encode() for view in kept}
    # The caller retries the whole refresh, so a single command is not retried.
    with redis_client(config, retry=Retry(NoBackoff(), 0)) as client:
        found = client.scan_iter(match=b"*" + config.project.encode(), count=_KEYS)
        keys = (key for key in found if _is_project_key(key, config.project))
        while block := list(islice(keys, _KEYS)):
            with client.pipeline(transaction=False) as pipe:
                for key in block:
                    pipe.hkeys(key)
                dropped = [(key, set(names) - fields) for key, names in zip(block, pipe.execute(), strict=True)]
            with client.pipeline(transaction=False) as pipe:
                for key, names in dropped:
                    if names:
                        pipe.hdel(key, *names)
                pipe.execute()


def _is_project_key(key: bytes, project: str) -> bool:
    """Whether a key is one that Feast writes for an item of exactly this project."""
    try:
        entity_key = deserialize_entity_key(key.removesuffix(project.encode()))
        return bool(_redis_key(project, entity_key) == key)
    except Exception:  # Feast raises many kinds of errors for bytes that are no entity key.
        return False

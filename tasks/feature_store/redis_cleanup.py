"""The Redis of a feature store: its connection string, which is never told, and clearing it of what is not served.

Feast keeps all views of an item in one hash, under its entity key followed by the project's name. Its own clean-up finds keys by how they
end, which another project's name may do as well; here a key is taken apart.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import mmh3
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.errors import InputError
from tasks.feature_store.config import FeatureStoreConfig

_SECONDS = {"socket_timeout": 30, "socket_connect_timeout": 10}
_NODE = re.compile(r"[^:=,@/\s]+:\d+")
_KEYS = 2000
_INTS = struct.Struct("<2I")


def connection_string(config: FeatureStoreConfig) -> str:
    """Feast's connection string from the environment, with timeouts. Raises InputError, which does not repeat it."""
    given = os.environ.get(config.redis_variable, "")
    variable = f"feature_store.online: the environment variable {config.redis_variable}"
    if not given:
        raise InputError(
            f'{variable} is not set; give it Feast\'s connection string for Redis, host:port,password="...",db=0'
        )
    node, *options = given.split(",")
    # Readers' feature_store.yaml holds it in single quotes.
    if not _NODE.fullmatch(node) or not all("=" in x for x in options) or "'" in given:
        raise InputError(
            f'{variable} is no connection string of one Redis; wanted host:port,password="...",db=0, with no comma or quote in a value'
        )
    names = {x.partition("=")[0] for x in options}
    return ",".join([given, *(f"{name}={seconds}" for name, seconds in _SECONDS.items() if name not in names)])


def without_secrets(text: str, config: FeatureStoreConfig) -> str:
    """``text`` with whatever the connection string keeps secret starred out."""
    _, options = _parsed(os.environ.get(config.redis_variable, ""))
    for name in ("password", "username"):
        if secret := str(options.get(name, "")):
            text = text.replace(secret, "***")
    return text


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """As Feast reads it: the node, and options whose values are JSON where they can be."""
    node, *rest = text.split(",")
    options: dict[str, Any] = {}
    for option in rest:
        name, _, value = option.partition("=")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return node, options


def clear_redis(config: FeatureStoreConfig, kept: Mapping[str, Sequence[str]]) -> int:
    """Delete everything of the project but the features of the views in ``kept``; the number of items that lost something.

    Raises redis.RedisError.
    """
    node, options = _parsed(connection_string(config))
    host, port = node.split(":")
    fields = {_field(view, name) for view, names in kept.items() for name in names} | {
        f"_ts:{view}".encode() for view in kept
    }
    touched = 0
    # Whoever called tries again, and says so.
    with Redis(host=host, port=int(port), **{"retry": Retry(NoBackoff(), 0)} | options) as client:
        keys = (
            key
            for key in client.scan_iter(match=b"*" + config.project.encode(), count=_KEYS)
            if _is_ours(key, config.project)
        )
        while block := list(islice(keys, _KEYS)):
            with client.pipeline(transaction=False) as pipe:
                for key in block:
                    pipe.hkeys(key)
                dropped = [(key, set(found) - fields) for key, found in zip(block, pipe.execute(), strict=True)]
            with client.pipeline(transaction=False) as pipe:
                for key, names in dropped:
                    if names:
                        pipe.hdel(key, *names)
                touched += len(pipe.execute())
    return touched


def _field(view: str, feature: str) -> bytes:
    """The name under which Feast keeps a feature in an item's hash."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def _is_ours(key: bytes, project: str) -> bool:
    """Whether a key is an entity key (version 3: a count, the names, the values, each with type and length) and then the project."""
    try:
        *_, end = _ends(key)
    except (struct.error, ValueError):
        return False
    return key[end:] == project.encode()


def _ends(key: bytes) -> Iterator[int]:
    (count,) = struct.unpack_from("<I", key)
    if not 1 <= count <= 16:
        raise ValueError("no entity key")
    end = 4
    for _ in range(2 * count):
        _, length = _INTS.unpack_from(key, end)
        end += _INTS.size + length
        if end > len(key):
            raise ValueError("no entity key")
        yield end

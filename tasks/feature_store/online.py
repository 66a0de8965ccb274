"""Feast's online store: clear what is not served, write rows, and read them back."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from tasks.errors import OnlineStoreError
from tasks.feature_store.config import ONLINE, FeatureStoreConfig
from tasks.feature_store.feast_api import FeatureView, RepoConfig, get_online_store_from_config
from tasks.feature_store.redis_cleanup import clear_redis, connection_string, without_secrets
from tasks.feature_store.rows import Row, same_values

_VIEW = re.compile(r"[A-Za-z][A-Za-z0-9_]*_v\d+")
_LOCKED = 60.0


def repo_config(config: FeatureStoreConfig, registry: Path) -> RepoConfig:
    """Feast's config with this registry. Raises InputError where Redis is asked for and the environment names none."""
    online: dict[str, Any] = {"type": "sqlite", "path": str(config.root / ONLINE)}
    if config.online == "redis":
        # A generation has no older rows, so Feast need not look for them.
        online = {"type": "redis", "connection_string": connection_string(config), "skip_dedup": True}
    return RepoConfig(
        project=config.project,
        provider="local",
        registry={"path": str(registry), "cache_ttl_seconds": config.cache_seconds},
        online_store=online,
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )


class OnlineStore:
    """The online store of one feature store. Its methods raise OnlineStoreError, which names the store and hides its secrets."""

    def __init__(self, config: FeatureStoreConfig) -> None:
        self._config, self._repo = config, repo_config(config, config.registry)
        self._store = get_online_store_from_config(self._repo.online_store)

    def __enter__(self) -> OnlineStore:
        return self

    def __exit__(self, *error: object) -> None:
        for name in ("_conn", "_client"):
            if (connection := getattr(self._store, name, None)) is not None:
                connection.close()

    def clear(self, kept: Mapping[str, Sequence[str]]) -> None:
        """Delete all views of the project except those in ``kept``, which maps a view to its features."""
        with online_errors(self._config, "clearing"):
            if self._config.online == "redis":
                clear_redis(self._config, kept)
            else:
                _clear_sqlite(self._config, kept)

    def write(self, view: FeatureView, rows: list[Row]) -> None:
        """Write rows of one view."""
        with online_errors(self._config, "writing"):
            self._store.online_write_batch(self._repo, view, rows, None)

    def holds(self, view: FeatureView, rows: Sequence[Row]) -> bool:
        """Whether these rows read back equal."""
        try:
            with online_errors(self._config, "reading"):
                found = self._store.online_read(self._repo, view, [key for key, *_ in rows])
        except OnlineStoreError as error:
            if isinstance(error.__cause__, sqlite3.OperationalError) and "no such table" in str(error.__cause__):
                return False
            raise
        return all(same_values(stored, values) for (_, stored), (_, values, *_) in zip(found, rows, strict=True))


@contextmanager
def online_errors(config: FeatureStoreConfig, doing: str) -> Iterator[None]:
    """Raise errors of SQLite, Redis and the disk as one OnlineStoreError that says what to do."""
    try:
        yield
    except (RedisError, sqlite3.Error, OSError) as error:
        name = "Redis" if config.online == "redis" else f"SQLite ({ONLINE})"
        why = " ".join(without_secrets(str(error) or type(error).__name__, config).split())
        raise OnlineStoreError(
            f"feature store {config.folder}: {doing} {name} failed: {why};"
            " readers keep the version that was served; mend it, then refresh again"
        ) from error


def _clear_sqlite(config: FeatureStoreConfig, kept: Mapping[str, Sequence[str]]) -> None:
    """Drop the tables of views that are not kept. The write-ahead log lets readers read beside a writer."""
    prefix = f"{config.project}_"
    with closing(sqlite3.connect(config.root / ONLINE, timeout=_LOCKED, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        names = [x for (x,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            view = name.removeprefix(prefix)
            if name.startswith(prefix) and _VIEW.fullmatch(view) and view not in kept:
                connection.execute(f'DROP TABLE "{name}"')

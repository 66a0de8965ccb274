"""What a refresh of the feature store is told: where it lies, which online store it fills, and how long it waits."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
REGISTRY = "registry.db"
ONLINE = "online.db"
OFFLINE = "offline"
SERVED = "served.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureStoreConfig:
    """A Feast feature store that serves the published table.

    ``folder`` (absolute) holds Feast's config and registry, the files of the offline store and, where ``online`` is "sqlite", the online
    store; whoever reads it sees it under the same path. With "redis" the environment variable ``redis_variable`` holds Feast's connection
    string (``host:port,password=...,ssl=true``), for refreshes and readers alike; it is never written anywhere. ``project`` and ``service``
    are Feast's names. ``enabled`` lets the nightly run and a rollback refresh the store themselves when they have committed.
    Readers notice a new version by the registry's time, and after ``cache_seconds`` at the latest; what it replaces stays online for at
    least ``grace`` seconds, longer than that, which the next refresh waits for. A refresh waits ``patience`` seconds for another one to
    end. Raises ValueError with the key.
    """

    folder: str
    enabled: bool = False
    online: Literal["sqlite", "redis"] = "sqlite"
    redis_variable: str = "CATALOG_RECTIFIER_REDIS"
    project: str = "catalog_rectifier"
    service: str = "rectified_features"
    cache_seconds: int = 10
    grace: float = 15.0
    patience: float = 60.0

    def __post_init__(self) -> None:
        if not Path(self.folder).is_absolute():
            raise ValueError(f"folder: wanted an absolute path, got {self.folder!r}")
        for name in ("project", "service"):
            if not _NAME.fullmatch(getattr(self, name)):
                raise ValueError(f"{name}: wanted up to 63 of a-z 0-9 _, a letter first, got {getattr(self, name)!r}")
        if not _VARIABLE.fullmatch(self.redis_variable):
            # What was given may be the connection string itself.
            raise ValueError(
                "redis_variable: wanted the name of an environment variable, in A-Z 0-9 _; it holds the connection string"
            )
        if self.cache_seconds < 1:
            raise ValueError(f"cache_seconds: wanted at least 1, got {self.cache_seconds}")
        for name in ("grace", "patience"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}: wanted a finite number of at least 0, got {getattr(self, name)}")

    @property
    def root(self) -> Path:
        """``folder`` as a path."""
        return Path(self.folder)

    @property
    def registry(self) -> Path:
        """The registry, which alone says what is served: it is replaced by one rename."""
        return self.root / REGISTRY

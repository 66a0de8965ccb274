"""The ``[feature_store]`` section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, NotNegative

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
REGISTRY = "registry.db"
ONLINE = "online.db"
OFFLINE = "offline"
SERVED = "served.json"
Older = Literal["refuse", "serve", "skip"]
"""What a refresh does where a newer version is served than the one it was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class FeatureStoreConfig:
    """A Feast feature store that serves the published table."""

    folder: str = Field(
        description="Folder of Feast's registry and files. Every reader must see it under the same path."
    )
    enabled: bool = Field(default=False, description="Refresh the store after each nightly run and each rollback.")
    online: Literal["sqlite", "redis"] = Field(
        default="sqlite", description='The online store. "sqlite" lies in folder, "redis" is named by redis_variable.'
    )
    redis_variable: str = Field(
        default="CATALOG_RECTIFIER_REDIS",
        description="Environment variable with Feast's connection string (`host:port,password=...,ssl=true`). It is written nowhere.",
    )
    project: str = Field(default="catalog_rectifier", description="Feast's project.")
    service: str = Field(default="rectified_features", description="Feast's feature service.")
    cache_seconds: Count = Field(default=10, description="Seconds until readers notice a new version at the latest.")
    grace: NotNegative = Field(
        default=15.0, description="Seconds that a replaced version stays online. It should exceed cache_seconds."
    )
    patience: NotNegative = Field(default=60.0, description="Seconds that a refresh waits for another one to end.")

    @field_validator("folder")
    @classmethod
    def _check_folder(cls, folder: str) -> str:
        if not Path(folder).is_absolute():
            raise ValueError(f"wanted an absolute path, got {folder!r}")
        return folder

    @field_validator("project", "service")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"wanted up to 63 of a-z 0-9 _, a letter first, got {name!r}")
        return name

    @field_validator("redis_variable")
    @classmethod
    def _check_variable(cls, name: str) -> str:
        if not _VARIABLE.fullmatch(name):
            # The value is not repeated: it may be the connection string itself.
            raise ValueError("wanted the name of an environment variable, in A-Z 0-9 _; it holds the connection string")
        return name

    @property
    def root(self) -> Path:
        """``folder`` as a path."""
        return Path(self.folder)

    @property
    def registry(self) -> Path:
        """The registry. Replacing it by one rename switches the version that is served."""
        return self.root / REGISTRY

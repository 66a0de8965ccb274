"""The ``[publish]`` section, and the identity of the run that publishes."""

from __future__ import annotations

import dataclasses
import re
from datetime import date
from pathlib import Path

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, NotNegative

_REMOTE = re.compile(r"s3://[^/@\s]+/[^@\s]+")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class PublishConfig:
    """The published table."""

    uri: str = Field(description="The Delta table: a local path or `s3://bucket/key`.")
    keep_snapshots: Count = Field(default=30, description="Days that stay in the table, the newest.")
    vacuum_after_hours: NotNegative = Field(
        default=168.0,
        description="Hours until files of replaced versions are deleted. `rollback` reaches no further back. "
        "Where several machines publish, it must exceed the longest publish.",
    )
    rows_per_file: Count = Field(default=250_000, description="Most rows in a file of the table.")
    keep_trend: Count = Field(default=400, description="Days whose findings are kept beside the table, for the trend.")
    sequences: bool = Field(
        default=True, description="Publish sequence modalities segment by segment, not only their pooled feature."
    )
    behaviour: bool = Field(
        default=False,
        description="Publish each item's anchor, a unit vector, as the column `behaviour`. Ranking models gain from it.",
    )

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, uri: str) -> str:
        if not (Path(uri).is_absolute() or _REMOTE.fullmatch(uri)):
            raise ValueError("wanted an absolute path or s3://bucket/key (credentials belong in the environment)")
        if "%" in uri:
            # delta-rs reads such a path URL-decoded and looks for the log elsewhere.
            raise ValueError("a path with % cannot hold the table; choose another name")
        return uri

    @property
    def folder(self) -> Path | None:
        """The table's folder when it is local, else None."""
        return Path(self.uri) if Path(self.uri).is_absolute() else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """What makes two runs the same run: ``digest`` (lower-case hex, at least 64 bits) over the day, inputs, config and code.

    The other fields are provenance: they go into the commit and are never compared.
    """

    run_id: str
    as_of: date
    digest: str
    config_digest: str
    inputs_digest: str
    code_version: str

    @property
    def day(self) -> str:
        """The day as the table's partition value, YYYY-MM-DD."""
        return self.as_of.isoformat()

    @property
    def transaction(self) -> int:
        """The digest's last 63 bits: the version of Delta's application transaction."""
        return int(self.digest, 16) % 2**63


def app_id(day: str) -> str:
    """The application id under which Delta keeps the transaction of one day."""
    return f"catalog-rectifier/{day}"

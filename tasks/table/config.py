"""What a publish is told: where the table lies and how much of its past is kept, and which run is publishing."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

_REMOTE = re.compile(r"s3://[^/@\s]+/[^@\s]+")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HEX = re.compile(r"[0-9a-f]{16,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishConfig:
    """The published table.

    ``uri`` is an absolute local path or ``s3://bucket/key``. The newest ``keep_snapshots`` days stay visible. Files that the table no
    longer shows are deleted ``vacuum_after_hours`` after they were dropped: so far back can ``rollback`` go. Where publishers on several
    machines share a table it must exceed the longest publish. A day is written in files of at most ``rows_per_file`` rows. What runs found
    is kept beside the table for the newest ``keep_trend`` days. ``sequences`` False publishes of a sequence modality its pooled feature
    alone. Raises ValueError with the key.
    """

    uri: str
    keep_snapshots: int = 30
    vacuum_after_hours: float = 168.0
    rows_per_file: int = 250_000
    keep_trend: int = 400
    sequences: bool = True

    def __post_init__(self) -> None:
        if not (Path(self.uri).is_absolute() or _REMOTE.fullmatch(self.uri)):
            raise ValueError(
                "publish.uri: wanted an absolute path or s3://bucket/key (credentials belong in the environment)"
            )
        if "%" in self.uri:
            # delta-rs reads such a path URL-decoded and looks for the log elsewhere.
            raise ValueError("publish.uri: a path with % cannot hold the table; choose another name")
        for name in ("keep_snapshots", "rows_per_file", "keep_trend"):
            if getattr(self, name) < 1:
                raise ValueError(f"publish.{name}: wanted at least 1, got {getattr(self, name)}")
        if not (math.isfinite(self.vacuum_after_hours) and self.vacuum_after_hours >= 0):
            raise ValueError(
                f"publish.vacuum_after_hours: wanted a finite number of at least 0, got {self.vacuum_after_hours}"
            )

    @property
    def folder(self) -> Path | None:
        """The table's folder when it is local, else None."""
        return Path(self.uri) if Path(self.uri).is_absolute() else None


@dataclass(frozen=True, slots=True, kw_only=True)
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

    def __post_init__(self) -> None:
        if not _RUN_ID.fullmatch(self.run_id):
            raise ValueError(f"run_id: wanted up to 100 of A-Z a-z 0-9 . _ -, got {self.run_id!r}")
        if not _HEX.fullmatch(self.digest):
            raise ValueError(f"digest: wanted at least 16 lower-case hex digits, got {self.digest!r}")

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

"""Helpers of the export tests: run an export and read the folder."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

from tasks.export.npy import arrays_export
from tasks.export.parquet import parquet_export
from tasks.export.write import save_export
from tasks.table.config import PublishConfig
from tasks.table.snapshot import open_snapshot

FORMATS = {"npy": arrays_export, "parquet": parquet_export}


def export(
    uri: str, out: Path, format: str = "npy", *, version: int | None = None, day: str | None = None
) -> dict[str, Any]:
    """Do what the command does for a format without interactions."""
    wanted = None if day is None else date.fromisoformat(day)
    return save_export(out, open_snapshot(PublishConfig(uri=uri), version=version, day=wanted), FORMATS[format]())


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a folder."""
    return {x.name: x.read_bytes() for x in sorted(folder.iterdir())}


def manifest(folder: Path) -> dict[str, Any]:
    """Return the folder's manifest. Assert that it names exactly the files that are there, with sizes and digests."""
    files = contents(folder)
    about: dict[str, Any] = json.loads(files.pop("manifest.json"))
    assert {name: (x["size"], x["digest"]) for name, x in about["files"].items()} == {
        name: (len(content), hashlib.blake2b(content, digest_size=16).hexdigest()) for name, content in files.items()
    }
    return about

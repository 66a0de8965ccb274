"""Shared by the tests of exporting: what a folder says it holds, and an exporter to run, and to end, as a process of its own."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from datetime import date
from pathlib import Path
from typing import Any

from tasks.export.npy import arrays_export
from tasks.export.parquet import parquet_export
from tasks.export.write import Export, save_export
from tasks.table.config import PublishConfig
from tasks.table.snapshot import open_snapshot

FORMATS = {"npy": arrays_export, "parquet": parquet_export}


def export(
    uri: str, out: Path, format: str = "npy", *, version: int | None = None, day: str | None = None
) -> dict[str, Any]:
    """What the command does for a format without interactions."""
    made: Export = FORMATS[format]()
    wanted = None if day is None else date.fromisoformat(day)
    return save_export(out, open_snapshot(PublishConfig(uri=uri), version=version, day=wanted), made)


def manifest(folder: Path) -> dict[str, Any]:
    """The folder's manifest, which must name exactly the files that are there, with their sizes and digests."""
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    there = {x.name: x.read_bytes() for x in folder.iterdir() if x.name != "manifest.json"}
    assert {name: (x["size"], x["digest"]) for name, x in found["files"].items()} == {
        name: (len(content), hashlib.blake2b(content, digest_size=16).hexdigest()) for name, content in there.items()
    }
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {x.name: x.read_bytes() for x in sorted(folder.iterdir())}


if __name__ == "__main__":
    uri, out, event, pattern, file_bytes = sys.argv[1:]
    if file_bytes != "0":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes), int(file_bytes)))
    if event:
        from tests.support.flow.cli_process import Death, die_at

        die_at(Death(event, pattern))
    from tasks.errors import RectifierError

    try:
        export(uri, Path(out))
    except RectifierError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)

"""Write one day of one version as a folder for a consumer.

- A reader sees the old folder or the new one, never a part. The same rows give the same bytes.
- ``manifest.json`` names the version, day, run and sources, what each file holds, and the digest of every file.
- A repeat writes nothing. Another version replaces the folder in one step. A folder that is no export is never touched.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError, StorageError
from tasks.store.atomic_files import flushed_files, fsync, whole_folder
from tasks.store.store import MANIFEST, StageWriter
from tasks.table.embedding_models import EMBEDDING_MODEL
from tasks.table.snapshot import Snapshot

KIND = "catalog-rectifier export"
# Raise it when the same rows get other files, so that older folders are written again.
LAYOUT = 2
_RATE = ("mismatch_rate", "low", "high", "identifiable")
_RESULT = ("format", "version", "as_of", "run_id", "rows", "modalities", "contents", "digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One format. ``write`` fills a folder and returns the manifest's ``contents``.

    ``about`` (JSON): what the files depend on beside the snapshot. ``derived``: patterns of files that the consumer computes from the
    export and keeps in its folder. They are removed when the export is replaced.
    """

    format: str
    write: Callable[[Snapshot, StageWriter, Progress], dict[str, Any]]
    about: Mapping[str, Any] = field(default_factory=dict)
    derived: tuple[str, ...] = ()


def save_export(out: Path, snapshot: Snapshot, export: Export, progress: Progress = silent) -> dict[str, Any]:
    """Write ``snapshot`` to the folder ``out`` unless it holds exactly this export; return what was done, as JSON values.

    Raises InputError where ``out`` holds anything but an earlier export, StorageError where it cannot be written.
    """
    final = _place(out, snapshot)
    # Through JSON, so that equal values have equal types when compared with the manifest.
    about = json.loads(json.dumps(_about(snapshot, export), allow_nan=False))
    previous = _previous(final, export)
    if previous is not None and about.items() <= previous.items() and _is_whole(final, previous):
        return _result(final, previous, reused=True)
    try:
        with whole_folder(final) as folder:
            contents = export.write(snapshot, StageWriter(folder), progress)
            digest, files = flushed_files(folder, partial(hashlib.blake2b, digest_size=16))
            manifest = about | {"contents": contents, "files": files, "digest": digest}
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
            fsync(folder / MANIFEST)
    except OSError as error:
        raise StorageError(
            f"--out {out}: writing failed: {error.strerror or error}; nothing was exported; free or fix the disk, then run again"
        ) from error
    return _result(final, manifest, reused=False)


def _place(out: Path, snapshot: Snapshot) -> Path:
    """Return the export's folder, links followed. Raises InputError for a place that is not allowed."""
    if ":/" in str(out):
        raise InputError(f"--out {out}: wanted a local folder; export to one and upload it from there")
    try:
        final = out.expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"--out {out}: no such place ({error})") from error
    table = Path(snapshot.uri)
    if table.is_absolute() and final.is_relative_to(table.resolve()):
        raise InputError(f"--out {out}: lies in the published table; choose a folder of its own")
    return final


def _about(snapshot: Snapshot, export: Export) -> dict[str, Any]:
    commit = snapshot.commit
    rates = (commit.get("facts") or {}).get("modalities", {})
    return {
        "kind": KIND,
        "layout": LAYOUT,
        "format": export.format,
        "version": snapshot.version,
        "as_of": snapshot.day,
        "run_id": commit.get("run_id"),
        "rows": snapshot.rows,
        "modalities": {
            x.name: {"width": x.width, EMBEDDING_MODEL: x.embedding_model}
            | {name: rates.get(x.name, {}).get(name) for name in _RATE}
            for x in snapshot.modalities
        },
        "sources": {
            "table": snapshot.uri,
            "files": list(snapshot.paths),
            "run_digest": commit.get("digest"),
            **{name: commit.get(name) for name in ("config_digest", "inputs_digest", "code_version")},
        },
        **export.about,
    }


def _previous(final: Path, export: Export) -> dict[str, Any] | None:
    """Return the manifest of the export in ``final``, None for an empty place. Raises InputError for anything else."""
    if final.exists() and not final.is_dir():
        raise InputError(f"--out {final}: is a file; choose a folder of its own")
    names = sorted(x.name for x in final.iterdir()) if final.exists() else []
    if not names:
        return None
    try:
        manifest = json.loads((final / MANIFEST).read_text(encoding="utf-8")) if MANIFEST in names else {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"--out {final}: holds a {MANIFEST} that cannot be read; choose another folder or remove it"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise InputError(f"--out {final}: holds {names[0]} and is no export of this table; choose a folder of its own")
    known = {MANIFEST, *manifest.get("files", ())}
    for name in names:
        if name not in known and not any(fnmatch.fnmatchcase(name, x) for x in export.derived):
            raise InputError(
                f"--out {final}: holds {name}, which no export wrote; move it away or choose another folder"
            )
    return manifest


def _is_whole(final: Path, manifest: Mapping[str, Any]) -> bool:
    try:
        return all((final / name).stat().st_size == file["size"] for name, file in manifest["files"].items())
    except OSError:
        return False


def _result(final: Path, manifest: Mapping[str, Any], *, reused: bool) -> dict[str, Any]:
    files = manifest["files"]
    size = sum(x["size"] for x in files.values())
    facts = {name: manifest[name] for name in _RESULT}
    return {"out": str(final), "reused": reused, **facts, "files": len(files) + 1, "bytes": size}

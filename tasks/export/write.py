"""Exporting one day of one version as a folder for a consumer: whole or not at all, the same bytes for the same rows.

The folder's ``manifest.json`` says what was exported (version, day, run, sources), what each file holds, and the digest of every file.
A repeat finds its folder and leaves it; another version replaces it in one step. A folder that is no export is never touched.
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
LAYOUT = 1
"""Raised when the same rows are to be exported in another way, so that folders of before are written anew."""
_RATE = ("mismatch_rate", "low", "high", "identifiable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One format: ``write`` fills a folder and returns what the manifest says of its files.

    ``about`` (JSON) is what the files depend on beside the snapshot. ``derived`` are patterns of files that the consumer itself computes
    from the export and keeps in its folder: they go with it when it is replaced.
    """

    format: str
    write: Callable[[Snapshot, StageWriter, Progress], dict[str, Any]]
    about: Mapping[str, Any] = field(default_factory=dict)
    derived: tuple[str, ...] = ()


def save_export(out: Path, snapshot: Snapshot, export: Export, progress: Progress = silent) -> dict[str, Any]:
    """Write ``snapshot`` to the folder ``out`` unless exactly this export lies there; what was done, as JSON values.

    Raises InputError where ``out`` holds anything but an earlier export, StorageError where it cannot be written.
    """
    final = _place(out, snapshot)
    about = _about(snapshot, export)
    before = _there(final, export)
    if (
        before is not None
        and _is_whole(final, before)
        and all(before.get(name) == value for name, value in about.items())
    ):
        return _result(final, before, reused=True)
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
    """Where the folder comes to lie, links followed. Raises InputError for a place that cannot be one."""
    if "://" in str(out) or ":/" in str(out)[:6]:
        raise InputError(f"--out {out}: wanted a local folder; export to one and upload it from there")
    try:
        final = out.expanduser().resolve()
        table = Path(snapshot.uri).resolve() if Path(snapshot.uri).is_absolute() else None
    except (OSError, RuntimeError) as error:
        raise InputError(f"--out {out}: no such place ({error})") from error
    if table is not None and (final == table or table in final.parents):
        raise InputError(f"--out {out}: lies in the published table; choose a folder of its own")
    if not final.name:
        raise InputError(f"--out {out}: wanted a folder of its own")
    return final


def _about(snapshot: Snapshot, export: Export) -> dict[str, Any]:
    commit = snapshot.commit
    facts = commit.get("facts")
    told = facts.get("modalities", {}) if isinstance(facts, dict) else {}
    rates = {x.name: {name: told.get(x.name, {}).get(name) for name in _RATE} for x in snapshot.modalities}
    about: dict[str, Any] = {
        "kind": KIND,
        "layout": LAYOUT,
        "format": export.format,
        "version": snapshot.version,
        "as_of": snapshot.day,
        "run_id": commit.get("run_id"),
        "rows": snapshot.rows,
        "modalities": {
            x.name: {"width": x.width, EMBEDDING_MODEL: x.embedding_model} | rates[x.name] for x in snapshot.modalities
        },
        "sources": {
            "table": snapshot.uri,
            "files": list(snapshot.paths),
            "run_digest": commit.get("digest"),
            **{name: commit.get(name) for name in ("config_digest", "inputs_digest", "code_version")},
        },
    }
    # As it will be read back, so that what is compared are the same types.
    return dict(json.loads(json.dumps(about | dict(export.about), allow_nan=False)))


def _there(final: Path, export: Export) -> dict[str, Any] | None:
    """The manifest of the export that lies there, None where nothing does. Raises InputError for anything else."""
    try:
        names = sorted(x.name for x in final.iterdir()) if final.is_dir() or final.exists() else []
        if not names:
            return None
        found = json.loads((final / MANIFEST).read_text()) if MANIFEST in names else {}
    except NotADirectoryError:
        raise InputError(f"--out {final}: is a file; choose a folder of its own") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"--out {final}: holds a {MANIFEST} that cannot be read; choose another folder or remove it"
        ) from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise InputError(f"--out {final}: holds {names[0]} and is no export of this table; choose a folder of its own")
    known = {MANIFEST, *(str(x).split("/")[0] for x in found.get("files", {}))}
    foreign = [
        x for x in names if x not in known and not any(fnmatch.fnmatchcase(x, pattern) for pattern in export.derived)
    ]
    if foreign:
        raise InputError(
            f"--out {final}: holds {foreign[0]}, which no export wrote; move it away or choose another folder"
        )
    return found


def _is_whole(final: Path, manifest: Mapping[str, Any]) -> bool:
    try:
        return all((final / name).stat().st_size == file["size"] for name, file in manifest["files"].items())
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def _result(final: Path, manifest: Mapping[str, Any], *, reused: bool) -> dict[str, Any]:
    told = {
        name: manifest[name]
        for name in ("format", "version", "as_of", "run_id", "rows", "modalities", "contents", "digest")
    }
    files = manifest["files"]
    return {
        "out": str(final),
        "reused": reused,
        **told,
        "files": len(files) + 1,
        "bytes": sum(x["size"] for x in files.values()),
    }

"""Tables of other formats: Delta tables are read, Iceberg and Hudi tables are refused by name.

Their folders also hold rows that were deleted or replaced, so their Parquet files must never be read as they lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from tasks.errors import InputError
from tasks.object_store import GLOB, S3, Parts, StoredFile, reading, resolve, storage_options
from tasks.source.layout.partitions import NO_DAY, Folders

DELTA, HUDI, ICEBERG = "_delta_log", ".hoodie", "metadata"
# How far above an input we look for the table that it would be a part of.
ABOVE = 2
YOUNGER = "the table is younger than"
UNREADABLE_FEATURES = {"deletionVectors": "deletion vectors", "columnMapping": "column mapping"}


@dataclass(frozen=True, slots=True)
class DeltaVersion:
    """The files of one version of a Delta table with the partition of each as folders: ``(["dt=2026-05-02"], 0)``. ``what`` names it."""

    what: str
    filesystem: fs.FileSystem
    folders: Folders


def delta_root(uri: str) -> bool:
    """Whether ``uri`` is a Delta table's folder. Raises InputError for a part of one, and for Iceberg and Hudi tables."""
    with reading(uri):
        filesystem, path = resolve(uri)
        plain = path.split("/")
        globbed = next((i for i, part in enumerate(plain) if GLOB & set(part)), None)
        if globbed is not None and filesystem.get_file_info(path).type != fs.FileType.Directory:
            plain = plain[:globbed]
        folders = ["/".join(plain[: len(plain) - up]) for up in range(ABOVE + 1) if len(plain) - up > 0]
        folders = [
            folder for folder in folders if folder and folder != "." and (not uri.startswith(S3) or "/" in folder)
        ]
        marks = [f"{folder}/{mark}" for folder in folders for mark in (DELTA, HUDI, ICEBERG)]
        there = [info.path for info in filesystem.get_file_info(marks) if info.type == fs.FileType.Directory]
    for mark in there:
        folder, _, name = mark.rpartition("/")
        table = f"{S3}{folder}" if uri.startswith(S3) else folder
        if name == HUDI:
            raise InputError(_refused(uri, "a Hudi table", table))
        if name == ICEBERG and _is_iceberg(filesystem, mark):
            raise InputError(_refused(uri, "an Iceberg table", table))
        if name == DELTA and folder.rstrip("/") == path.rstrip("/"):
            return True
        if name == DELTA:
            raise InputError(
                f"{uri}: is a part of the Delta table {table}, whose files also keep deleted rows; name {table}"
            )
    return False


def check_folders(uri: str, listed: list[Parts], matched: list[Parts]) -> None:
    """Raise InputError if ``matched`` files below ``uri`` lie in a table of another format, as its marks among all ``listed`` paths tell."""
    for parts in listed:
        found = _mark(parts)
        if found is None or (matched and not any(x[: len(found[1])] == found[1] for x in matched)):
            continue
        name, folder = found
        table = "/".join((uri.rstrip("/"), *folder)) if not GLOB & set(uri) else "/".join(folder) or uri
        if name == DELTA:
            raise InputError(
                f"{uri}: holds the Delta table {table}, whose files also keep deleted rows; name that folder"
            )
        raise InputError(_refused(uri, name, table))


def _mark(parts: Parts) -> tuple[str, Parts] | None:
    """Which format a path is a mark of, and the folder of that table."""
    for mark, name in ((DELTA, DELTA), (HUDI, "a Hudi table")):
        if mark in parts:
            return name, parts[: parts.index(mark)]
    if parts[-1].startswith(".hoodie_partition_metadata"):
        return "a Hudi table", parts[:-1]
    if len(parts) > 1 and parts[-2] == ICEBERG and _iceberg_name(parts[-1]):
        return "an Iceberg table", parts[:-2]
    return None


def _iceberg_name(name: str) -> bool:
    return (
        name.endswith(".metadata.json")
        or name == "version-hint.text"
        or (name.startswith("snap-") and name.endswith(".avro"))
    )


def _is_iceberg(filesystem: fs.FileSystem, folder: str) -> bool:
    infos = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    return any(_iceberg_name(info.base_name) for info in infos)


def _refused(uri: str, what: str, table: str) -> str:
    return f"{uri}: belongs to {what} ({table}), which cannot be read: its files also hold replaced rows; export it to Parquet or Delta"


def open_delta(uri: str, setting: str, version: int | None, until: date | None = None) -> DeltaVersion:
    """The files of ``version`` of a Delta table, else of the version that was current when the day ``until`` (UTC) ended, else of the newest.

    Where the table is younger than that day, its newest version is read, and ``what`` names both. ``setting`` is the key of ``version``.
    Raises InputError where there is no such version or it cannot be read file by file.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    filesystem, root = resolve(uri)
    try:
        with reading(uri):
            table = DeltaTable(uri, storage_options=storage_options())
        newest, why = table.version(), "set by the config"
        if version is None:
            version, why = _version_of(table, until)
        if not 0 <= version <= newest:
            raise InputError(f"{setting} = {version}: {uri} has versions up to {newest}")
        table.load_as_version(version)
        _check_features(uri, table)
        actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        columns = table.metadata().partition_columns
    except DeltaError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{uri}: this Delta table cannot be read ({reason}); check its _delta_log, and {setting}"
        ) from error
    folders = {}
    for action in sorted(actions, key=lambda x: str(x["path"])):
        path = f"{root}/{unquote(action['path'])}"
        file = StoredFile(
            path=path,
            uri=S3 + path if uri.startswith(S3) else path,
            size=action["size_bytes"],
            modified_ns=action["modification_time"] * 10**6,
        )
        values = [(name, action[f"partition.{name}"]) for name in columns]
        folders[file] = ([f"{name}={NO_DAY[0] if value is None else value}" for name, value in values], 0)
    return DeltaVersion(f"Delta table, version {version} of {newest} ({why})", filesystem, folders)


def _version_of(table: Any, until: date | None) -> tuple[int, str]:
    """The version to read, and why."""
    newest = int(table.version())
    if until is None:
        return newest, "the newest"
    end = datetime.combine(until, time.max, UTC).timestamp() * 1000
    before = [entry["version"] for entry in table.history() if entry["timestamp"] <= end]
    if before:
        return max(before), f"current at the end of {until} UTC"
    return newest, f"the newest: {YOUNGER} {until}"


def _check_features(uri: str, table: Any) -> None:
    protocol, configuration = table.protocol(), table.metadata().configuration
    features = {x for x in (protocol.reader_features or ()) if x in UNREADABLE_FEATURES}
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        features.add("columnMapping")
    if features:
        what = " and ".join(UNREADABLE_FEATURES[x] for x in sorted(features))
        raise InputError(
            f"{uri}: this Delta table uses {what}, which cannot be read file by file; switch it off (REORG TABLE ... APPLY (PURGE)),"
            " or export to Parquet"
        )

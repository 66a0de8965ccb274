"""Publish one run to the versioned table: write files, read them back, then make one atomic commit.

The commit removes the day's former files and those of days beyond ``keep_snapshots``. It holds the run's provenance, and its digest as
Delta's application transaction. A new modality adds its columns in the same commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions

from rectifier_core.base.published_records import TableVersion
from tasks.errors import InputError, StorageError, TableHeldError
from tasks.object_store import storage_options
from tasks.store.store import Ref
from tasks.table.commit import NO_HOOKS, flushed_log
from tasks.table.config import PublishConfig, RunIdentity, app_id
from tasks.table.files import RUN_AGAIN, TableFiles, one_line, storage_errors
from tasks.table.log import LOG, LOOK, DataFile, days_shown, open_table, part_path, read_commit, visible_files
from tasks.table.read_back import audit_files
from tasks.table.rows import open_rows
from tasks.table.write import WrittenFile, write_files

__all__ = ["PublishConfig", "RunIdentity", "find_published", "publish_rectified"]


def find_published(config: PublishConfig, identity: RunIdentity) -> TableVersion | None:
    """Return the table's newest version if it shows exactly this run for its day, else None.

    Call it under the table's lock. Raises InputError if the day is too old to stay in the table or the folder holds something else,
    StorageError if the table cannot be read.
    """
    table, visible = _open(config)
    of_day = [x for x in visible if x.day == identity.day]
    if table is not None and of_day:
        recorded = table.transaction_version(app_id(identity.day))
        if recorded == identity.transaction and all(x.transaction == recorded for x in of_day):
            return _version(config, identity, table.version(), sum(x.rows or 0 for x in of_day), published=False)
    _replaced_days(config, identity, visible)
    return None


def publish_rectified(
    config: PublishConfig,
    identity: RunIdentity,
    source: Ref,
    rectified: Ref,
    facts: Mapping[str, object],
    *,
    anchors: Ref | None = None,
) -> TableVersion:
    """Publish the rows of ``rectified`` (features, status, trust, segments) under the ids of ``source`` as the day's partition.

    ``anchors`` are published too if ``config.behaviour`` is true. ``facts`` is JSON (no NaN) and goes into the commit. Call it under the
    table's lock, after ``find_published`` returned None. Raises InputError for rows that cannot join the table, TableHeldError if another
    process committed first, StorageError if writing, reading back or committing failed. Nothing is visible then, and the files of the
    attempt are deleted.
    """
    if config.behaviour and anchors is None:
        raise ValueError("behaviour is to be published: wanted the anchors")
    behaviour = anchors if config.behaviour else None
    rows = open_rows(source, rectified, identity.run_id, sequences=config.sequences, anchors=behaviour)
    plain = json.loads(json.dumps(facts, allow_nan=False))
    provenance = asdict(identity) | {"as_of": identity.day, "rows": len(rows), "facts": plain}
    table, visible = _open(config)
    days = _replaced_days(config, identity, visible)
    schema = rows.schema.insert(0, pa.field("as_of", pa.date32()))
    if table is not None and any(x.day not in days for x in visible):
        schema = _merged(config.uri, pa.schema(table.schema().to_arrow()), schema)
    files, version = TableFiles(config.uri), 0 if table is None else table.version() + 1
    written: list[WrittenFile] = []
    try:
        with storage_errors(config.uri, "writing the rows"):
            for file in write_files(files, rows, config.rows_per_file, lambda i: part_path(identity, version, i)):
                written.append(file)
        with storage_errors(config.uri, "reading back the rows"):
            provenance["item_ids_digest"] = audit_files(files, rows, written)
        try:
            _commit(files, identity, version, days, schema, written, provenance)
        except (OSError, DeltaError, pa.ArrowException) as error:
            _check_landed(files, version, written, error)
    except BaseException:
        _discard(files, version, written)
        raise
    return _version(config, identity, version, len(rows), published=True)


def _version(config: PublishConfig, run: RunIdentity, version: int, rows: int, *, published: bool) -> TableVersion:
    return TableVersion(
        uri=config.uri, version=version, as_of=run.day, run_id=run.run_id, rows=rows, published=published
    )


def _open(config: PublishConfig) -> tuple[DeltaTable | None, list[DataFile]]:
    """Return the table and its data files. Raises InputError if there is no table but the folder holds something else."""
    table = open_table(config.uri)
    with storage_errors(config.uri, "reading it", LOOK):
        if table is not None:
            return table, visible_files(table)
        # A publisher that was killed before its first commit leaves such names.
        foreign = [x for x in TableFiles(config.uri).names() if not x.startswith(("as_of=", ".", LOG))]
    if foreign:
        raise InputError(
            f"publish.uri: {config.uri} holds {foreign[0]} and no table; choose a folder of its own for the published table"
        )
    return None, []


def _replaced_days(config: PublishConfig, identity: RunIdentity, visible: list[DataFile]) -> list[str]:
    """Return the days whose files the commit removes: the run's own, and those beyond ``keep_snapshots``."""
    days = days_shown(visible)
    kept = sorted({identity.day, *days})[-config.keep_snapshots :]
    if identity.day not in kept:
        raise InputError(
            f"publish.keep_snapshots: {identity.day} is older than the {config.keep_snapshots} days that the table keeps"
            f" ({kept[0]} to {kept[-1]}); raise it to publish that day"
        )
    return [identity.day, *(day for day in days if day not in kept)]


def _merged(uri: str, existing: pa.Schema, added: pa.Schema) -> pa.Schema:
    # Delta does not record the types of a single file, so a column can be added or left out, but its type cannot change.
    for field in added:
        if field.name in existing.names and existing.field(field.name).type != field.type:
            raise InputError(
                f"publish.uri: column {field.name} is {existing.field(field.name).type} in {uri} and {field.type} in this run;"
                " publish to a new table, or keep the type"
            )
    new = [field for field in added if field.name not in existing.names]
    return pa.schema([*(x for x in existing if x.name != "run_id"), *new, existing.field("run_id")])


def _commit(
    files: TableFiles,
    identity: RunIdentity,
    version: int,
    days: list[str],
    schema: pa.Schema,
    written: list[WrittenFile],
    provenance: dict[str, Any],
) -> None:
    adds = [
        AddAction(x.path, x.info.size, {"as_of": identity.day}, x.info.mtime_ns // 10**6, True, x.stats)
        for x in written
    ]
    # Without retries the commit takes exactly this version or fails.
    properties = CommitProperties(
        custom_metadata=provenance,
        max_commit_retries=0,
        app_transactions=[Transaction(app_id(identity.day), identity.transaction)],
    )
    with flushed_log(files) as uri:
        if version == 0:
            create_table_with_add_actions(
                uri,
                Schema.from_arrow(schema),
                adds,
                mode="error",
                partition_by=["as_of"],
                storage_options=storage_options(),
                commit_properties=properties,
                post_commithook_properties=NO_HOOKS,
            )
        else:
            DeltaTable(uri, version - 1, storage_options=storage_options()).create_write_transaction(
                [*adds],
                "overwrite",
                schema,
                ["as_of"],
                [("as_of", "in", days)],
                commit_properties=properties,
                post_commithook_properties=NO_HOOKS,
            )


def _check_landed(files: TableFiles, version: int, written: list[WrittenFile], error: Exception) -> None:
    """Return if the commit took effect in spite of ``error``, else raise what the user must know.

    In S3 the answer to a commit can get lost, and another process may have published the very same run.
    """
    try:
        added = read_commit(files, version).added
    except FileNotFoundError:
        raise StorageError(f"table {files.uri}: the commit failed: {one_line(error)}; {RUN_AGAIN}") from error
    except OSError as unknown:
        raise StorageError(
            f"table {files.uri}: finding out whether the commit landed failed: {one_line(unknown)}; run again: that tells"
        ) from unknown
    if not {x.path for x in written} <= added.keys():
        raise TableHeldError(
            f"table {files.uri}: another run committed while this one was publishing; nothing of it was published, run it again"
        ) from error
    if files.root is not None and isinstance(error, OSError) and not isinstance(error, FileExistsError):
        raise StorageError(
            f"table {files.uri}: flushing version {version} failed: {one_line(error)}; it is visible but may not outlive a power cut;"
            " check the disk"
        ) from error


def _discard(files: TableFiles, version: int, written: list[WrittenFile]) -> None:
    """Delete an attempt's files from a local disk, unless the commit of ``version`` took effect.

    In S3 the sweep deletes them later: a commit that was reported as failed may still take effect.
    """
    if files.root is None:
        return
    try:
        added = read_commit(files, version).added
    except FileNotFoundError:
        added = {}
    except (OSError, ValueError):
        return
    for file in written:
        if file.path not in added:
            files.delete(file.path)

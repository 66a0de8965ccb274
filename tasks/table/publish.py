"""Publishing one run to the versioned table: write, audit, then one atomic commit.

Readers never see rows that were not audited, nor one run's rows beside another's of the same day. The commit drops the day's former files
and those of days beyond ``keep_snapshots``, carries the run's provenance, and keeps its digest as Delta's application transaction. It also
brings a new modality's columns: delta-rs changes the schema within an overwrite of chosen partitions. On a local disk the data is flushed
before the commit, and the commit before it takes its name (``table_commit``), since delta-rs flushes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions

from rectifier_core.base.published_records import TableVersion
from tasks.errors import InputError, RectifierError, StorageError, TableHeldError
from tasks.store.store import Ref
from tasks.table.commit import LogCopy, log_copy
from tasks.table.config import PublishConfig, RunIdentity, app_id
from tasks.table.files import RUN_AGAIN, TableFiles, one_line, storage_errors, storage_options
from tasks.table.log import LOG, LOOK, DataFile, attempt_of, days_shown, open_table, part_path, read_log, visible_files
from tasks.table.read_back import audit_files
from tasks.table.rows import open_rows
from tasks.table.write import WrittenFile, write_files

__all__ = ["PublishConfig", "RunIdentity", "find_published", "publish_rectified"]

# A checkpoint and a clean-up of the log are no part of a run's commit: ``sweep_table`` sees to the first, and nothing drops history.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def find_published(config: PublishConfig, identity: RunIdentity) -> TableVersion | None:
    """The table's newest version if it shows exactly this run for its day, else None: never published, another run's, or rolled back.

    Call it under the table's lock. Raises InputError where the day could not stay in the table or the table is a foreign one,
    StorageError where it cannot be read.
    """
    table = open_table(config.uri)
    if table is None:
        _check_empty(config)
        return None
    with storage_errors(config.uri, "reading it", LOOK):
        shown = visible_files(table)
        recorded = table.transaction_version(app_id(identity.day))
    of_day = [x for x in shown if x.day == identity.day]
    if of_day and recorded == identity.transaction and all(x.transaction == recorded for x in of_day):
        return TableVersion(
            uri=config.uri,
            version=table.version(),
            as_of=identity.day,
            run_id=of_day[0].run_id or identity.run_id,
            rows=sum(x.rows or 0 for x in of_day),
            published=False,
        )
    _replaced_days(config, identity, shown)
    return None


def publish_rectified(
    config: PublishConfig, identity: RunIdentity, source: Ref, rectified: Ref, facts: Mapping[str, object]
) -> TableVersion:
    """Publish the rows of ``rectified`` (features, status, trust, segments) under the ids of ``source`` as the day's partition.

    ``facts`` is JSON (no NaN) and goes into the commit with the identity. Call it under the table's lock, after ``find_published`` gave
    None. Raises InputError for rows that cannot join the table, TableHeldError when another process committed first, StorageError when
    writing or the audit failed; nothing is visible then, and the files of the attempt are removed.
    """
    rows = open_rows(source, rectified, identity.run_id, sequences=config.sequences)
    provenance = _provenance(identity, len(rows), facts)
    table = open_table(config.uri)
    if table is None:
        _check_empty(config)
    with storage_errors(config.uri, "reading it", LOOK):
        _plan(config, identity, table, rows.schema)
    files = TableFiles(config.uri)
    written: list[WrittenFile] = []
    try:
        with storage_errors(config.uri, "writing the rows"):
            attempt = _attempt(files, identity, table)
            for file in write_files(
                files, rows, config.rows_per_file, lambda index: part_path(identity, attempt, index)
            ):
                written.append(file)
        with storage_errors(config.uri, "reading back the rows"):
            provenance["item_ids_digest"] = audit_files(files, rows, written)
    except BaseException:
        _discard(files, written)
        raise
    return _commit_or_yield(config, identity, files, rows.schema, written, provenance)


def _check_empty(config: PublishConfig) -> None:
    """Refuse to make a table of a folder that holds anything but what a publisher killed before its first commit leaves."""
    with storage_errors(config.uri, "looking into it", LOOK):
        foreign = [x for x in TableFiles(config.uri).names() if not x.startswith(("as_of=", ".", LOG))]
    if foreign:
        raise InputError(
            f"publish.uri: {config.uri} holds {foreign[0]} and no table; choose a folder of its own for the published table"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What a commit changes beside adding files: the days whose files it drops, and the schema that it leaves."""

    days: tuple[str, ...]
    schema: pa.Schema


def _provenance(identity: RunIdentity, rows: int, facts: Mapping[str, object]) -> dict[str, object]:
    try:
        plain = json.loads(json.dumps(facts, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"facts: wanted JSON values, {error}") from error
    return {
        "run_id": identity.run_id,
        "as_of": identity.day,
        "digest": identity.digest,
        "config_digest": identity.config_digest,
        "inputs_digest": identity.inputs_digest,
        "code_version": identity.code_version,
        "rows": rows,
        "facts": plain,
    }


def _plan(config: PublishConfig, identity: RunIdentity, table: DeltaTable | None, schema: pa.Schema) -> _Plan:
    partitioned = schema.insert(0, pa.field("as_of", pa.date32()))
    if table is None:
        return _Plan(days=(), schema=partitioned)
    shown = visible_files(table)
    days = _replaced_days(config, identity, shown)
    if all(x.day in days for x in shown):
        return _Plan(days=days, schema=partitioned)
    return _Plan(days=days, schema=_merged(config.uri, pa.schema(table.schema().to_arrow()), partitioned))


def _replaced_days(config: PublishConfig, identity: RunIdentity, shown: list[DataFile]) -> tuple[str, ...]:
    kept = sorted({identity.day, *days_shown(shown)})[-config.keep_snapshots :]
    if identity.day not in kept:
        raise InputError(
            f"publish.keep_snapshots: {identity.day} is older than the {config.keep_snapshots} days that the table keeps"
            f" ({kept[0]} to {kept[-1]}); raise it to publish that day"
        )
    return (identity.day, *(day for day in days_shown(shown) if day not in kept))


def _merged(uri: str, existing: pa.Schema, added: pa.Schema) -> pa.Schema:
    # Delta keeps no record of which file holds which type, so a column can join or stay away but never change.
    for field in added:
        if field.name in existing.names and existing.field(field.name).type != field.type:
            raise InputError(
                f"publish.uri: column {field.name} is {existing.field(field.name).type} in {uri} and {field.type} in this run;"
                " publish to a new table, or keep the type"
            )
    new = [field for field in added if field.name not in existing.names]
    return pa.schema([*(x for x in existing if x.name != "run_id"), *new, existing.field("run_id")])


def _attempt(files: TableFiles, identity: RunIdentity, table: DeltaTable | None) -> int:
    """The attempt to name this run's files by: one whose names no version, visible or past, refers to.

    Files of a killed attempt that no commit knows are written over; a run that is published again after a rollback takes new names.
    """
    there = {
        x.path: number
        for x in files.walk(f"as_of={identity.day}")
        if (number := attempt_of(x.path, identity)) is not None
    }
    if not there:
        return 0
    known = {x.path for x in visible_files(table)} if table is not None else set()
    for entry in read_log(files):
        known.update(entry.added, entry.removed)
    return max((number + 1 for path, number in there.items() if path in known), default=0)


def _commit_or_yield(
    config: PublishConfig,
    identity: RunIdentity,
    files: TableFiles,
    schema: pa.Schema,
    written: list[WrittenFile],
    provenance: dict[str, object],
) -> TableVersion:
    """Commit; where that fails, find out what really landed before anything is removed, since an error can follow a commit that took."""
    before: int | None = None
    try:
        with log_copy(files) as copy:
            table = open_table(copy.uri)
            before = table.version() if table is not None else -1
            version = _commit(config, identity, copy, table, schema, written, provenance)
            copy.reveal_commit(version)
    except (OSError, DeltaError, pa.ArrowException, RectifierError) as error:
        with storage_errors(config.uri, "finding out whether the commit landed", "run again: that tells"):
            log, newest = read_log(files), open_table(config.uri)
        ours = {x.path for x in written}
        # An old version may have had files of these names, which were swept since.
        shown = newest is not None and ours <= {x.path for x in visible_files(newest)}
        since = [
            x.version for x in log if ours <= x.added.keys() and (shown or (before is not None and x.version > before))
        ]
        landed = since[-1] if since else None
        if landed is None:
            _discard(files, written)
            if isinstance(error, RectifierError):
                raise
            if isinstance(error, (CommitFailedError, FileExistsError)) or (
                before is not None and log and log[-1].version > before
            ):
                raise TableHeldError(
                    f"table {config.uri}: another run committed while this one was publishing; nothing of it was published, run it again"
                ) from error
            raise StorageError(f"table {config.uri}: the commit failed: {one_line(error)}; {RUN_AGAIN}") from error
        version = landed
    with storage_errors(
        config.uri, f"flushing version {version}", "it is visible but may not outlive a power cut; check the disk"
    ):
        files.flush(LOG)
    rows = sum(x.rows.stop - x.rows.start for x in written)
    return TableVersion(
        uri=config.uri, version=version, as_of=identity.day, run_id=identity.run_id, rows=rows, published=True
    )


def _commit(
    config: PublishConfig,
    identity: RunIdentity,
    copy: LogCopy,
    table: DeltaTable | None,
    schema: pa.Schema,
    written: list[WrittenFile],
    provenance: dict[str, object],
) -> int:
    plan = _plan(config, identity, table, schema)
    there = copy.files.entries(x.path for x in written)
    gone = [x.path for x in written if x.path not in there or there[x.path].size != x.entry.size]
    if gone:
        raise StorageError(
            f"table {config.uri}: {gone[0]} changed between writing and committing; nothing was published, run again"
        )
    now = {x.path for x in visible_files(table)} if table is not None else set()
    if any(x.path in now for x in written):
        raise TableHeldError(f"table {config.uri}: another process published this very run; run again to see it")
    properties = CommitProperties(
        custom_metadata=dict(provenance),
        max_commit_retries=0,
        app_transactions=[Transaction(app_id(identity.day), identity.transaction)],
    )
    adds = [_add_action(x, identity.day) for x in written]
    if table is None:
        create_table_with_add_actions(
            copy.uri,
            Schema.from_arrow(plan.schema),
            adds,
            mode="error",
            partition_by=["as_of"],
            storage_options=storage_options(),
            commit_properties=properties,
            post_commithook_properties=NO_HOOKS,
        )
        return 0
    table.create_write_transaction(
        [*adds],
        "overwrite",
        plan.schema,
        ["as_of"],
        [("as_of", "in", list(plan.days))],
        commit_properties=properties,
        post_commithook_properties=NO_HOOKS,
    )
    # With no retries a commit either takes the very next version or fails.
    return table.version() + 1


def _add_action(file: WrittenFile, day: str) -> AddAction:
    return AddAction(file.path, file.entry.size, {"as_of": day}, int(file.entry.modified * 1000), True, file.stats)


def _discard(files: TableFiles, written: list[WrittenFile]) -> None:
    """Remove an attempt's files from a local table, but for those that a commit names: where a disk takes no locks another process may have
    published the very same run, under the very same names. In a shared store they are all left to the sweep, for it may do so yet."""
    if files.root is None or not written:
        return
    try:
        named = {path for entry in read_log(files) for path in entry.added}
    except (OSError, ValueError):
        return
    for file in written:
        if file.path not in named:
            files.delete(file.path)

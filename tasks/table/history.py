"""The published table's past: which versions there are, and going back to one of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError

from rectifier_core.base.published_records import TableVersion
from tasks.errors import TableHeldError
from tasks.table.commit import log_copy
from tasks.table.config import PublishConfig, app_id
from tasks.table.files import TableFiles, storage_errors, storage_options
from tasks.table.log import LOG, LOOK, DataFile, LogEntry, open_table, read_log, visible_files
from tasks.table.publish import NO_HOOKS
from tasks.table.snapshot import existing_table, files_of_version

_OPERATIONS = {"CREATE TABLE": "publish", "WRITE": "publish", "RESTORE": "rollback"}


def list_versions(config: PublishConfig) -> list[dict[str, Any]]:
    """Every version that the log still holds, newest first, as JSON values.

    Each has ``version, timestamp`` (UTC, ISO), ``operation`` ("publish", "rollback" or another tool's word), ``current`` (bool), ``days``
    (shown in it), ``restorable`` (bool: all its files are still there), ``restored_version`` (of a rollback) and, where this pipeline
    committed it, ``as_of, run_id, rows, modalities`` (facts by name), ``config_digest, inputs_digest, code_version``. Raises InputError
    where there is no table, StorageError where it cannot be read.
    """
    table = existing_table(config)
    files = TableFiles(config.uri)
    with storage_errors(config.uri, "reading its versions", LOOK):
        there = {x.path for x in files.walk()}
        return [_version(entry, shown, there, table.version()) for entry, shown in _replay(config, read_log(files))][
            ::-1
        ]


def _replay(config: PublishConfig, entries: list[LogEntry]) -> Iterator[tuple[LogEntry, dict[str, str]]]:
    """Each commit with the files that its version shows, path to day."""
    shown: dict[str, str] = {}
    for entry in entries:
        if entry is entries[0] and entry.version > 0:
            # Another tool has cleaned the log: what came before is in a checkpoint only.
            table = open_table(config.uri, entry.version)
            shown = {x.path: x.day for x in visible_files(table)} if table is not None else {}
        else:
            shown = {path: day for path, day in shown.items() if path not in entry.removed} | entry.added
        yield entry, shown


def _version(entry: LogEntry, shown: dict[str, str], there: set[str], current: int) -> dict[str, Any]:
    info, facts = entry.info, entry.info.get("facts")
    return {
        "version": entry.version,
        "timestamp": datetime.fromtimestamp(entry.timestamp / 1000, UTC).isoformat(timespec="milliseconds"),
        "operation": _OPERATIONS.get(str(info.get("operation")), str(info.get("operation", "unknown")).lower()),
        "current": entry.version == current,
        "days": sorted(set(shown.values())),
        "restorable": shown.keys() <= there,
        "restored_version": info.get("restored_version"),
        "modalities": facts.get("modalities", {}) if isinstance(facts, dict) else {},
        **{key: info.get(key) for key in ("as_of", "run_id", "rows", "config_digest", "inputs_digest", "code_version")},
    }


def roll_back(config: PublishConfig, to: int) -> TableVersion:
    """Make the table show exactly what version ``to`` showed, as a new commit; nothing of the versions between is lost.

    The result names the newest day shown; its ``published`` is False when the table shows that version's files already, and nothing is
    committed then. Call it under the table's lock. Raises InputError for a version that does not exist or whose files are gone,
    TableHeldError when another process commits first, StorageError when the commit fails.
    """
    table = existing_table(config)
    files = TableFiles(config.uri)
    with storage_errors(config.uri, "reading its versions", LOOK):
        log = read_log(files)
    wanted = files_of_version(config, log, to, asked="--to")
    with storage_errors(config.uri, "reading it", LOOK):
        shown = visible_files(table)
        if [x.path for x in shown] == [x.path for x in wanted]:
            return _shown_version(config, table.version(), shown, published=False)
        properties = CommitProperties(
            custom_metadata={"restored_version": to},
            max_commit_retries=0,
            app_transactions=_transactions(table, wanted),
        )
    version = table.version() + 1
    with storage_errors(
        config.uri, f"rolling back to version {to}", "free or fix the storage, look at its versions, then try again"
    ):
        try:
            with log_copy(files) as copy:
                # The files of that version were found, and the copy of the log has none.
                DeltaTable(copy.uri, version - 1, storage_options=storage_options()).restore(
                    to, ignore_missing_files=True, commit_properties=properties, post_commithook_properties=NO_HOOKS
                )
                copy.reveal_commit(version)
        except (CommitFailedError, FileExistsError) as error:
            raise TableHeldError(
                f"table {config.uri}: a run committed while it was being rolled back; look at its versions and try again"
            ) from error
        files.flush(LOG)
    return _shown_version(config, version, wanted, published=True)


def _transactions(table: DeltaTable, wanted: list[DataFile]) -> list[Transaction]:
    """Each day's application transaction as of the files that will be shown, where the table records another."""
    per_day = {x.day: x.transaction for x in wanted if x.transaction is not None}
    return [
        Transaction(app_id(day), number)
        for day, number in sorted(per_day.items())
        if table.transaction_version(app_id(day)) != number
    ]


def _shown_version(config: PublishConfig, version: int, shown: list[DataFile], *, published: bool) -> TableVersion:
    newest = max((x.day for x in shown), default="")
    of_day = [x for x in shown if x.day == newest]
    run_id = next((x.run_id for x in of_day if x.run_id), "")
    return TableVersion(
        uri=config.uri,
        version=version,
        as_of=newest,
        run_id=run_id,
        rows=sum(x.rows or 0 for x in of_day),
        published=published,
    )

"""The versions of the published table, and rolling back to one of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError

from rectifier_core.base.published_records import TableVersion
from tasks.errors import TableHeldError
from tasks.object_store import storage_options
from tasks.table.commit import NO_HOOKS, flushed_log
from tasks.table.config import PublishConfig, app_id
from tasks.table.files import TableFiles, storage_errors
from tasks.table.log import LOOK, DataFile, LogEntry, open_table, read_log, visible_files
from tasks.table.snapshot import existing_table, files_of_version

COPIED = ("as_of", "run_id", "rows", "config_digest", "inputs_digest", "code_version")
_OPERATIONS = {"CREATE TABLE": "publish", "WRITE": "publish", "RESTORE": "rollback"}


def list_versions(config: PublishConfig) -> list[dict[str, Any]]:
    """Return every version that the log holds, newest first, as JSON values.

    Each has ``version, timestamp`` (UTC, ISO), ``operation`` ("publish", "rollback" or another tool's word), ``current`` (bool), ``days``
    (shown in it), ``restorable`` (bool: all its files exist), ``restored_version`` (of a rollback) and, if this pipeline committed it,
    ``as_of, run_id, rows, modalities`` (facts by name), ``config_digest, inputs_digest, code_version``; a rollback has those of the version
    that it restored. Raises InputError if there is no table, StorageError if it cannot be read.
    """
    table, files = existing_table(config), TableFiles(config.uri)
    with storage_errors(config.uri, "reading its versions", LOOK):
        stored, log = {x.path for x in files.walk()}, read_log(files)
    days: dict[str, str] = {}
    if log and log[0].version > 0:
        # Another tool deleted the first commits. Their files are in a checkpoint only.
        first = open_table(config.uri, log[0].version)
        days = {x.path: x.day for x in visible_files(first)} if first is not None else {}
    versions: list[dict[str, Any]] = []
    for entry in log:
        days = {path: day for path, day in days.items() if path not in entry.removed} | entry.added
        current, restorable = entry.version == table.version(), days.keys() <= stored
        shown = {"current": current, "days": sorted(set(days.values())), "restorable": restorable}
        described = _described(entry)
        restored: dict[str, Any] = next((x for x in versions if x["version"] == described["restored_version"]), {})
        described |= {key: restored.get(key) for key in COPIED if described[key] is None}
        versions.append(described | shown)
    return versions[::-1]


def _described(entry: LogEntry) -> dict[str, Any]:
    info, facts = entry.info, entry.info.get("facts")
    return {
        "version": entry.version,
        "timestamp": datetime.fromtimestamp(entry.timestamp / 1000, UTC).isoformat(timespec="milliseconds"),
        "operation": _OPERATIONS.get(str(info.get("operation")), str(info.get("operation", "unknown")).lower()),
        "modalities": facts.get("modalities", {}) if isinstance(facts, dict) else {},
        **{key: info.get(key) for key in ("restored_version", *COPIED)},
    }


def roll_back(config: PublishConfig, to: int) -> TableVersion:
    """Make the table show what version ``to`` showed, by one new commit. Later versions stay in the log.

    The result names the newest day shown. ``published`` is False if the table shows those files already; nothing is committed then. Call it
    under the table's lock. Raises InputError for a version that does not exist or whose files are gone, TableHeldError if another process
    commits first, StorageError if the commit fails.
    """
    table, files = existing_table(config), TableFiles(config.uri)
    with storage_errors(config.uri, "reading its versions", LOOK):
        log, visible = read_log(files), visible_files(table)
    wanted = files_of_version(config, log, to, asked="--to")
    newest = max((x.day for x in wanted), default="")
    of_day = [x for x in wanted if x.day == newest]
    changes = [x.path for x in visible] != [x.path for x in wanted]
    if changes:
        _restore(files, table, to, wanted)
    return TableVersion(
        uri=config.uri,
        version=table.version() + changes,
        as_of=newest,
        run_id=next((x.run_id for x in of_day if x.run_id), ""),
        rows=sum(x.rows or 0 for x in of_day),
        published=changes,
    )


def _restore(files: TableFiles, table: DeltaTable, to: int, wanted: list[DataFile]) -> None:
    # A repeat of a run is recognised by its day's transaction, so the transactions go back as well.
    recorded = {x.day: x.transaction for x in wanted if x.transaction is not None}
    properties = CommitProperties(
        custom_metadata={"restored_version": to},
        max_commit_retries=0,
        app_transactions=[Transaction(app_id(day), number) for day, number in sorted(recorded.items())],
    )
    remedy = "free or fix the storage, look at its versions, then try again"
    with storage_errors(files.uri, f"rolling back to version {to}", remedy):
        try:
            with flushed_log(files) as uri:
                # The copy of the log holds no data files. `roll_back` has checked that they exist.
                DeltaTable(uri, table.version(), storage_options=storage_options()).restore(
                    to, ignore_missing_files=True, commit_properties=properties, post_commithook_properties=NO_HOOKS
                )
        except (CommitFailedError, FileExistsError) as error:
            raise TableHeldError(
                f"table {files.uri}: a run committed while it was being rolled back; look at its versions and try again"
            ) from error

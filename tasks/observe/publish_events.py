"""A new version of the table as a Prefect event, for deployments that follow it."""

from __future__ import annotations

import socket
from urllib.parse import quote, urlsplit

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

from rectifier_core.base.published_records import TableVersion
from tasks.run_logger import run_logger
from tasks.table.config import PublishConfig
from tasks.table.log import days_shown, open_table, visible_files

PUBLISHED = "catalog-rectifier.table.published"
_SECONDS = 2.0


def asset_key(config: PublishConfig) -> str:
    """The table's asset key."""
    return key_of(config.uri if config.folder is None else f"file://{config.uri}")


def key_of(uri: str) -> str:
    """The asset key of what lies at ``uri``, with what Prefect does not take in a key written as =20, a blank."""
    return quote(uri, safe="/:@+,").replace("%", "=")


def emit_published(config: PublishConfig, version: TableVersion) -> None:
    """One event of the table's asset for a version that a publish or a rollback has just committed.

    Its payload is ``as_of, version, run_id, rows, backfilled``; ``backfilled`` says that the version shows a newer day than the one that
    changed. Without a server that answers nothing is sent, at once and without a failure: the version is there all the same.
    """
    if not has_server():
        return
    table = open_table(config.uri, version.version)
    days = days_shown(visible_files(table)) if table is not None else []
    backfilled = bool(days) and version.as_of < days[-1]
    told = {
        "as_of": version.as_of,
        "version": version.version,
        "run_id": version.run_id,
        "rows": version.rows,
        "backfilled": backfilled,
    }
    asset = asset_key(config)
    resource = {
        "prefect.resource.id": asset,
        "prefect.resource.name": asset.rsplit("/", 1)[-1],
        "catalog-rectifier.as-of": version.as_of,
        "catalog-rectifier.version": str(version.version),
        # A trigger can match what is in the resource, not what is in the payload.
        "catalog-rectifier.backfilled": str(backfilled).lower(),
    }
    emit_event(event=PUBLISHED, resource=resource, payload=told)


def has_server() -> bool:
    """Whether events can be sent: within a run of any server, elsewhere where one is configured and takes connections.

    Outside a run Prefect would start a server of its own for a single event, and at its end wait for one that is gone.
    """
    if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
        return True
    return bool(PREFECT_API_URL.value()) and server_answers()


def server_answers() -> bool:
    """Whether the server that is configured takes connections; True where none is, for then a run has a temporary one of its own."""
    parts = urlsplit(PREFECT_API_URL.value() or "")
    if not parts.hostname:
        return True
    try:
        with socket.create_connection(
            (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), timeout=_SECONDS
        ):
            return True
    except OSError as error:
        run_logger().warning("the Prefect server at %s does not answer, it is told nothing: %s", parts.hostname, error)
        return False

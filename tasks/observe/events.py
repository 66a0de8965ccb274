"""Prefect events of the table: a new version, a night that failed or was refused, a late day, and a jump of a mismatch rate.

The automations in `flows/server/automations.yaml` act on them. A trigger can match labels of the resource but not the payload,
so what alerts select by is in both. Prefect sends in the background and drops what it cannot deliver.
Prefect is imported when an event is sent: `status` and `freshness` start in a third of the time without it.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from rectifier_core.base.published_records import TableVersion
from tasks.run_logger import run_logger
from tasks.table.config import PublishConfig
from tasks.table.log import days_shown, open_table, visible_files

PUBLISHED = "catalog-rectifier.table.published"
REFUSED = "catalog-rectifier.night.refused"
FAILED = "catalog-rectifier.night.failed"
LATE = "catalog-rectifier.night.late"
JUMPED = "catalog-rectifier.mismatch-rate.jumped"
_SECONDS = 2.0


def asset_key(config: PublishConfig) -> str:
    """The asset key of the table."""
    return key_of(config.uri if config.folder is None else f"file://{config.uri}")


def key_of(uri: str) -> str:
    """The asset key of what lies at `uri`. Characters that Prefect refuses are written as =20, which is a blank."""
    return quote(uri, safe="/:@+,").replace("%", "=")


def emit_published(config: PublishConfig, version: TableVersion) -> None:
    """Send one event for a version that a publish or a rollback committed.

    Its payload is `as_of, version, run_id, rows, backfilled`. A backfilled version has a newer day than the one that changed.
    """
    if not has_server():
        return
    table = open_table(config.uri, version.version)
    days = days_shown(visible_files(table)) if table is not None else []
    payload = {name: getattr(version, name) for name in ("as_of", "version", "run_id", "rows")}
    payload["backfilled"] = bool(days) and version.as_of < days[-1]
    _emit(PUBLISHED, asset_key(config), payload, "as_of", "version", "backfilled")


def emit_night(event: str, asset: str, payload: Mapping[str, Any]) -> None:
    """Send one event about a night. The payload is JSON and has `as_of` and `exit_code`."""
    if has_server():
        # Outside a flow Prefect would warn that the event was not sent yet when the command ends.
        logging.getLogger("EventsWorker").setLevel(logging.ERROR)
        _emit(event, asset, payload, "as_of", "exit_code")


def emit_jumps(asset: str, jumps: Sequence[Mapping[str, Any]]) -> None:
    """Log each jump of a mismatch rate and send one event with its facts."""
    for jump in jumps:
        rates = " -> ".join(_rate(jump[when]) for when in ("before", "now"))
        run_logger().warning("mismatch rate of %s jumped since %s: %s", jump["modality"], jump["since"], rates)
    if jumps and has_server():
        for jump in jumps:
            _emit(JUMPED, asset, jump, "modality", "as_of", "kind")


def _emit(event: str, asset: str, payload: Mapping[str, Any], *labels: str) -> None:
    from prefect.events import emit_event

    resource = {"prefect.resource.id": asset, "prefect.resource.name": asset.rsplit("/", 1)[-1]}
    for name in labels:
        value = payload[name]
        text = str(value).lower() if isinstance(value, bool) else str(value)
        resource[f"catalog-rectifier.{name.replace('_', '-')}"] = text
    emit_event(event=event, resource=resource, payload=dict(payload))


def _rate(facts: Mapping[str, Any]) -> str:
    if not facts["identifiable"] or facts["mismatch_rate"] is None:
        return "cannot be estimated"
    return f"{facts['mismatch_rate']:.3f} [{facts['low']:.3f}, {facts['high']:.3f}]"


def has_server() -> bool:
    """Whether events can be sent: inside a flow or task run, or where a configured server accepts connections.

    Outside a run Prefect would start a server of its own for a single event, and wait at its end for a server that is gone.
    """
    if "prefect" not in sys.modules and not names_a_server():
        return False
    from prefect.context import FlowRunContext, TaskRunContext
    from prefect.settings import PREFECT_API_URL

    if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
        return True
    return bool(PREFECT_API_URL.value()) and server_answers()


def names_a_server() -> bool:
    """Whether anything that Prefect reads may name a server. Asking Prefect itself takes seconds."""
    if "PREFECT_API_URL" in os.environ:
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    places = (profiles, Path(".env"), Path("prefect.toml"), Path("pyproject.toml"))
    for place in places:
        with suppress(OSError, ValueError):
            text = place.read_text(encoding="utf-8")
            if "PREFECT_API_URL" in text or "[api]" in text or "prefect.api" in text:
                return True
    return False


def server_answers() -> bool:
    """Whether the configured server accepts connections. True where none is configured: a run then starts its own."""
    from prefect.settings import PREFECT_API_URL

    parts = urlsplit(PREFECT_API_URL.value() or "")
    if not parts.hostname:
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=_SECONDS):
            return True
    except OSError as error:
        run_logger().warning(
            "the Prefect server at %s does not answer, so it gets no events: %s", parts.hostname, error
        )
        return False

"""Register the work pool, the deployments and the automations with a Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import WorkerFilter, WorkerFilterStatus
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows.config.run_config import RunConfig
from flows.server.local import POOL
from tasks.errors import InputError
from tasks.observe.events import asset_key

ROOT = Path(__file__).parents[2]
FILES = Path(__file__).parent
DEFAULTS = {"RECTIFIER_CRON": "30 2 * * *", "RECTIFIER_TIMEZONE": "UTC"}


def register(path: Path, config: RunConfig) -> dict[str, Any]:
    """Register everything with the server that PREFECT_API_URL names, for the run config at ``path``. A repeat replaces it.

    Raises InputError where Prefect refuses a deployment.
    """
    with get_client(sync_client=True) as client:
        if client.server_type.value == "ephemeral":
            raise InputError(
                "PREFECT_API_URL is not set: set it to a server, or start one with catalog-rectifier server start"
            )
        with suppress(ObjectAlreadyExists):
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        deployments = _deploy({"RECTIFIER_CONFIG": str(path), "RECTIFIER_TABLE": asset_key(config.publish)})
        if not config.feature_store.enabled:
            # A new version triggers a refresh only where there is a store to refresh.
            refresh = client.read_deployment_by_name("refresh/refresh")
            client.delete_resource_owned_automations(f"prefect.deployment.{refresh.id}")
        return {"deployments": deployments, "automations": _automate(client)}


def _deploy(values: dict[str, str]) -> list[str]:
    file = FILES / "prefect.yaml"
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    environment = {**DEFAULTS, **os.environ, **values}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [x for x in (done.stderr + done.stdout).splitlines() if x.strip()] or ["no output"]
        raise InputError(f"{file}: prefect deploy ended with {done.returncode}: {lines[-1]}")
    return [x["name"] for x in yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]]


def _automate(client: SyncPrefectClient) -> list[str]:
    """Create every automation of ``automations.yaml``, or replace the one of its name; their names."""
    block = _alert_block(client)
    names = []
    for values in yaml.safe_load((FILES / "automations.yaml").read_text(encoding="utf-8"))["automations"]:
        text = values.pop("alert", None)
        if text is not None:
            values["actions"] = [
                {"type": "do-nothing"} if block is None else _notification(block, values["name"], text)
            ]
        automation = AutomationCore.model_validate(values)
        known = client.read_automations_by_name(automation.name)
        if known:
            client.update_automation(known[0].id, automation)
        else:
            client.create_automation(automation)
        names.append(automation.name)
    return names


def _notification(block: UUID, subject: str, text: str) -> dict[str, Any]:
    return {"type": "send-notification", "block_document_id": str(block), "subject": subject, "body": text}


def _alert_block(client: SyncPrefectClient) -> UUID | None:
    named = os.environ.get("RECTIFIER_ALERT_BLOCK")
    if not named:
        return None
    kind, _, name = named.partition("/")
    try:
        return client.read_block_document_by_name(name, kind, include_secrets=False).id
    except ObjectNotFound:
        raise InputError(
            f"RECTIFIER_ALERT_BLOCK={named}: the server has no such block; make a notification block and name it as <type>/<name>"
        ) from None


def worker_is_online() -> bool:
    """Whether the server got a heartbeat of a worker of the pool lately."""
    with get_client(sync_client=True) as client:
        online = WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
        return bool(client.read_workers_for_work_pool(POOL, online))

"""Everything a Prefect server has to know of this project: the work pool, the deployments, the automations."""

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

from flows.config.run_config import RunConfig
from flows.server.supervisor import POOL
from tasks.errors import InputError
from tasks.observe.events import asset_key

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments"
DEFAULTS = {"RECTIFIER_CRON": "30 2 * * *", "RECTIFIER_TIMEZONE": "UTC"}


def register(path: Path, config: RunConfig) -> dict[str, Any]:
    """Register it all with the server that PREFECT_API_URL names, for the run config at ``path``; anew each time.

    Raises InputError where Prefect will not take a deployment.
    """
    with get_client(sync_client=True) as client:
        if client.server_type.value == "ephemeral":
            raise InputError(
                "PREFECT_API_URL is not set: say which server, or start one with python -m flows server start"
            )
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=_process_template()))
        deployments = _deploy({"RECTIFIER_CONFIG": str(path), "RECTIFIER_TABLE": asset_key(config.publish)})
        return {"deployments": deployments, "automations": _automate(client)}


def _process_template() -> dict[str, Any]:
    from prefect.workers.process import ProcessWorker

    return ProcessWorker.get_default_base_job_template()


def _deploy(told: dict[str, str]) -> list[str]:
    environment = {**DEFAULTS, **os.environ, **told}
    command = [
        sys.executable,
        "-m",
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        str(DEPLOYMENTS / "prefect.yaml"),
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [x for x in (done.stderr + done.stdout).splitlines() if x.strip()]
        raise InputError(
            f"{DEPLOYMENTS / 'prefect.yaml'}: prefect deploy ended with {done.returncode}: {said[-1] if said else 'no word'}"
        )
    return [x["name"] for x in yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]]


def _automate(client: SyncPrefectClient) -> list[str]:
    """Every automation of ``automations.yaml``, in place of the one that has its name."""
    block = _alert_block(client)
    wanted = []
    for values in yaml.safe_load((DEPLOYMENTS / "automations.yaml").read_text())["automations"]:
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
        wanted.append(automation.name)
    return wanted


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
            f"RECTIFIER_ALERT_BLOCK={named}: the server has no such block; make a notification block and say <type>/<name>"
        ) from None


def worker_is_online() -> bool:
    """Whether a worker of the pool told the server lately that it lives."""
    with get_client(sync_client=True) as client:
        found = client.read_workers_for_work_pool(POOL, WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"])))
        return bool(found)

"""The Prefect flow runs and the artifact of a backfill. Each day is a flow run below the backfill's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow, Task
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flow_engine import run_flow_sync
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Crashed
from prefect.utilities.asyncutils import run_coro_as_sync

from tasks.errors import RectifierError
from tasks.run_logger import run_logger

_NO_ANSWER = (httpx.HTTPError, PrefectHTTPStatusError)


def server_url() -> str:
    """The API that this flow runs against, which may be a temporary server's."""
    with get_client(sync_client=True) as client:
        return str(client.api_url).rstrip("/")


def create_day_run(flow: Flow[..., Any], day: date) -> UUID:
    """Create a flow run of `flow` for the day below the current flow run. Raises RectifierError if the server does not answer."""
    placeholder: Task[..., Any] = Task(name=f"day {day}", fn=_nothing)
    try:
        parent = run_coro_as_sync(placeholder.create_run(flow_run_context=FlowRunContext.get(), parameters={}))
        with get_client(sync_client=True) as client:
            return client.create_flow_run(
                flow,
                name=f"rectify {day}",
                parameters={"as_of": day.isoformat()},
                parent_task_run_id=None if parent is None else parent.id,
                tags=["backfill"],
            ).id
    except _NO_ANSWER as error:
        why = " ".join(f"{type(error).__name__} {error}".split())
        raise RectifierError(
            f"the Prefect server does not answer ({why}); days that are done stay done, run the same command again"
        ) from error


def _nothing() -> None:
    return None


def run_as(flow: Flow[..., Any], flow_run_id: UUID, url: str, parameters: Mapping[str, Any]) -> Any:
    """Run `flow` as this flow run of the server at `url`, and return its result."""
    with temporary_settings({PREFECT_API_URL: url}):
        with get_client(sync_client=True) as client:
            flow_run = client.read_flow_run(flow_run_id)
        return run_flow_sync(flow, flow_run=flow_run, parameters=dict(parameters))


def end_day_run(flow_run_id: UUID, *, crashed: bool, message: str) -> None:
    """End the flow run of a process that died, or that left its day to another run."""
    state: State[Any] = Crashed(message=message) if crashed else Cancelled(name="Skipped", message=message)
    with suppress(Exception), get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, state, force=True)


def show_days(rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Create an artifact with the outcome of each day. The same outcomes are in the log and in the command's output."""
    try:
        create_table_artifact([dict(row) for row in rows], key="backfill-catalog", description=description)
    except _NO_ANSWER as error:
        run_logger().warning("the Prefect server took no artifact: %s", type(error).__name__)

"""The flow runs of a backfill's days, with Prefect: one a day, a child of the backfill's own, known by an idempotency key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow, Task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import FlowCreate, FlowRunCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flow_engine import run_flow_sync
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Crashed, Pending, to_state_create
from prefect.utilities.asyncutils import run_coro_as_sync

from tasks.errors import RectifierError
from tasks.run_logger import run_logger

TRIES = 100


def server_url() -> str:
    """The API that this flow runs against, a temporary server's too."""
    with get_client(sync_client=True) as client:
        return str(client.api_url).rstrip("/")


def day_key(table: str, day: date, since: str) -> str:
    """The same for two requests to run a day that saw it in the same state."""
    seen = hashlib.blake2b(f"{table}\0{since}".encode(), digest_size=8).hexdigest()
    return f"rectify-{day}-{seen}"


def create_day_run(flow: Flow[..., Any], day: date, key: str, is_held: Callable[[], bool]) -> UUID | None:
    """A new flow run of ``flow`` for the day, a child of the one that this is called in.

    None where ``key`` has a run that is under way: somebody holds the day. A run of that key that is not was cut off, or ended
    without having had the day, and the next key in line is taken. Raises RectifierError where the server does not answer.
    """
    try:
        return _create(flow, day, key, is_held)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        said = " ".join(f"{type(error).__name__} {error}".split())
        raise RectifierError(
            f"the Prefect server does not answer ({said}); days that are done stay done, run the same again"
        ) from error


def _create(flow: Flow[..., Any], day: date, key: str, is_held: Callable[[], bool]) -> UUID | None:
    parent = FlowRunContext.get()
    tracking: Task[..., Any] = Task(name=f"day {day}", fn=_nothing)
    with get_client(sync_client=True) as client:
        response = client.request("POST", "/flows/", json=FlowCreate(name=flow.name).model_dump(mode="json"))
        above = (
            None if parent is None else run_coro_as_sync(tracking.create_run(flow_run_context=parent, parameters={}))
        )
        for at in range(TRIES):
            body = FlowRunCreate(
                flow_id=response.json()["id"],
                name=f"rectify {day}",
                parameters={"as_of": day.isoformat()},
                state=to_state_create(Pending()),
                parent_task_run_id=None if above is None else above.id,
                tags=["backfill"],
                idempotency_key=f"{key}-{at}",
            )
            answer = client.request("POST", "/flow_runs/", json=body.model_dump(mode="json", exclude_unset=True))
            if answer.status_code == 201:
                return UUID(answer.json()["id"])
            if is_held():
                return None
    return None


def _nothing() -> None:
    return None


def run_as(flow: Flow[..., Any], flow_run_id: UUID, url: str, parameters: Mapping[str, Any]) -> Any:
    """Run ``flow`` as that flow run of the server at ``url``."""
    with temporary_settings({PREFECT_API_URL: url}):
        with get_client(sync_client=True) as client:
            found: FlowRun = client.read_flow_run(flow_run_id)
        return run_flow_sync(flow, flow_run=found, parameters=dict(parameters))


def tell_end(flow_run_id: UUID | None, *, crashed: bool, message: str) -> None:
    """End a flow run whose process died, or that left the day to another run."""
    state: State[Any] = Crashed(message=message) if crashed else Cancelled(name="Skipped", message=message)
    if flow_run_id is not None:
        with suppress(Exception), get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run_id, state, force=True)


class Progress:
    """How far the backfill is, as an artifact of its run: a server that does not take it stops nothing."""

    def __init__(self, total: int, what: str) -> None:
        self._total, self._done = total, 0
        self._id: UUID | None = None
        with _tolerated():
            made = create_progress_artifact(0.0, key="backfill-catalog-progress", description=what)
            self._id = made if isinstance(made, UUID) else None

    def one_more(self) -> None:
        """Count a day."""
        self._done += 1
        if self._id is not None:
            with _tolerated():
                update_progress_artifact(self._id, 100.0 * self._done / self._total)


def show_days(rows: Sequence[Mapping[str, Any]], what: str) -> None:
    """What became of each day, as an artifact."""
    with _tolerated():
        create_table_artifact([dict(x) for x in rows], key="backfill-catalog", description=what)


@contextmanager
def _tolerated() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        run_logger().warning("the Prefect server does not take an artifact: %s", type(error).__name__)

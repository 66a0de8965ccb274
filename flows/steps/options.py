"""How the flows make Prefect tasks: what is retried, and that Prefect caches nothing.

Resuming is the stage store's work. Its keys hold the digests of the inputs, the config and the code, and it needs no server.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import Task

from tasks.errors import OnlineStoreError, RectifierError
from tasks.object_store import StorageUnreachableError
from tasks.run_logger import logged_progress

P = ParamSpec("P")
R = TypeVar("R")


def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether to retry: a store that did not answer, or an unexpected I/O error. Never bad input, a held table or a refused gate."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StorageUnreachableError | OnlineStoreError) or (
        isinstance(error, OSError) and not isinstance(error, RectifierError)
    )


PLAIN: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
IO: dict[str, Any] = {"retries": 2, "retry_delay_seconds": [2, 10], "retry_condition_fn": is_transient}


def stage_task(stage: Callable[P, R], run_name: str, log: Callable[[R], object] = lambda made: None) -> Task[P, R]:
    """``stage`` as a task that logs its progress and, by ``log``, its result. ``run_name`` is a template of the stage's parameters."""
    shows_progress = "progress" in signature(stage).parameters

    @wraps(stage)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        # Prefect fills in the stage's defaults, so the silent progress is among the arguments.
        given = {**kwargs, "progress": logged_progress()} if shows_progress else kwargs
        made = stage(*args, **given)  # type: ignore[arg-type]
        log(made)
        return made

    return task(task_run_name=run_name, **PLAIN)(run)

"""Options of every Prefect task: what is retried, and that Prefect caches nothing.

Resuming is the stage store's work. Its keys hold the digests of the inputs, the config and the code, and it needs no server.
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE

from tasks.errors import OnlineStoreError, RectifierError
from tasks.object_store import StorageUnreachableError


def _is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether to retry: a store that did not answer, or an unexpected I/O error. Never bad input, a held table or a refused gate."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StorageUnreachableError | OnlineStoreError) or (
        isinstance(error, OSError) and not isinstance(error, RectifierError)
    )


PLAIN: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
IO: dict[str, Any] = {"retries": 2, "retry_delay_seconds": [2, 10], "retry_condition_fn": _is_transient}

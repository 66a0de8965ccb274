"""A flow run that ends as its work did, although its Prefect server is gone by then."""

from __future__ import annotations

from copy import copy
from functools import wraps
from typing import Any

from prefect.flows import Flow

from tasks.run_logger import run_logger


def run_through(flow: Flow[..., Any], *given: Any) -> Any:
    """``flow(*given)``; where Prefect fails after the work has ended, what the work returned or raised."""
    ended: list[tuple[Any, BaseException | None]] = []

    @wraps(flow.fn)
    def body(*args: Any, **more: Any) -> Any:
        try:
            found = flow.fn(*args, **more)
        except BaseException as error:
            ended.append((None, error))
            raise
        ended.append((found, None))
        return found

    kept = copy(flow)
    kept.fn = body
    try:
        return kept(*given)
    except Exception as error:
        if not ended:
            raise
        found, raised = ended[0]
        if raised is error:
            raise
        run_logger().warning("the Prefect server did not take how the run ended: %s: %s", type(error).__name__, error)
        if raised is not None:
            raise raised from None
        return found

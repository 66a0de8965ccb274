"""Events in a Prefect server."""

from __future__ import annotations

import time
from typing import Any

from tests.support.flow.flow_support import ask_prefect

STARTED = "2000-01-01T00:00:00Z"


def wait_for_events(url: str, prefix: str, resource: str, wait: float = 40.0) -> list[dict[str, Any]]:
    """The events of that name and resource, empty where none came in time."""
    question = {
        "filter": {"event": {"prefix": [prefix]}, "resource": {"id": [resource]}, "occurred": {"since": STARTED}}
    }
    end = time.monotonic() + wait
    while True:
        events: list[dict[str, Any]] = ask_prefect(url, "events", question)["events"]
        if events or time.monotonic() > end:
            return events
        time.sleep(0.2)

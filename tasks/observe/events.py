"""How nights end, and days that are late, as Prefect events for automations to act on (``deployments/automations.yaml``)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prefect.events import emit_event

from tasks.observe.publish_events import has_server

REFUSED = "catalog-rectifier.night.refused"
FAILED = "catalog-rectifier.night.failed"
LATE = "catalog-rectifier.night.late"


def emit_night(event: str, asset: str, facts: Mapping[str, Any]) -> None:
    """One event of the table's ``asset`` key, with ``facts`` (JSON, ``as_of`` and ``exit_code`` among them) as its payload.

    Day and exit status are in the resource too: there a trigger can match them. Nothing is sent where there is no Prefect server to
    hear it; what a server does not take is dropped, and a run goes on.
    """
    if not has_server():
        return
    resource = {
        "prefect.resource.id": asset,
        "prefect.resource.name": asset.rsplit("/", 1)[-1],
        "catalog-rectifier.as-of": str(facts["as_of"]),
        "catalog-rectifier.exit-code": str(facts["exit_code"]),
    }
    # Outside a flow the event is still under way when the command ends, which Prefect would tell the user.
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)
    emit_event(event=event, resource=resource, payload=dict(facts))

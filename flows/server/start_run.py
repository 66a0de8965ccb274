"""``python -m flows.server.start_run``: check the names of a run's parameters, then start Prefect's engine.

A worker starts this for each run. Without the check Prefect ends a run with an unknown parameter as crashed, and does not name the
parameter. A crashed run would be started again.
"""

from __future__ import annotations

import logging
import os
import runpy
from uuid import UUID

from flows.config.prefect_settings import hide_tracebacks, set_prefect_defaults
from tasks.errors import RectifierError


def refuse_bad_parameters(run_id: UUID) -> bool:
    """End the run as failed if it has an unknown parameter or lacks a required one; return whether it did."""
    from prefect.client.orchestration import get_client
    from prefect.states import Failed

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        if run.deployment_id is None:
            return False
        deployment = client.read_deployment(run.deployment_id)
        schema = deployment.parameter_openapi_schema or {}
        takes, required = schema.get("properties", {}), schema.get("required", [])
        unknown, missing = sorted(set(run.parameters) - set(takes)), [x for x in required if x not in run.parameters]
        if not unknown and not missing:
            return False
        what = (
            f"{', '.join(unknown)}: unknown parameter"
            if unknown
            else f"{', '.join(missing)}: missing, and it has no default"
        )
        message = f"{deployment.name}: {what}; it takes {', '.join(takes)}"
        logging.getLogger("prefect.flow_runs").error(message, extra={"flow_run_id": str(run_id)})
        client.set_flow_run_state(run_id, Failed(name="BadInput", message=message), force=True)
    return True


def main() -> None:
    """Run the flow run that the worker's environment names."""
    set_prefect_defaults()
    if refuse_bad_parameters(UUID(os.environ["PREFECT__FLOW_RUN_ID"])):
        return
    # Any other failure keeps its traceback for the developers.
    hide_tracebacks(RectifierError)
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

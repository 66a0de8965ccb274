"""Prefect settings that every command and every deployed run shares."""

from __future__ import annotations

import logging
import os

PREFECT_DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The automation that finds dead runs waits for these heartbeats (flows/server/automations.yaml).
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


def set_prefect_defaults() -> None:
    """Set what the user's environment does not. Must be called before anything of Prefect is imported."""
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)


def hide_tracebacks() -> None:
    """Keep tracebacks out of Prefect's run loggers: they would print one for every layer that a failure passes."""

    def one_line(record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return True

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(one_line)

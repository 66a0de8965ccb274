"""Prefect settings that every command and every deployed run shares."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from tempfile import TemporaryFile

from tasks.errors import InputError

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


def check_prefect_home() -> None:
    """Raise InputError unless Prefect's folder can be written. Prefect itself would try for two minutes and end in a traceback."""
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise InputError(
            f"PREFECT_HOME {home}: Prefect's folder cannot be written ({error.strerror or error}); set PREFECT_HOME to a folder that can"
        ) from error


def hide_tracebacks(of: type[BaseException] = BaseException) -> None:
    """Keep the tracebacks of such errors out of Prefect's run loggers: they would print one for every layer that a failure passes."""

    def one_line(record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], of):
            record.exc_info = record.exc_text = None
        return True

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(one_line)

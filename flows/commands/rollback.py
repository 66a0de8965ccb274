"""``python -m flows rollback``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.shared import (
    AsJson,
    ConfigFile,
    Debug,
    Overrides,
    hide_tracebacks,
    printed_progress,
    read_run_config,
    run_command,
    set_prefect_defaults,
    told_by,
)


def rollback(
    config: ConfigFile,
    to: Annotated[int, typer.Option("--to", help="The version whose contents the table shall show again.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make the table show an earlier version again, as a new commit; and the feature store, where it is enabled."""

    def work() -> dict[str, Any]:
        set_prefect_defaults()
        from tasks.table.history import roll_back
        from tasks.table.lock import table_lock

        settings = read_run_config(config, overrides)
        with table_lock(settings.publish, Path(settings.run.folder), run=f"rollback to {to}"):
            found = roll_back(settings.publish, to)
        if not debug:
            hide_tracebacks()
        if found.published:
            from tasks.observe.events import emit_published

            emit_published(settings.publish, found)
        if not settings.feature_store.enabled:
            return asdict(found) | {"to": to}
        from flows.refresh import refresh_now

        return asdict(found) | {"to": to, "feature_store": refresh_now(settings, None, "refuse", printed_progress())}

    run_command(work, as_json, debug, told_by("told_rollback"))

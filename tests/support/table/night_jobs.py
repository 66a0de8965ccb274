"""The end of a night as jobs for other processes: under the lock publish, record the trend, save the summary, sweep."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.errors import RectifierError
from tasks.runs.config import RunSettings
from tasks.runs.folders import save_summary, sweep_runs
from tasks.store.store import Ref
from tasks.table import cleanup as table_sweep
from tasks.table.history import roll_back
from tasks.table.lock import table_lock
from tasks.table.publish import PublishConfig
from tasks.table.trend import record_run, trend_entry
from tests.support.export_support import export
from tests.support.flow.cli_process import Death, die_at
from tests.support.table.publish_support import identity, publish

CHANGES = "os.rename|os.link|os.remove|os.mkdir|os.rmdir|open"


def exit_status(work: Callable[[], object]) -> int:
    """Run the work and return its exit status. An error for users is one line on standard error."""
    try:
        work()
    except RectifierError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def night(
    config: dict[str, Any], runs: str, refs: list[list[str]], day: str, seed: int, checkpoint_every: int = 100
) -> int:
    """Run the end of a night, from the lock to the sweep."""
    publishing, settings, run = PublishConfig(**config), RunSettings(folder=runs), identity(day, seed)
    source, rectified = (Ref(kind=kind, path=path, digest=digest) for kind, path, digest in refs)

    def work() -> None:
        with table_lock(publishing, run=f"rectify {day}"):
            version = publish(publishing, (source, rectified), day, seed)
            record_run(publishing, trend_entry(run, "published", version.version, {}, []))
            run_id = f"{day.replace('-', '')}-{run.digest[:12]}"
            save_summary(settings, {"run_id": run_id, "as_of": day, "version": version.version, "stages": {}})
            sweep(publishing, settings, checkpoint_every)

    return exit_status(work)


def sweep(config: PublishConfig, settings: RunSettings, checkpoint_every: int) -> None:
    """Sweep the table and the runs, with a checkpoint of the log every so many versions."""
    before = table_sweep.CHECKPOINT_EVERY
    table_sweep.CHECKPOINT_EVERY = checkpoint_every
    try:
        table_sweep.sweep_table(config)
    finally:
        table_sweep.CHECKPOINT_EVERY = before
    sweep_runs(settings)


def publish_alone(config: dict[str, Any], refs: list[list[str]], day: str, seed: int) -> int:
    """Publish without the lock."""
    source, rectified = (Ref(kind=kind, path=path, digest=digest) for kind, path, digest in refs)
    return exit_status(lambda: publish(PublishConfig(**config), (source, rectified), day, seed))


def publish_in_s3(environment: dict[str, str], uri: str, refs: list[list[str]], day: str, seed: int) -> int:
    """Publish to a table in S3, with the credentials and the endpoint of ``environment``."""
    os.environ.update(environment)
    return publish_alone({"uri": uri, "rows_per_file": 30}, refs, day, seed)


def rolled_back(config: dict[str, Any], runs: str, to: int) -> int:
    """A rollback under the lock, and the sweep of the next night."""
    publishing = PublishConfig(**config)

    def work() -> None:
        with table_lock(publishing, run="rollback"):
            roll_back(publishing, to)
            sweep(publishing, RunSettings(folder=runs), 100)

    return exit_status(work)


def careless(path: str) -> None:
    """Write a file, flush nothing, and rename it."""
    Path(path).write_text("abcd")
    Path(path).rename(f"{path}.json")


def killed(point: int, config: dict[str, Any], refs: list[list[str]], day: str, seed: int) -> int:
    """Publish under the lock in a process that sends itself SIGKILL before its ``point``-th change of the disk."""
    source, rectified = (Ref(kind=kind, path=path, digest=digest) for kind, path, digest in refs)

    def work() -> None:
        with table_lock(PublishConfig(**config), run=f"rectify {day}"):
            publish(PublishConfig(**config), (source, rectified), day, seed)

    die_at(Death(CHANGES, f"^{re.escape(str(Path(config['uri']).parent))}", point))
    return exit_status(work)


def exported(uri: str, out: str, event: str, pattern: str, file_bytes: int | None) -> int:
    """Export, and die at the event where one is named. No file may grow beyond ``file_bytes``."""
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if event:
        die_at(Death(event, pattern))
    return exit_status(lambda: export(uri, Path(out)))

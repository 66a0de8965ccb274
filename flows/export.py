"""What ``catalog-rectifier export`` does with its options."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, get_args

from flows.config.run_config import RunConfig
from rectifier_core.base.numerics import Progress
from tasks.errors import InputError
from tasks.evaluation.split import SplitRule
from tasks.export.mmrec import MMRecLog, mmrec_export
from tasks.export.npy import arrays_export
from tasks.export.parquet import parquet_export
from tasks.export.write import Export, save_export
from tasks.runs.folders import use_stages
from tasks.source.raw_log import log_files
from tasks.source.read import read_source
from tasks.store.store import StageStore
from tasks.table.snapshot import Snapshot, open_snapshot

FORMATS = ("mmrec", "npy", "parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export and where to: the newest ``version`` and its newest ``day`` where they are None; ``split`` and
    ``append_behaviour`` are for mmrec alone.

    Raises InputError naming the option.
    """

    format: str
    out: Path
    version: int | None = None
    day: date | None = None
    split: str | None = None
    append_behaviour: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"--format {self.format}: wanted {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
        if self.split is not None and self.format != "mmrec":
            raise InputError(f"--split {self.split}: only mmrec holds interactions to divide")
        if self.append_behaviour and self.format != "mmrec":
            raise InputError(
                f"--append-behaviour: only for mmrec; {self.format} has the column behaviour on its own where the table has it"
            )
        if self.split is not None and self.split not in get_args(SplitRule):
            raise InputError(f"--split {self.split}: wanted column, random or time")


def export_table(config: RunConfig, options: ExportOptions, progress: Progress) -> dict[str, Any]:
    """Export one day of one version; what was done. Raises InputError or StorageError, each with one line for the user."""
    snapshot = open_snapshot(config.publish, version=options.version, day=options.day)
    if options.format == "mmrec":
        with use_stages(config.run) as store:
            return save_export(options.out, snapshot, _mmrec(config, snapshot, options, store, progress), progress)
    return save_export(
        options.out, snapshot, arrays_export() if options.format == "npy" else parquet_export(), progress
    )


def _mmrec(
    config: RunConfig, snapshot: Snapshot, options: ExportOptions, store: StageStore, progress: Progress
) -> Export:
    as_of = date.fromisoformat(snapshot.day)
    given: Any = options.split or ("column" if config.evaluation.split_column is not None else "random")
    files = log_files(config.source, as_of)
    source = read_source(config.source, as_of, store, progress)
    log = MMRecLog(
        source=source,
        files=files,
        reading=config.source,
        as_of=as_of,
        evaluation=config.evaluation,
        rule=given,
        seed=config.seed,
    )
    name = options.out.expanduser().absolute().name
    return mmrec_export(name, log, append_behaviour=options.append_behaviour)

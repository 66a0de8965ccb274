"""The run folder: what runs keep there, and the deletion of what is old.

Under `run.folder` lie `stages/` (stage outputs by content, shared by all runs), `logs/`, `days/`, `metrics/`, and one folder for each
run, named by its id: `summary.json`, `report.html`, `report.json`, `run.log` and `quarantine/`. `refused/<day>/` is the quarantine of an input
that was refused.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Float32
from rectifier_core.base.row_lookup import RowLookup
from tasks.errors import StorageError
from tasks.runs.config import RunSettings
from tasks.runs.log import sweep_logs
from tasks.store.atomic_files import TEMPORARY, write_text
from tasks.store.store import Ref, StageStore
from tasks.table.config import PublishConfig
from tasks.table.lock import table_lock

SUMMARY = "summary.json"
RUN_ID = re.compile(r"\d{8}-[0-9a-f]{12}")
_DAY_SECONDS = 86400.0


@contextmanager
def open_run(
    settings: RunSettings, publish: PublishConfig, as_of: date, *, patience: float = 0.0
) -> Iterator[StageStore]:
    """Hold the table for the block, and delete old files before it and after its success.

    Raises TableHeldError if another run holds the table for all of `patience` seconds, and StorageError.
    """
    with table_lock(publish, Path(settings.folder), run=f"rectify {as_of}", patience=patience), _disk_errors(settings):
        settings.store.sweep(keep_seconds=settings.keep_days * _DAY_SECONDS)
        with settings.store.in_use():
            yield settings.store
        sweep_runs(settings)
        sweep_logs(Path(settings.folder), settings.keep_runs)
        sweep_stages(settings)


@contextmanager
def use_stages(settings: RunSettings) -> Iterator[StageStore]:
    """Use the stage outputs of all runs for the block, without holding the table."""
    with _disk_errors(settings), settings.store.in_use():
        yield settings.store


@contextmanager
def _disk_errors(settings: RunSettings) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename or settings.folder
        raise StorageError(f"{place}: {error.strerror or error}; free or fix the disk, then run again") from error


def sweep_stages(settings: RunSettings) -> None:
    """Delete the stage outputs of all but the newest runs, unless a run is using the store.

    The newest runs by time are what the next night continues from.
    """
    newest = _newest((path.parent for path in _summary_files(settings)), settings.keep_stages)
    summaries = [load_summary(settings, folder.name) for folder in newest]
    keep = {ref["path"] for summary in summaries if summary is not None for ref in summary["stages"].values()}
    settings.store.sweep(keep_seconds=0, keep=keep)


def sweep_runs(settings: RunSettings) -> None:
    """Delete run folders that are older than `keep_days`, or neither among the newest `keep_runs` by time nor by day.

    The newest always stays. A refused or killed run has a folder too, but no summary.
    """
    for refused in Path(settings.folder).glob("refused/????-??-??"):
        with suppress(OSError):
            if _modified(refused) < time.time() - settings.keep_days * _DAY_SECONDS:
                shutil.rmtree(refused, ignore_errors=True)
    folders = [x for x in Path(settings.folder).glob("*") if RUN_ID.fullmatch(x.name) and x.is_dir()]
    newest, now = _newest(folders, settings.keep_runs), time.time()
    for folder in set(folders) - {max(folders, key=_modified, default=None)}:
        if folder not in newest or _modified(folder) < now - settings.keep_days * _DAY_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    for left in (path for folder in newest for path in folder.glob(f"{TEMPORARY}*")):
        # Another run may be writing now: two tables can share a run folder. What a killed run left is older than an hour.
        with suppress(OSError):
            if _modified(left) < now - 3600:
                left.unlink()


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _newest(folders: Iterable[Path], count: int) -> set[Path]:
    """Return the newest run folders by time, and the newest by day, which a backfill of old days must not displace."""
    by_time = sorted(folders, key=lambda x: (_modified(x), x.name), reverse=True)
    by_day = sorted(by_time, key=lambda x: x.name[:8], reverse=True)
    return {*by_time[:count], *by_day[:count]}


def save_summary(settings: RunSettings, summary: Mapping[str, Any]) -> Path:
    """Write a run's summary into its folder, atomically, and return the path. Raises StorageError."""
    path = settings.run_folder(summary["run_id"]) / SUMMARY
    write_text(path, json.dumps(summary, indent=1, allow_nan=False))
    return path


def load_summary(settings: RunSettings, run_id: str) -> dict[str, Any] | None:
    """A run's summary, None if there is none or it is damaged. Its report lies where the run folder is now."""
    folder = settings.run_folder(run_id)
    try:
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary | {"report": str(folder / Path(summary["report"]).name)} if "report" in summary else summary


def _summary_files(settings: RunSettings) -> list[Path]:
    return list(Path(settings.folder).glob(f"*/{SUMMARY}"))


def _published(settings: RunSettings) -> list[dict[str, Any]]:
    summaries = [load_summary(settings, path.parent.name) for path in _summary_files(settings)]
    return [x for x in summaries if x is not None and x.get("version") is not None]


def earlier_runs(settings: RunSettings, table: str, as_of: date) -> list[dict[str, Any]]:
    """The summaries of runs of earlier days that were published to `table`, the newest first."""
    earlier = [x for x in _published(settings) if x.get("table") == table and x["as_of"] < as_of.isoformat()]
    return sorted(earlier, key=lambda x: (x["as_of"], x["version"]), reverse=True)


def runs_of(settings: RunSettings, as_of: date) -> list[dict[str, Any]]:
    """The summaries of the published runs of one day, the newest version first."""
    runs = [x for x in _published(settings) if x["as_of"] == as_of.isoformat()]
    return sorted(runs, key=lambda x: (x["version"], x["run_id"]), reverse=True)


def previous_ego(
    settings: RunSettings, table: str, as_of: date, item_ids: np.ndarray[Any, Any], width: int
) -> tuple[Float32 | None, str | None]:
    """The ego rows float32 [N, width] of the newest earlier run on `table`, by item id, and that run's id; NaN rows for new items.

    None, None if no earlier run has its outputs and this width.
    """
    for summary in earlier_runs(settings, table, as_of):
        refs = {name: Ref(**summary["stages"][name]) for name in ("source", "anchors")}
        if not all(ref.file("manifest.json").exists() for ref in refs.values()):
            continue
        previous_ids, ego = refs["source"].array("item_ids"), refs["anchors"].array("ego")
        if ego.shape[1] != width or previous_ids.dtype.kind != item_ids.dtype.kind:
            continue
        at = RowLookup(np.asarray(previous_ids)).rows_of(item_ids)
        known = (at >= 0) & refs["anchors"].array("trained")[at]
        rows = np.full((len(item_ids), width), np.nan, np.float32)
        rows[known] = ego[at[known]]
        return rows, str(summary["run_id"])
    return None, None


def copy_quarantine(source: Ref, folder: Path) -> None:
    """Copy the quarantined rows into the run's folder, which outlives the stage outputs. Raises StorageError."""
    target = folder / "quarantine"
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path(source.path).glob("quarantine-*.parquet")):
            shutil.copyfile(path, target / path.name.removeprefix("quarantine-"))
    except OSError as error:
        why = f"quarantined rows cannot be copied: {error.strerror}; fix the disk, then run again"
        raise StorageError(f"{target}: {why}") from error


def ref_values(ref: Ref) -> dict[str, str]:
    """A reference as JSON values."""
    return {"kind": ref.kind, "path": ref.path, "digest": ref.digest}

"""One run: its identity, its folder, the lock it holds, and the tidying of runs that are over.

Under ``folder`` lie ``stages/`` (content-addressed stage outputs, shared by all runs), ``logs/`` (one a day), ``metrics/``, and one folder
a run, named by its id: ``summary.json``, ``report.html``, ``report.json``, ``run.log`` and ``quarantine/``. A run's id is its day and a
digest over what the day's rows depend on, so a repeat has the same id.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import rectifier_core
from rectifier_core.base.arrays import Float32, Int64
from tasks.errors import StorageError
from tasks.runs.config import RunSettings
from tasks.runs.log import sweep_logs
from tasks.source.config import SourceConfig
from tasks.store.atomic_files import TEMPORARY, write_whole
from tasks.store.code_digest import code_digest
from tasks.store.store import Ref, StageStore, plain
from tasks.table.config import PublishConfig, RunIdentity
from tasks.table.lock import table_lock

SUMMARY = "summary.json"
LEFT_SECONDS = 3600.0
RUN_ID = re.compile(r"\d{8}-[0-9a-f]{12}")


@contextmanager
def open_run(
    settings: RunSettings, publish: PublishConfig, as_of: date, *, patience: float = 0.0
) -> Iterator[StageStore]:
    """Hold the table for the block; tidy up before it and, when it went well, behind it.

    TableHeldError if another run is under way, and still is after ``patience`` seconds.
    """
    with table_lock(publish, Path(settings.folder), run=f"rectify {as_of}", patience=patience), _storage(settings):
        settings.store.sweep(keep_seconds=settings.keep_days * 86400)
        with settings.store.in_use():
            yield settings.store
        sweep_runs(settings)
        sweep_logs(Path(settings.folder), settings.keep_runs)
        sweep_stages(settings)


def sweep_stages(settings: RunSettings) -> None:
    """Drop stage outputs of all but the newest runs, unless a run is using the store."""
    settings.store.sweep(keep_seconds=0, keep=_stages_of_newest(settings))


@contextmanager
def use_stages(settings: RunSettings) -> Iterator[StageStore]:
    """Share the stage outputs of every run for the block, without holding the table."""
    with _storage(settings), settings.store.in_use():
        yield settings.store


@contextmanager
def _storage(settings: RunSettings) -> Iterator[None]:
    """An error of the disk under the run folder, as one line."""
    try:
        yield
    except OSError as error:
        place = error.filename or settings.folder
        raise StorageError(f"{place}: {error.strerror or error}; free or fix the disk, then run again") from error


def _stages_of_newest(settings: RunSettings) -> set[str]:
    """The stage outputs of the newest runs: what a warm start and a report drawn again need.

    Newest by when they ran, for what goes on from here, and by their day too: a backfill takes nothing from the next night.
    """
    ran = sorted(
        Path(settings.folder).glob(f"*/{SUMMARY}"), key=lambda x: (x.stat().st_mtime, x.parent.name), reverse=True
    )
    by_day = sorted(ran, key=lambda x: x.parent.name[:8], reverse=True)
    newest = {path.parent.name for found in (ran, by_day) for path in found[: settings.keep_stages]}
    summaries = [load_summary(settings, name) for name in newest]
    return {ref["path"] for summary in summaries if summary is not None for ref in summary["stages"].values()}


def identify(as_of: date, source: Ref, parts: Mapping[str, Any], last: Mapping[str, Any] | None = None) -> RunIdentity:
    """The identity of a run: the day, what was read, the config ``parts`` that shape the rows, and the code of the core.

    Where files lie, and how many are kept, does not count; nor do the previous run's anchors, or a repeat after a backfill would differ.
    ``last`` is what a run that brings an earlier one up to date takes from there: that run's id and the settings for it.
    """
    config = config_digest(parts, last)
    digest = _digest([as_of.isoformat(), source.digest, config, code_digest()])
    return RunIdentity(
        run_id=f"{as_of:%Y%m%d}-{digest[:12]}",
        as_of=as_of,
        digest=digest,
        config_digest=config,
        inputs_digest=source.digest,
        code_version=code_version(),
    )


def config_digest(parts: Mapping[str, Any], last: Mapping[str, Any] | None = None) -> str:
    """A digest of the config that shapes the rows, and of what a run takes from an earlier one."""
    return _digest(without_places(parts) | ({} if last is None else {"incremental": dict(last)}))


def section_digests(parts: Mapping[str, Any]) -> dict[str, str]:
    """The same a section of the config, so that what changed can be named."""
    return {name: _digest(value) for name, value in without_places(parts).items()}


def code_version() -> str:
    """The version of the core, and a digest of its source."""
    return f"{rectifier_core.__version__}+{code_digest()}"


def without_places(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Config parts as JSON values, the source's locations left out: a copy of the data elsewhere is the same input."""
    found = {name: plain(value) for name, value in parts.items()}
    for name, value in parts.items():
        if isinstance(value, SourceConfig):
            found[name] = {k: v for k, v in found[name].items() if k not in ("catalog", "interactions")}
    return found


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def save_summary(settings: RunSettings, summary: Mapping[str, Any]) -> Path:
    """Write a run's summary beside its report, whole or not at all."""
    path, text = settings.run_folder(summary["run_id"]) / SUMMARY, json.dumps(summary, indent=1, allow_nan=False)
    failed = "summary: writing {path} failed: {why}; free or fix the disk, then run again"
    write_whole(path, lambda temporary: temporary.write_text(text), failed=failed)
    _date_last(path)
    return path


def _date_last(path: Path) -> None:
    """Let a run's summary and its folder be the newest, also where the clock went back since another was written."""
    others = [
        y
        for x in path.parent.parent.glob("*")
        if RUN_ID.fullmatch(x.name) and x != path.parent
        for y in (x, x / SUMMARY)
    ]
    with suppress(OSError):
        latest = max((x.stat().st_mtime_ns for x in others if x.exists()), default=0)
        for each in (path, path.parent):
            if each.stat().st_mtime_ns <= latest:
                os.utime(each, ns=(latest + 1_000_000, latest + 1_000_000))


def load_summary(settings: RunSettings, run_id: str) -> dict[str, Any] | None:
    """A run's summary, None where there is none that can be read; its report is where it lies now, had the folder been moved."""
    folder = settings.run_folder(run_id)
    try:
        found: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError):
        return None
    return found | {"report": str(folder / Path(found["report"]).name)} if "report" in found else found


def copy_quarantine(source: Ref, folder: Path) -> None:
    """Put the quarantined rows beside the report, where people look for them after the stage outputs are swept."""
    target = folder / "quarantine"
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path(source.path).glob("quarantine-*.parquet")):
            shutil.copyfile(path, target / path.name.removeprefix("quarantine-"))
    except OSError as error:
        raise StorageError(
            f"{target}: quarantined rows cannot be copied: {error.strerror}; fix the disk, then run again"
        ) from error


def previous_ego(
    settings: RunSettings, table: str, as_of: date, item_ids: np.ndarray[Any, Any], width: int
) -> tuple[Float32 | None, str | None]:
    """The ego rows of the newest earlier run published to ``table``, by item id, and that run's id; NaN rows for items it did not know."""
    for summary in earlier_runs(settings, table, as_of):
        refs = {name: Ref(**summary["stages"][name]) for name in ("source", "anchors")}
        if not all(ref.file("manifest.json").exists() for ref in refs.values()):
            continue
        before, ego = refs["source"].array("item_ids"), refs["anchors"].array("ego")
        if ego.shape[1] != width or before.dtype.kind != item_ids.dtype.kind:
            continue
        at = rows_before(item_ids, np.asarray(before))
        known = (at >= 0) & refs["anchors"].array("trained")[at]
        rows = np.full((len(item_ids), width), np.nan, np.float32)
        rows[known] = ego[at[known]]
        return rows, str(summary["run_id"])
    return None, None


def rows_before(ids: np.ndarray[Any, Any], earlier: np.ndarray[Any, Any]) -> Int64:
    """The place of each of ``ids`` [N] among the distinct ids ``earlier`` [M], -1 where it is not among them: int64 [N]."""
    if not len(earlier) or ids.dtype.kind != earlier.dtype.kind:
        return np.full(len(ids), -1, np.int64)
    order = np.argsort(earlier, kind="stable")
    at = order[np.minimum(np.searchsorted(earlier, ids, sorter=order), len(earlier) - 1)]
    return np.where(earlier[at] == ids, at, -1).astype(np.int64)


def earlier_runs(settings: RunSettings, table: str, as_of: date) -> list[dict[str, Any]]:
    """The summaries of the runs of earlier days that were published to ``table``, the newest first."""
    usable = [x for x in _published(settings) if x.get("table") == table and x["as_of"] < as_of.isoformat()]
    return sorted(usable, key=lambda x: (x["as_of"], x["version"]), reverse=True)


def runs_of(settings: RunSettings, as_of: date) -> list[dict[str, Any]]:
    """The summaries of the runs of one day that were published, the newest version first."""
    found = [x for x in _published(settings) if x["as_of"] == as_of.isoformat()]
    return sorted(found, key=lambda x: (x["version"], x["run_id"]), reverse=True)


def _published(settings: RunSettings) -> list[dict[str, Any]]:
    folders = Path(settings.folder).glob(f"*/{SUMMARY}")
    found = [load_summary(settings, path.parent.name) for path in folders]
    return [x for x in found if x is not None and x.get("version") is not None]


def same_making(summary: Mapping[str, Any], parts: Mapping[str, Any]) -> bool:
    """Whether the run of a summary was made from this config by this code."""
    return bool(summary.get("making") == making_digest(parts))


def making_digest(parts: Mapping[str, Any]) -> str:
    """A digest of the config that shapes the rows, and of the code."""
    return _digest([without_places(parts), code_digest()])


def sweep_runs(settings: RunSettings) -> None:
    """Drop run folders beyond the newest ``keep_runs`` and those older than ``keep_days``; the newest always stays.

    Those of the newest ``keep_runs`` days stay as well where backfilled ones would push them out.
    A run that was refused or killed has a folder too, though no summary. What a killed one left of a file goes an hour later.
    """
    folders = [x for x in Path(settings.folder).glob("*") if RUN_ID.fullmatch(x.name) and x.is_dir()]
    runs = sorted(folders, key=lambda x: x.stat().st_mtime, reverse=True)
    horizon = time.time() - settings.keep_days * 86400
    of_newest_days = set(sorted(runs, key=lambda x: x.name[:8], reverse=True)[: settings.keep_runs])
    for at, folder in enumerate(runs):
        if at and ((at >= settings.keep_runs and folder not in of_newest_days) or folder.stat().st_mtime < horizon):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            _sweep_temporary(folder)


def _sweep_temporary(folder: Path) -> None:
    # Runs of two tables may share a folder: one that is not this run's may be writing.
    for left in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - LEFT_SECONDS:
                left.unlink()


def ref_values(ref: Ref) -> dict[str, str]:
    """A reference as JSON."""
    values = asdict(ref)
    return {name: values[name] for name in ("kind", "path", "digest")}

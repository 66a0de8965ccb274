"""``flows demo``: a catalog and interaction log with planted truth, for trying the pipeline and for measuring it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from rectifier_core.base.numerics import Progress, silent
from tasks.demo.config import FEATURE_FAULTS, MODALITIES, ROW_FAULTS, SEQUENCES, DemoConfig
from tasks.demo.tables import (
    LAST_DAY,
    POSITIVE_RATING,
    sequence_summary,
    write_catalog,
    write_day,
    write_interactions,
    write_truth,
)
from tasks.demo.truth import MISSING, PlantedTruth, Splices, drift, plant, plant_splices
from tasks.demo.world import DemoWorld, build_world
from tasks.errors import InputError, StorageError

__all__ = ["DemoConfig", "add_day", "write_demo"]

_SUMMARY: Final = "truth/summary.json"
_TITLE = "# The demo catalog"
_RUN_TOML = (
    _TITLE
    + """. Run it with: catalog-rectifier rectify --config run.toml
seed = {seed}

[source]
catalog = "catalog"
interactions = "interactions"
item_column = "item_id"
user_column = "user_id"
time_column = "event_time"
positive = "rating >= {positive}"
title_column = "title"
category_column = "category"

[source.modalities]
{modalities}

[publish]
uri = "warehouse/item_features"

[run]
folder = "runs"
"""
)


def write_demo(folder: Path, config: DemoConfig, progress: Progress = silent) -> dict[str, Any]:
    """Write the demo of ``config`` to ``folder`` and return its ``truth/summary.json``.

    The demo is written beside ``folder`` first, then moved. It replaces an earlier demo there and keeps that demo's warehouse and runs.
    The same config gives the same bytes. Memory grows by some hundred bytes an item and a user, whatever the number of interactions.

    Raises:
        InputError: ``folder`` holds something that is not a demo.
        StorageError: writing failed. The earlier demo is kept, or it has no ``truth`` and ``score_ranking`` refuses it.
    """
    folder = folder.resolve()
    _check_target(folder)
    temporary = folder.parent / f".{folder.name}.demo-tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        summary = _write(temporary, config, progress)
        folder.mkdir(exist_ok=True)
        shutil.rmtree(folder / "truth", ignore_errors=True)
        for name in ("run.toml", "catalog", "interactions", "truth"):
            shutil.rmtree(folder / name, ignore_errors=True)
            (temporary / name).replace(folder / name)
    except OSError as error:
        raise StorageError(
            f"demo {folder}: writing failed: {error.strerror or error}; free or fix the disk, then run again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


def add_day(folder: Path, changed: float = 0.01, progress: Progress = silent) -> dict[str, Any]:
    """Add the next day to the demo at ``folder``: a catalog snapshot ``dt=YYYY-MM-DD`` and a day of events. Return the new summary.

    ``changed`` is the share of each modality's features that change, see ``drift``. The first catalog becomes the snapshot of the demo's
    last day. ``truth`` becomes that of the newest day. The same demo and shares give the same bytes.

    Raises:
        InputError: ``folder`` holds no complete demo, or ``changed`` is out of range.
        StorageError: writing failed.
    """
    if not 0 <= changed <= 0.5:
        raise InputError(f"demo --changed: wanted a share from 0 to 0.5, got {changed:g}")
    folder = folder.resolve()
    try:
        previous: dict[str, Any] = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"demo {folder}: there is no complete demo here to add a day to; write one first") from None
    try:
        return _add_day(folder, previous, changed, progress)
    except OSError as error:
        raise StorageError(
            f"demo {folder}: writing failed: {error.strerror or error}; free the disk and write the demo again"
        ) from error


def _check_target(folder: Path) -> None:
    if folder.is_file():
        raise InputError(f"demo {folder}: this is a file; name a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    config = folder / "run.toml"
    if not config.is_file() or not config.read_text(encoding="utf-8").startswith(_TITLE):
        raise InputError(f"demo {folder}: the folder is not empty and holds no earlier demo; name another folder")


def _write(folder: Path, config: DemoConfig, progress: Progress) -> dict[str, Any]:
    world, truth, splices = build_world(config), plant(config), _splices(config)
    rows = write_catalog(folder / "catalog", world, truth, splices, progress)
    logged = write_interactions(folder / "interactions", world, progress)
    modalities = "\n".join(f'{m} = "{m}_embedding"' for m in (*MODALITIES, *splices))
    text = _RUN_TOML.format(seed=config.seed, positive=POSITIVE_RATING, modalities=modalities)
    (folder / "run.toml").write_text(text, "utf-8")
    summary = _summary(world, truth, splices) | {"catalog_rows": rows, "interactions": logged}
    return _write_truth(folder, truth, splices, summary)


def _add_day(folder: Path, previous: dict[str, Any], changed: float, progress: Progress) -> dict[str, Any]:
    config, shares = DemoConfig(**previous["config"]), [*previous.get("later_days", []), changed]
    last = date.fromisoformat(previous["last_day"])
    day, catalog = last + timedelta(days=1), folder / "catalog"
    world, truth, splices = build_world(config), plant(config), _splices(config)
    for number, share in enumerate(shares, 1):
        truth = drift(config, truth, number, share)
    shutil.rmtree(folder / "truth")
    if len(shares) == 1:
        first = catalog / f"dt={last.isoformat()}"
        first.mkdir()
        for path in sorted(catalog.glob("*.parquet")):
            path.rename(first / path.name)
    rows = write_catalog(catalog / f"dt={day.isoformat()}", world, truth, splices, progress)
    events = round(config.num_interactions / config.days)
    logged = write_day(folder / "interactions", world, day, events, np.zeros(config.items, np.bool_))
    counts = {name: previous["interactions"][name] + number for name, number in logged.items()}
    summary = _summary(world, truth, splices) | {"catalog_rows": rows, "interactions": counts}
    summary |= {"last_day": day.isoformat(), "later_days": shares}
    return _write_truth(folder, truth, splices, summary)


def _splices(config: DemoConfig) -> dict[str, Splices]:
    return {m: plant_splices(config, m) for m in SEQUENCES} if config.sequences else {}


def _write_truth(
    folder: Path, truth: PlantedTruth, splices: Mapping[str, Splices], summary: dict[str, Any]
) -> dict[str, Any]:
    """Write the folder ``truth``, its summary last: a demo with a summary is complete."""
    (folder / "truth").mkdir()
    write_truth(folder / "truth", truth, splices)
    text = json.dumps(summary, indent=1, sort_keys=True, allow_nan=False)
    (folder / _SUMMARY).write_text(text + "\n")
    return summary


def _summary(world: DemoWorld, truth: PlantedTruth, splices: Mapping[str, Splices]) -> dict[str, Any]:
    """The counts of what was planted, JSON."""
    config = world.config
    modalities = {}
    for m in MODALITIES:
        having, swapped = int(np.count_nonzero(truth.listed & (truth.owner[m] != MISSING))), len(truth.mismatched(m))
        modalities[m] = {
            "width": config.widths[m],
            "items_with_feature": having,
            "missing": int(np.count_nonzero(truth.listed)) - having,
            "mismatches": swapped,
            "mismatch_rate": swapped / having,
            "placeholders": len(truth.placeholders(m)),
        }
    broken = {kind: sum(fault.kind == kind for fault in truth.faults) for kind in ROW_FAULTS + FEATURE_FAULTS}
    summary = {
        "config": asdict(config),
        "seed": config.seed,
        "items": config.items,
        "users": config.num_users,
        "first_day": (LAST_DAY - timedelta(days=config.days - 1)).isoformat(),
        "last_day": LAST_DAY.isoformat(),
        "broken_catalog_rows": broken,
        "modalities": modalities,
    }
    return summary | ({"sequences": sequence_summary(config, splices)} if splices else {})

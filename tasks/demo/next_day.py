"""``flows demo --next-day``: the day after a demo's last, with some of its features changed and one more day of events."""

from __future__ import annotations

import json
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from rectifier_core.base.numerics import Progress, silent
from tasks.demo.catalog import SUMMARY, summarise, write_json
from tasks.demo.config import SEQUENCES, DemoConfig
from tasks.demo.sequences import Sequences, plant_splices, sequence_summary
from tasks.demo.tables import write_catalog, write_events, write_truth
from tasks.demo.truth import drift, plant
from tasks.demo.world import build_world
from tasks.errors import InputError, StorageError


def add_day(folder: Path, changed: float = 0.01, progress: Progress = silent) -> dict[str, Any]:
    """Write the next day into the demo at ``folder``: a catalog snapshot ``dt=YYYY-MM-DD`` and a day of events; return the new summary.

    ``changed`` is the share of each modality's features that change, see ``demo_truth.drift``. The first catalog becomes the snapshot of
    the demo's last day. ``truth`` is that of the newest day. The same demo and the same shares give the same bytes.

    Raises InputError where ``folder`` holds no whole demo or ``changed`` is no share, StorageError where writing failed.
    """
    if not 0 <= changed <= 0.5:
        raise InputError(f"demo --changed: wanted a share from 0 to 0.5, got {changed:g}")
    folder = folder.resolve()
    before = _whole_summary(folder)
    try:
        return _add(folder, before, changed, progress)
    except OSError as error:
        raise StorageError(
            f"demo {folder}: writing failed: {error.strerror or error}; free the disk and write the demo anew"
        ) from error


def _whole_summary(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError):
        raise InputError(f"demo {folder}: there is no demo here to add a day to; write one first") from None
    if not found["complete"]:
        raise InputError(f"demo {folder}: it is incomplete; write it anew")
    return found


def _add(folder: Path, before: dict[str, Any], changed: float, progress: Progress) -> dict[str, Any]:
    config, shares = DemoConfig(**before["config"]), [*before.get("later_days", []), changed]
    last = date.fromisoformat(before["last_day"])
    day = last + timedelta(days=1)
    world, truth = build_world(config), plant(config)
    for number, share in enumerate(shares, 1):
        truth = drift(config, truth, number, share)
    write_json(folder / SUMMARY, before | {"complete": False})
    catalog, log = folder / "catalog", folder / "interactions"
    if len(shares) == 1:
        first = catalog / f"dt={last.isoformat()}"
        first.mkdir()
        for path in sorted(catalog.glob("*.parquet")):
            path.rename(first / path.name)
    for stale in (catalog / f"dt={day.isoformat()}", log / f"dt={day.isoformat()}"):
        shutil.rmtree(stale, ignore_errors=True)
    sequences = {m: Sequences(config, m, world.taste) for m in SEQUENCES} if config.sequences else {}
    splices = {m: plant_splices(config, m, made) for m, made in sequences.items()}
    rows = write_catalog(catalog / f"dt={day.isoformat()}", world, truth, progress, sequences, splices)
    write_truth(folder / "truth", truth)
    events, counts = (
        _events_of(config, len(shares)),
        {k: v for k, v in before["interactions"].items() if k != "items_without_interactions"},
    )
    write_events(log, world, day, events, counts, np.zeros(config.items, np.bool_))
    summary = summarise(world, truth, rows, counts) | {"last_day": day.isoformat(), "later_days": shares}
    if sequences:
        summary["sequences"] = sequence_summary(config, splices, sequences)
    write_json(folder / SUMMARY, summary)
    return summary


def _events_of(config: DemoConfig, number: int) -> slice:
    """The running numbers of the events of the ``number``-th later day: as many as an average day of the demo's own has."""
    size = round(config.num_interactions / config.days)
    return slice(config.num_interactions + (number - 1) * size, config.num_interactions + number * size)

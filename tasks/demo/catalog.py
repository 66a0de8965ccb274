"""``flows demo``: a catalog and interaction log with planted truth, for trying the pipeline and for measuring it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from rectifier_core.base.numerics import Progress, silent
from tasks.demo.config import FEATURE_FAULTS, MODALITIES, ROW_FAULTS, SEQUENCES, DemoConfig
from tasks.demo.sequences import Sequences, plant_splices, sequence_summary, write_segment_truth
from tasks.demo.tables import LAST_DAY, POSITIVE_RATING, item_ids, write_catalog, write_interactions, write_truth
from tasks.demo.truth import MISSING, PlantedTruth, plant
from tasks.demo.world import DemoWorld, build_world
from tasks.errors import InputError, StorageError

__all__ = ["DemoConfig", "write_demo"]

SUMMARY: Final = "truth/summary.json"
_PARTS = ("catalog", "interactions", "run.toml")

_RUN_TOML = """\
# The demo catalog, to be run with: python -m flows rectify --config run.toml
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


def write_demo(folder: Path, config: DemoConfig, progress: Progress = silent) -> dict[str, Any]:
    """Write the demo of ``config`` to ``folder`` and return its ``truth/summary.json``.

    It is written beside ``folder`` first and moved into place when it is whole. An earlier demo there is replaced, its warehouse and
    runs left alone; any other folder that is not empty is refused. The same config gives the same bytes. Features and events are made and
    written in blocks: memory grows by some hundred bytes an item and a user, whatever the number of interactions.

    Raises:
        InputError: ``folder`` holds something that is not a demo.
        StorageError: writing failed; what was there before is kept, or the demo is marked incomplete and refused by ``score_ranking``.
    """
    folder = folder.resolve()
    replacing = _check_target(folder)
    temporary = folder.parent / f".{folder.name}.demo-tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        summary = _write(temporary, config, progress)
        if replacing:
            _replace(temporary, folder, summary)
        else:
            temporary.rename(folder)
    except OSError as error:
        raise StorageError(
            f"demo {folder}: writing failed: {error.strerror or error}; free or fix the disk, then run again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


def _check_target(folder: Path) -> bool:
    """Whether ``folder`` holds an earlier demo; raises InputError when it holds something else."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise InputError(f"demo {folder}: this is a file; name a folder")
    if (folder / SUMMARY).is_file():
        return True
    if any(folder.iterdir()):
        raise InputError(
            f"demo {folder}: the folder is not empty and holds no earlier demo ({SUMMARY}); name another folder"
        )
    return False


def _write(folder: Path, config: DemoConfig, progress: Progress) -> dict[str, Any]:
    (folder / "truth").mkdir(parents=True)
    world, truth = build_world(config), plant(config)
    sequences = {m: Sequences(config, m, world.taste) for m in SEQUENCES} if config.sequences else {}
    splices = {m: plant_splices(config, m, made) for m, made in sequences.items()}
    rows = write_catalog(folder / "catalog", world, truth, progress, sequences, splices)
    write_truth(folder / "truth", truth)
    logged = write_interactions(folder / "interactions", world, progress)
    summary = summarise(world, truth, rows, logged)
    if sequences:
        write_segment_truth(folder / "truth", splices, item_ids(np.arange(config.items)), sequences)
        summary["sequences"] = sequence_summary(config, splices, sequences)
    write_json(folder / SUMMARY, summary)
    modalities = "\n".join(f'{m} = "{m}_embedding"' for m in (*MODALITIES, *sequences))
    (folder / "run.toml").write_text(
        _RUN_TOML.format(seed=config.seed, positive=POSITIVE_RATING, modalities=modalities)
    )
    return summary


def summarise(world: DemoWorld, truth: PlantedTruth, rows: int, logged: dict[str, int]) -> dict[str, Any]:
    """What was planted, counted, as it stands in ``truth/summary.json``."""
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
    return {
        "complete": True,
        "config": asdict(config),
        "seed": config.seed,
        "items": config.items,
        "users": config.num_users,
        "first_day": (LAST_DAY - timedelta(days=config.days - 1)).isoformat(),
        "last_day": LAST_DAY.isoformat(),
        "catalog_rows": rows,
        "broken_catalog_rows": {
            kind: sum(fault.kind == kind for fault in truth.faults) for kind in ROW_FAULTS + FEATURE_FAULTS
        },
        "modalities": modalities,
        "interactions": logged,
    }


def _replace(source: Path, folder: Path, summary: dict[str, Any]) -> None:
    """Put a whole new demo where an old one lies. The summary says "complete: false" while the two are mixed."""
    write_json(folder / SUMMARY, {**summary, "complete": False})
    for name in _PARTS:
        old, new = folder / name, source / name
        if old.exists():
            old.rename(source / f"old-{name}")
        new.rename(old)
    made = sorted((source / "truth").iterdir(), key=lambda path: path.name == Path(SUMMARY).name)
    # The old demo may have had sequences where the new one has none.
    for path in set((folder / "truth").iterdir()) - {folder / "truth" / path.name for path in made}:
        path.unlink()
    for path in made:
        path.replace(folder / "truth" / path.name)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")
    os.replace(temporary, path)

"""Reading a catalog and an interaction log as of a day into one stage output.

Files in the output's folder, I items, E pairs, D_m features of modality m:

- ``item_ids.npy`` [I] int64 or fixed-width text; ``features-<m>.npy`` [I, D_m] float32, zeros where absent; ``present-<m>.npy`` [I] bool;
  ``digest-<m>.npy`` [I] uint64, a digest of each row of features, by which another night tells whether it is still the same;
- of a sequence modality also ``segments-<m>.npy``, ``offsets-<m>.npy`` and ``positions-<m>.npy`` (see ``source_sequences``); its feature is
  the plain mean of the item's usable segments;
- ``users.npy``, ``items.npy`` [E] int32, distinct positive pairs sorted by (user, item); a user's code is the rank of its id among all;
  ``user_keys.npy`` [U] uint64, a digest of each user's id;
  ``times.npy`` [E] int64, seconds since the epoch of the pair's latest event, only with a time column;
- ``labels.parquet`` item_id and, as configured, title and category as text, in catalog order;
- ``quarantine-items.parquet`` row_number, item_id, reason; ``quarantine-features.parquet`` item_id, modality, reason;
  ``quarantine-interactions.parquet`` user_id, item_id, event_time, reason;
- ``meta.json`` as_of, id_type, num_users, num_items, modalities (with ``segments`` for sequences only) and counts.

Nothing in it depends on where the data lies or how it is cut into files, and the pairs do not depend on the order of the log's rows either.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError
from tasks.source.catalog import Items, read_catalog
from tasks.source.config import SourceConfig
from tasks.source.files import catalog_files, interaction_files, list_input
from tasks.source.interactions import Counts, newest_event_day, read_interactions
from tasks.store.store import Ref, StageStore, StageWriter

__all__ = ["SourceConfig", "read_source", "resolve_day"]


def resolve_day(config: SourceConfig, as_of: date | None) -> date:
    """The day a run is about: ``as_of`` if given, else the newest day of the log that is not after today (UTC).

    That is its newest ``dt=`` partition, without partitions the newest event, and today itself where neither tells.
    Raises InputError if the log is missing or unreadable, or lies wholly in the future.
    """
    if as_of is not None:
        return as_of
    today = datetime.now(UTC).date()
    everything, by_day = list_input(config.interactions)
    if by_day:
        days = [day for day in by_day if day <= today]
        if not days:
            raise InputError(
                f"{config.interactions}: every partition lies after today ({today}, UTC), the first at dt={min(by_day)}; say --as-of"
            )
        return max(days)
    if config.time_column is None:
        return today
    return newest_event_day(everything, config.time_column, today)


def read_source(config: SourceConfig, as_of: date, store: StageStore, progress: Progress = silent) -> Ref:
    """Read and validate the catalog and the log as of a day, unless exactly these files were read with this config before.

    Only the newest snapshot and the log's days up to ``as_of`` are opened. Raises InputError, with one line naming the file, column or
    key, for whatever is missing, unreadable, of an unusable type, empty, or quarantined beyond ``config.max_quarantined``.
    """
    catalog = catalog_files(config.catalog, as_of)
    log = interaction_files(config.interactions, as_of, config.lookback_days)

    def build(writer: StageWriter) -> None:
        try:
            items, modalities = read_catalog(catalog, config, writer, progress)
            counts, quarantined = read_interactions(log, config, as_of, items, writer, progress)
        finally:
            # Whatever is wrong with a file that somebody writes to meanwhile, that is the reason.
            for files in (catalog, log):
                files.raise_if_changed()
        writer.meta(_meta(as_of, items, modalities, counts, quarantined))

    # Who made the vectors changes nothing of what is read.
    inputs = (
        catalog.fingerprint,
        log.fingerprint,
        replace(config, embedding_models={}),
        as_of.isoformat(),
        _code_digest(),
    )
    return store.once("source", inputs, build)


def _meta(
    as_of: date, items: Items, modalities: dict[str, Any], log: Counts, quarantined: dict[str, int]
) -> dict[str, Any]:
    counts = {
        "catalog_rows_read": len(items.target),
        "items": len(items.ids),
        "items_quarantined": items.quarantined,
        "interactions_read": log.read,
        "interactions_used": log.used,
        "not_positive": log.not_positive,
        "repeats_merged": log.repeats_merged,
        "interactions_quarantined": quarantined,
        "features_quarantined": {name: found["quarantined"] for name, found in modalities.items()},
    }
    sequences = {name: found["segments_quarantined"] for name, found in modalities.items() if "segments" in found}
    if sequences:
        counts["segments_quarantined"] = sequences
    return {
        "as_of": as_of.isoformat(),
        "id_type": str(items.source_type),
        "num_users": log.num_users,
        "num_items": len(items.ids),
        "modalities": {name: _summed(found) for name, found in modalities.items()},
        "counts": counts,
    }


def _summed(found: dict[str, Any]) -> dict[str, Any]:
    return found | {
        name: sum(found[name].values()) for name in ("quarantined", "segments_quarantined") if name in found
    }


@cache
def _code_digest() -> str:
    """A digest of the modules that read: the stage key itself covers only ``rectifier_core``."""
    state = hashlib.blake2b(digest_size=12)
    for path in sorted([*Path(__file__).parent.glob("*.py"), Path(__file__).parents[1] / "object_store.py"]):
        state.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()

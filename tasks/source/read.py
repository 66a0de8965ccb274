"""Reading a catalog and an interaction log as of a day into one stage output.

Files in the output's folder, I items, E pairs, D_m features of modality m:

- ``item_ids.npy`` [I] int64 or fixed-width text; ``features-<m>.npy`` [I, D_m] float32, zeros where absent; ``present-<m>.npy`` [I] bool;
  ``digest-<m>.npy`` [I] uint64, a digest of each row of features, by which another night finds changed rows;
- of a sequence modality also ``segments-<m>.npy``, ``offsets-<m>.npy`` and ``positions-<m>.npy`` .
  S usable segments in all: ``segments`` [S, D_m] float32, item by item in order; ``offsets`` [I + 1] int64, item i owns the rows from
  ``offsets[i]`` up to ``offsets[i + 1]``; ``positions`` [S] int32, a segment's place in its item's sequence, which shows where unusable
  ones were left out. The feature is the plain mean of the item's usable segments;
- ``users.npy``, ``items.npy`` [E] int32, distinct positive pairs sorted by (user, item); a user's code is the rank of its id among all;
  ``user_keys.npy`` [U] uint64, a digest of each user's id;
  ``times.npy`` [E] int64, seconds since the epoch of the pair's latest event, only with a time column;
- ``labels.parquet`` item_id and, as configured, title and category as text, in catalog order;
- ``quarantine-items.parquet`` row_number, item_id, reason; ``quarantine-features.parquet`` item_id, modality, reason;
  ``quarantine-interactions.parquet`` user_id, item_id, event_time, reason;
- ``meta.json`` as_of, id_type, num_users, num_items, modalities (with ``segments`` for sequences only) and counts.

The output does not depend on where the data lies or how it is cut into files. The pairs do not depend on the order of the log's rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError
from tasks.source.catalog import Items, read_catalog
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, list_input
from tasks.source.interactions import event_days, read_interactions
from tasks.source.raw_log import RawLog
from tasks.source.schema import check_columns
from tasks.store.store import Ref, StageStore, StageWriter, stage_key

__all__ = ["SourceConfig", "check_first_files", "find_source", "read_source", "resolve_day"]
KIND = "source"


def resolve_day(config: SourceConfig, as_of: date | None) -> date:
    """The day a run is about: ``as_of`` if given, else the newest day of the log that is not after today (UTC).

    That is its newest ``dt=`` partition, without partitions the newest event, and today without a time column.
    Raises InputError if the log is missing or unreadable, or has no day up to today.
    """
    if as_of is not None:
        return as_of
    today = datetime.now(UTC).date()
    log = list_input(config.interactions)
    if log.by_day:
        days = [day for day in log.by_day if day <= today]
        if not days:
            raise InputError(
                f"{config.interactions}: every partition lies after today ({today}, UTC), the first at dt={min(log.by_day)};"
                " say --as-of"
            )
        return max(days)
    return today if config.time_column is None else event_days(log.everything, config.time_column, today)[-1]


def read_source(config: SourceConfig, as_of: date, store: StageStore, progress: Progress = silent) -> Ref:
    """Read and validate the catalog and the log as of a day, unless exactly these files were read with this config before.

    Only the newest snapshot and the log's days up to ``as_of`` are opened. Raises InputError for data that is missing, unreadable, of an
    unusable type, empty, or quarantined beyond ``config.max_quarantined``. The message names the file, column or key.
    """
    catalog, log = _files(config, as_of)

    def build(writer: StageWriter) -> None:
        try:
            items, modalities = read_catalog(catalog, config, writer, progress)
            num_users, counts = read_interactions(log, config, as_of, items, writer, progress)
        finally:
            # If somebody writes to a file meanwhile, that is the reason of any other error.
            for files in (catalog, log):
                files.raise_if_changed()
        meta = {"as_of": as_of.isoformat(), "id_type": str(items.source_type), "num_users": num_users}
        writer.meta(meta | {"num_items": len(items.ids)} | _counts(items, modalities, counts))

    return store.once(KIND, _key_inputs(config, as_of, catalog, log), build)


def find_source(config: SourceConfig, as_of: date, store: StageStore) -> Ref | None:
    """What ``read_source`` would return without reading anything, None if it would read. Raises InputError for missing files."""
    return store.find(KIND, stage_key(KIND, _key_inputs(config, as_of, *_files(config, as_of))))


def check_first_files(config: SourceConfig, as_of: date) -> None:
    """Raises InputError if the first files of the catalog or the log lack a column or have one of an unusable type.

    It reads no rows, so it takes no time. ``read_source`` checks every file.
    """
    catalog, log = _files(config, as_of)
    family, _, _ = check_columns(replace(catalog, files=catalog.files[:1]), config)
    RawLog(log, config, as_of, pa.array([], family))


def _files(config: SourceConfig, as_of: date) -> tuple[ParquetFiles, ParquetFiles]:
    """The catalog's and the log's files of a day."""
    return list_input(config.catalog).catalog(as_of), list_input(config.interactions).log(as_of, config.lookback_days)


def _key_inputs(config: SourceConfig, as_of: date, catalog: ParquetFiles, log: ParquetFiles) -> tuple[Any, ...]:
    # The name of the embedding model does not change what is read.
    settings = replace(config, embedding_models={})
    return catalog.fingerprint, log.fingerprint, settings, as_of.isoformat(), _code_digest()


def _counts(items: Items, modalities: dict[str, Any], of_log: dict[str, Any]) -> dict[str, Any]:
    """``modalities`` with the sums of what was quarantined, and ``counts`` with each reason."""
    by_reason = {
        f"{what}_quarantined": {name: part[key] for name, part in modalities.items() if key in part}
        for what, key in (("features", "quarantined"), ("segments", "segments_quarantined"))
    }
    counts = {
        "catalog_rows_read": len(items.target),
        "items": len(items.ids),
        "items_quarantined": items.quarantined,
        **of_log,
        **{what: reasons for what, reasons in by_reason.items() if reasons},
    }
    sums = {
        name: {key: sum(value.values()) if isinstance(value, dict) else value for key, value in part.items()}
        for name, part in modalities.items()
    }
    return {"modalities": sums, "counts": counts}


@cache
def _code_digest() -> str:
    """A digest of the modules that read the source. The stage key itself covers only ``rectifier_core``."""
    state = hashlib.blake2b(digest_size=12)
    for path in sorted([*Path(__file__).parent.glob("*.py"), Path(__file__).parents[1] / "object_store.py"]):
        state.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()

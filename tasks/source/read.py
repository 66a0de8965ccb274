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
- ``labels.parquet`` item_id and, as configured, title, category, text and picture as text, in catalog order;
- ``quarantine-items.parquet`` row_number, item_id, reason; ``quarantine-features.parquet`` item_id, modality, reason;
  ``quarantine-interactions.parquet`` user_id, item_id, event_time, reason;
- ``meta.json`` as_of, id_type, num_users, num_items, modalities (with ``segments`` for sequences only) and counts;
- ``notes.json`` readings (what each column was taken for), warnings, and newest_event, the newest day with an event.

The output but for its notes does not depend on where the data lies or how it is cut into files. The pairs do not depend on the order of
the log's rows.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError
from tasks.source.catalog import Items, read_features, read_items
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, list_catalog, list_log
from tasks.source.footers import Problems, read_footers
from tasks.source.inspect import Inspection, inspect_source
from tasks.source.interactions import event_days, read_interactions
from tasks.source.time_unit import TIME_KEY, read_time_column
from tasks.store.store import Ref, StageStore, StageWriter, stage_key

__all__ = ["SourceConfig", "find_source", "newest_day", "read_source", "resolve_day"]
KIND = "source"
# Where the quarantine of a refused run is kept, beside the stages.
REFUSED = "refused"


def resolve_day(config: SourceConfig, as_of: date | None, *, allow_future: bool = False) -> date:
    """The day a run is about: ``as_of`` if given, else the newest day of the log that is not after today.

    That is its newest day folder, without folders the newest event, and today without a time column. A day begins and ends in
    ``source.time_zone``. Raises InputError if the log is missing or unreadable, or has no day up to today, and for an ``as_of`` after today
    without ``allow_future``.
    """
    today = today_in(config)
    if as_of is not None:
        if as_of > today and not allow_future:
            raise InputError(
                f"--as-of {as_of}: is after today ({today}, {config.time_zone or 'UTC'}), so its events are not there yet; give a day up to"
                " today, or --allow-future"
            )
        return as_of
    return newest_day(config, today)


def today_in(config: SourceConfig) -> date:
    """Today in ``source.time_zone``."""
    return datetime.now(config.zone or UTC).date()


def newest_day(config: SourceConfig, today: date) -> date:
    """The newest day of the log that is not after ``today``. Raises InputError if there is none."""
    log = list_log(config)
    if log.by_day:
        days = [day for day in log.by_day if day <= today]
        if not days:
            first = log.days.label(min(log.by_day))
            raise InputError(
                f"{config.interactions}: every partition lies after today ({today}), the first at {first}; check the clock and"
                " source.time_zone, or say --as-of with --allow-future"
            )
        return max(days)
    return today if config.time_column is None else days_of_events(config, today)[-1]


def days_of_events(config: SourceConfig, today: date) -> list[date]:
    """The days of the events of a log with a time column, none after ``today``, oldest first. Raises InputError if there is none."""
    files, column = list_log(config).everything, str(config.time_column)
    footers = read_footers(files, {column: TIME_KEY}, Problems())
    return event_days(files, column, today, read_time_column(files, footers, config))


def read_source(config: SourceConfig, as_of: date, store: StageStore, progress: Progress = silent) -> Ref:
    """Read and validate the catalog and the log as of a day, unless exactly these files were read with this config before.

    Only the newest snapshot and the log's days up to ``as_of`` are opened. Raises InputError for data that is missing, unreadable, of an
    unusable type, empty, or quarantined beyond ``config.max_quarantined``. The message names the file, column or key, and the folder where
    the quarantine of the refused run is kept.
    """
    found = inspect_source(config, as_of)

    def build(writer: StageWriter) -> None:
        try:
            items = read_items(found.catalog, config, found.catalog_schema, writer, progress)
            num_users, counts = read_interactions(found.log, config, as_of, items, found.log_schema, writer, progress)
            modalities = read_features(found.catalog, config, found.catalog_schema, items, writer, progress)
        except InputError as error:
            kept = _keep_quarantine(writer.folder, store.root.parent / REFUSED / as_of.isoformat())
            if kept is None:
                raise
            raise InputError(f"{error}; the rows that cannot be used are in {kept}") from error
        finally:
            # If somebody writes to a file meanwhile, that is the reason of any other error.
            for files in (found.catalog, found.log):
                files.raise_if_changed()
        if config.time_column is None and found.newest_folder is not None:
            counts["newest_event"] = found.newest_folder.isoformat()
        meta = {"as_of": as_of.isoformat(), "id_type": str(items.source_type), "num_users": num_users}
        writer.meta(meta | {"num_items": len(items.ids)} | _counts(items, modalities, counts))
        writer.notes(_notes(found, counts["newest_event"], as_of))
        shutil.rmtree(store.root.parent / REFUSED / as_of.isoformat(), ignore_errors=True)

    return store.once(KIND, _key_inputs(config, as_of, found.catalog, found.log), build)


def find_source(config: SourceConfig, as_of: date, store: StageStore) -> Ref | None:
    """What ``read_source`` would return without reading anything, None if it would read. Raises InputError for missing files."""
    return store.find(KIND, stage_key(KIND, _key_inputs(config, as_of, *_files(config, as_of))))


def _files(config: SourceConfig, as_of: date) -> tuple[ParquetFiles, ParquetFiles]:
    """The catalog's and the log's files of a day."""
    return list_catalog(config).catalog(as_of), list_log(config).log(as_of, config.lookback_days)


def _key_inputs(config: SourceConfig, as_of: date, catalog: ParquetFiles, log: ParquetFiles) -> tuple[Any, ...]:
    # The name of the embedding model does not change what is read.
    settings = replace(config, embedding_models={})
    return catalog.fingerprint, log.fingerprint, settings, as_of.isoformat(), _code_digest()


def _notes(found: Inspection, newest: str | None, as_of: date) -> dict[str, Any]:
    """What the columns were taken for, and what the run should warn of."""
    warnings = list(found.notes)
    if newest is not None and newest < as_of.isoformat():
        warnings.append(f"the log has no event on {as_of}; the newest is of {newest}")
    return {"readings": [x.values for x in found.readings], "warnings": warnings, "newest_event": newest}


def _keep_quarantine(written: Path, folder: Path) -> Path | None:
    """Move the quarantine of a run that is refused to a folder that stays, and return it; None if no row is in quarantine."""
    shutil.rmtree(folder, ignore_errors=True)
    kept = []
    for path in sorted(written.glob("quarantine-*.parquet")):
        try:
            if pq.read_metadata(path).num_rows:
                kept.append(path)
        except (OSError, pa.ArrowException):
            continue
    for path in kept:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name.removeprefix("quarantine-"))
    return folder if kept else None


def _counts(items: Items, modalities: dict[str, Any], of_log: dict[str, Any]) -> dict[str, Any]:
    """``modalities`` with the sums of what was quarantined, and ``counts`` with each reason."""
    by_reason = {
        f"{what}_quarantined": {name: part[key] for name, part in modalities.items() if key in part}
        for what, key in (("features", "quarantined"), ("segments", "segments_quarantined"))
    }
    counts = {
        "catalog_rows_read": len(items.target) + items.quarantined["no_day"],
        "items": len(items.ids),
        "items_quarantined": items.quarantined,
        **of_log,
        **{what: reasons for what, reasons in by_reason.items() if reasons},
        "features_missing": {name: part["missing"] for name, part in modalities.items()},
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
    for path in sorted([*Path(__file__).parent.rglob("*.py"), Path(__file__).parents[1] / "object_store.py"]):
        state.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()

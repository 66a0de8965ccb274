"""Refreshing the feature store: readers switch to another version of the table by one rename of the registry.

1. Write the rows under views of their own, beside the served ones.
2. Read a sample back.
3. Replace the registry by one that names the new views.

A kill before step 3 leaves the old version, a kill after it the new one. The previous version stays online until the next refresh, so at
most two versions are online. An item that the table no longer has is in no row of the new version.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from rectifier_core.base.numerics import Progress, silent
from tasks.errors import OnlineStoreError
from tasks.feature_store.config import FeatureStoreConfig, Older
from tasks.feature_store.offline_files import drop_files, link_files
from tasks.feature_store.online import OnlineStore
from tasks.feature_store.registry import (
    kept_online,
    read_served,
    remove_leftovers,
    serve,
    since,
    stage_registry,
    views_of,
    write_served,
)
from tasks.feature_store.rows import feast_rows, source_columns
from tasks.feature_store.served_version import Generation, Served, Step, next_step, rows_digest
from tasks.feature_store.views import ServedSchema
from tasks.store.file_lock import held_file
from tasks.table.config import PublishConfig
from tasks.table.embedding_models import model_tags
from tasks.table.snapshot import Snapshot, open_snapshot

WRITTEN_AT_ONCE = 2000
SAMPLED = 100


def refresh_store(
    config: FeatureStoreConfig,
    publish: PublishConfig,
    *,
    version: int | None = None,
    older: Older = "refuse",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Serve the newest day of the newest or the given version. Return what was done, as JSON values.

    ``done`` is "rows" if rows were pushed, "links" if the version has the rows that are already served (after a backfill of another day),
    "unchanged", or "superseded" if ``older`` is "skip" and a newer version is served. On any error readers keep the served version. Raises
    InputError for a missing version and a refused older one, TableHeldError if another refresh takes longer than ``patience``,
    OnlineStoreError and StorageError if a store cannot be written.
    """
    began = time.monotonic()
    with held_file(config.root / ".lock", f"feature store {config.folder}", run="refresh", patience=config.patience):
        remove_leftovers(config)
        served = read_served(config)
        snapshot = open_snapshot(publish, version=version)
        step = next_step(config, served, snapshot, older)
        if step == "superseded":
            assert served is not None
            return _result(config, served, step, began)
        with OnlineStore(config) as online:
            if step != "rows" and served is not None and not _is_whole(online, config, served, snapshot):
                step = "rows"
            if step == "unchanged" and served is not None:
                write_served(config, served)
                return _result(config, served, step, began)
            files = link_files(config, publish.uri, snapshot.version, snapshot.files)
            tags = model_tags(snapshot.log, snapshot.files)
            if step == "links" and served is not None:
                now = served.linked(snapshot.version, files, tags)
                serve(config, now, stage_registry(config, now))
            else:
                now = _next(config, served, snapshot, files, tags)
                _push(online, config, served, now, snapshot, progress)
        last = None if served is None else served.generation
        drop_files(config, [x.files for x in (now.generation, now.previous, last) if x is not None])
    return _result(config, now, step, began)


def _next(
    config: FeatureStoreConfig,
    served: Served | None,
    snapshot: Snapshot,
    files: str,
    tags: Mapping[str, Mapping[str, str]],
) -> Served:
    schema = ServedSchema.of(snapshot.schema, [x.name for x in snapshot.modalities])
    generation = Generation(
        number=1 if served is None else served.generation.number + 1,
        version=snapshot.version,
        files=files,
        tags=tags,
        **asdict(schema),
    )
    # A Feast registry has one kind of id.
    same_ids = served is not None and served.generation.integer_ids == schema.integer_ids
    return Served(
        version=snapshot.version,
        as_of=snapshot.day,
        run_id=str(snapshot.commit.get("run_id") or ""),
        rows=snapshot.rows,
        rows_digest=rows_digest(snapshot),
        table=snapshot.table_id,
        online=config.online,
        generation=generation,
        previous=served.generation if served is not None and same_ids else None,
    )


def _push(
    online: OnlineStore,
    config: FeatureStoreConfig,
    served: Served | None,
    now: Served,
    snapshot: Snapshot,
    progress: Progress,
) -> None:
    """Write the rows of ``now`` beside the served ones, check a sample, and serve them."""
    if served is not None and served.previous is not None:
        _wait_for_readers(config)
    online.clear(kept_online(now.previous))
    staged = stage_registry(config, now)
    views = views_of(config, now.generation)
    columns = list(dict.fromkeys(x for name in views for x in source_columns(name)))
    for block in snapshot.blocks(columns, progress, "pushing rows"):
        for start in range(0, len(block), WRITTEN_AT_ONCE):
            rows = block.slice(start, WRITTEN_AT_ONCE)
            for name, view in views.items():
                online.write(view, feast_rows(name, rows, snapshot.version, snapshot.day))
    if not _is_whole(online, config, now, snapshot):
        raise OnlineStoreError(
            f"feature store {config.folder}: the online store does not give back what was written to it; readers keep the version that was"
            " served; see that it has room and drops nothing, then refresh again"
        )
    serve(config, now, staged)


def _wait_for_readers(config: FeatureStoreConfig) -> None:
    """Wait until no reader uses the version before the last refresh, which is cleared next."""
    time.sleep(min(max(since(config) + config.grace - time.time(), 0.0), config.grace))


def _is_whole(online: OnlineStore, config: FeatureStoreConfig, served: Served, snapshot: Snapshot) -> bool:
    """Whether a sample of the table's rows reads back equal from the online store."""
    views = views_of(config, served.generation)
    sample = _sample(snapshot, [x for name in views for x in source_columns(name)])
    return all(
        online.holds(view, feast_rows(name, sample, served.generation.version, served.as_of))
        for name, view in views.items()
    )


def _sample(snapshot: Snapshot, columns: list[str]) -> pa.Table:
    step = max(1, snapshot.rows // SAMPLED)
    first, taken = 0, []
    for block in snapshot.blocks(list(dict.fromkeys(columns))):
        taken.append(block.take(list(range(-first % step, len(block), step))))
        first += len(block)
    return pa.concat_tables(taken)


def _result(config: FeatureStoreConfig, served: Served, step: Step, began: float) -> dict[str, Any]:
    generation = served.generation
    return {
        "done": step,
        "pushed": step == "rows",
        **{name: getattr(served, name) for name in ("version", "as_of", "run_id", "rows", "online")},
        "rows_version": generation.version,
        "modalities": list(generation.modalities),
        "folder": config.folder,
        "seconds": round(time.monotonic() - began, 3),
    }

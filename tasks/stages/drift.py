"""How far the rows about to be published lie from the last published ones.

It is a mean, so a sample tells it: whole row groups, evenly spaced over the table's day. Decoding all of a day's vectors from Parquet costs
more than writing them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow.dataset import FileSystemDataset

from rectifier_core.base.published_records import Status
from rectifier_core.base.row_lookup import RowLookup
from rectifier_core.incremental.row_mapping import gathered
from tasks.store.store import Ref
from tasks.table.config import PublishConfig
from tasks.table.embedding_models import is_another, named_models
from tasks.table.files import TableFiles, storage_errors
from tasks.table.log import LOOK, commit_of, open_table, read_log, visible_files

BATCH_ROWS = 4096
SAMPLE_ROWS = 1 << 15
"""Rows of the last published day that are compared: of whole row groups, so a group more or less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastDay:
    """The newest earlier ``day`` that the ``table`` at ``uri`` shows, and the embedding models that the commit of its rows names."""

    uri: str
    table: DeltaTable
    day: str
    models: Mapping[str, str]


def last_published(config: PublishConfig, as_of: date) -> LastDay | None:
    """The day that one about to be published is compared with, None where there is no earlier one. Raises StorageError, and InputError for
    a foreign table."""
    table = open_table(config.uri)
    if table is None:
        return None
    with storage_errors(config.uri, "reading the last published day", LOOK):
        earlier = [x for x in visible_files(table) if x.day < as_of.isoformat()]
        if not earlier:
            return None
        day = max(x.day for x in earlier)
        commit = commit_of(read_log(TableFiles(config.uri)), [x.path for x in earlier if x.day == day])
    return LastDay(uri=config.uri, table=table, day=day, models=named_models(commit))


def drift_since_last(
    last: LastDay | None, source: Ref, rectified: Ref, models: Mapping[str, str], *, sample_rows: int = SAMPLE_ROWS
) -> dict[str, float | None]:
    """Mean cosine per modality between these rows, made by ``models``, and those of the last published day, over the items both have, or
    those of a sample of about ``sample_rows`` of that day's rows.

    None where there is no earlier day, no item in common, or another embedding model made it, by its name or width: that is no drift.
    """
    modalities = rectified.meta["features"]
    if last is None:
        return dict.fromkeys(modalities)
    with storage_errors(last.uri, "reading the last published day", LOOK):
        dataset = last.table.to_pyarrow_dataset(file_pruning_predicate=[("as_of", "=", last.day)])
        usable = [
            m for m in modalities if m in dataset.schema.names and not is_another(last.models.get(m), models.get(m))
        ]
        items = RowLookup(np.asarray(source.array("item_ids")))
        sums = {m: [0.0, 0] for m in usable}
        for batch in _sampled(dataset, ["item_id", *usable], sample_rows):
            rows = items.rows_of(np.asarray(batch.column("item_id").to_pylist()))
            for m in usable:
                total, count = _cosines(batch.column(m), rows, rectified, m)
                sums[m][0] += total
                sums[m][1] += count
    return {m: (sums[m][0] / sums[m][1] if m in sums and sums[m][1] else None) for m in modalities}


def _sampled(dataset: FileSystemDataset, columns: list[str], sample_rows: int) -> Iterator[pa.RecordBatch]:
    """The columns of every so many-th row group, about ``sample_rows`` rows, or of all where there are no more."""
    step, before = max(1, dataset.count_rows() // sample_rows), 0
    for fragment in dataset.get_fragments():
        groups = [x.id for x in fragment.row_groups]
        chosen = [x for at, x in enumerate(groups, before) if at % step == 0]
        before += len(groups)
        if chosen:
            part = fragment.subset(row_group_ids=chosen, schema=dataset.schema)
            yield from part.to_batches(dataset.schema, columns, batch_size=BATCH_ROWS, batch_readahead=2)


def _cosines(column: pa.Array, rows: np.ndarray, rectified: Ref, modality: str) -> tuple[float, int]:
    features, status = rectified.array(f"features-{modality}"), rectified.array(f"status-{modality}")
    given = np.asarray(column.is_valid())
    there = np.flatnonzero((rows >= 0) & given)
    there = there[status[rows[there]] != Status.MISSING.code]
    if not len(there) or set(pc.unique(pc.list_value_length(column)).drop_null().to_pylist()) != {features.shape[1]}:
        return 0.0, 0
    # Arrow takes lists number by number; those that are not null lie side by side.
    before = (
        column.flatten().to_numpy(zero_copy_only=False).reshape(-1, features.shape[1])[(np.cumsum(given) - 1)[there]]
    )
    after = gathered(features, rows[there])
    lengths = [np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64)) for x in (before, after)]
    cosine = np.einsum("ij,ij->i", before, after, dtype=np.float64) / np.maximum(
        lengths[0] * lengths[1], np.finfo(np.float64).tiny
    )
    return float(cosine.sum()), len(there)

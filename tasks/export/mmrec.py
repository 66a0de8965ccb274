"""Export as a dataset folder of the MMRec framework (github.com/enoche/MMRec), named after the folder.

``<name>.inter`` (userID, itemID, rating, timestamp, x_label; tab-separated); for each modality m ``<m>_feat.npy`` [I, D] float32 and
``<m>_mask.npy`` [I] bool, which items have a feature; ``u_id_mapping.csv`` and ``i_id_mapping.csv`` as MMRec's preprocessing writes them;
``<name>.yaml`` for its ``configs/dataset``.

MMRec counts items and users by the largest number in the interactions, and wants a row of features for exactly these: so users and items
without any interaction have no number. An item without a feature gets the mean of the others, as in MMRec's own preprocessing: a row of
zeros has no direction, its cosines are NaN there, and NaN is everyone's nearest neighbour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rectifier_core.base.numerics import Progress, row_blocks
from tasks.errors import InputError
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.split import SplitRule, label_pairs
from tasks.export.mmrec_words import dataset_config, readme
from tasks.export.npy import vectors
from tasks.export.write import Export
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles
from tasks.source.raw_log import catalog_ids, log_files, user_ids
from tasks.store.store import Ref, StageWriter
from tasks.table.snapshot import Snapshot, SnapshotModality

Array = np.ndarray[Any, Any]
# What MMRec's models and scripts keep in the folder of a dataset, computed from it.
DERIVED = ("*.pt", "user_graph_dict*.npy", "item_graph_dict*.npy")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ROWS = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class MMRecLog:
    """Which interactions go with the features, and how they are divided.

    ``source`` is what was read of the log as of the features' day, ``files`` the log as it was listed before that; ``rule`` and
    ``seed`` are those of ``label_pairs``.
    """

    source: Ref
    files: ParquetFiles
    reading: SourceConfig
    as_of: date
    evaluation: EvaluationConfig
    rule: SplitRule
    seed: int

    @property
    def about(self) -> dict[str, Any]:
        """What the exported interactions depend on, JSON."""
        config = self.evaluation
        how: dict[str, Any] = {"validation": config.validation, "test": config.test}
        if self.rule != "time":
            how = {"column": config.split_column} if self.rule == "column" else how | {"seed": self.seed}
        return {"log": self.reading.interactions, "digest": self.source.digest, "split": {"rule": self.rule} | how}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """Interactions with MMRec's numbers: ``users``, ``items`` [E], ``labels`` [E] int8 (0 training, 1 validation, 2 test), ``times`` [E] or
    None; ``user_ids`` [U] and ``item_ids`` [I] are what the numbers stand for."""

    users: Array
    items: Array
    labels: Array
    times: Array | None
    user_ids: pa.Array
    item_ids: pa.Array


def mmrec_export(name: str, log: MMRecLog) -> Export:
    """``--format mmrec`` of a dataset of this name. Raises InputError for a name that cannot be one."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--out: MMRec names the dataset after the folder, so {name!r} will not do; use letters, digits, . _ and -"
        )
    return Export(
        format="mmrec", write=partial(_write, name=name, log=log), about={"interactions": log.about}, derived=DERIVED
    )


def _numbered(log: MMRecLog, progress: Progress) -> _Pairs:
    """The pairs that are in a part; users and items among them numbered in the source's order."""
    labels = label_pairs(log.source, log.reading, log.as_of, log.evaluation, log.rule, log.seed)
    ids = user_ids(log.source, log.reading, log.as_of, progress)
    if log_files(log.reading, log.as_of).fingerprint != log.files.fingerprint:
        raise InputError(
            f"{log.reading.interactions}: changed while it was being read; run again when nothing writes to it"
        )
    kept = np.flatnonzero(labels >= 0)
    users, user_numbers = np.unique(log.source.array("users")[kept], return_inverse=True)
    items, item_numbers = np.unique(log.source.array("items")[kept], return_inverse=True)
    return _Pairs(
        users=user_numbers,
        items=item_numbers,
        labels=labels[kept],
        times=log.source.array("times")[kept] if log.source.file("times.npy").exists() else None,
        user_ids=ids.take(pa.array(users)),
        item_ids=catalog_ids(log.source).take(pa.array(items)),
    )


def _write(snapshot: Snapshot, writer: StageWriter, progress: Progress, *, name: str, log: MMRecLog) -> dict[str, Any]:
    given = _numbered(log, progress)
    if pa.types.is_integer(given.item_ids.type) != pa.types.is_integer(snapshot.schema.field("item_id").type):
        raise InputError(
            f"source.item_column: its ids are {given.item_ids.type}, those of the table are not; give the table's own catalog"
        )
    _write_interactions(writer, name, given, progress)
    _write_map(writer, "u_id_mapping.csv", "user_id", given.user_ids, "userID")
    _write_map(writer, "i_id_mapping.csv", "asin", given.item_ids, "itemID")
    missing = _write_features(snapshot, writer, given.item_ids, progress)
    counts = np.bincount(given.labels, minlength=3).tolist()
    contents = {
        "users": len(given.user_ids),
        "items": len(given.item_ids),
        "interactions": dict(zip(("training", "validation", "test"), counts, strict=True)),
        "without_feature": missing,
    }
    (writer.folder / f"{name}.yaml").write_text(dataset_config(name, _feature_files(snapshot)))
    (writer.folder / "README.md").write_text(readme(name, snapshot, contents, timed=given.times is not None))
    return contents


def _write_interactions(writer: StageWriter, name: str, data: _Pairs, progress: Progress) -> None:
    with (writer.folder / f"{name}.inter").open("wb") as sink:
        for rows in row_blocks(len(data.users), _ROWS):
            columns = {
                "userID": data.users[rows],
                "itemID": data.items[rows],
                "rating": np.ones(rows.stop - rows.start),
            }
            if data.times is not None:
                columns["timestamp"] = data.times[rows]
            frame = pl.DataFrame(columns | {"x_label": data.labels[rows]})
            frame.write_csv(sink, separator="\t", include_header=rows.start == 0)
            progress("exporting interactions", rows.stop, len(data.users))


def _write_map(writer: StageWriter, file: str, header: str, ids: pa.Array, number: str) -> None:
    with (writer.folder / file).open("wb") as sink:
        for rows in row_blocks(len(ids), _ROWS):
            part = pl.from_arrow(ids[rows.start : rows.stop])
            frame = pl.DataFrame({header: part, number: np.arange(rows.start, rows.stop)})
            frame.write_csv(sink, separator="\t", include_header=rows.start == 0)


def _write_features(snapshot: Snapshot, writer: StageWriter, item_ids: pa.Array, progress: Progress) -> dict[str, int]:
    """Write each modality's features by item number; how many items have none, by modality."""
    made = [_Features(x, writer, len(item_ids)) for x in snapshot.modalities]
    for block in snapshot.blocks(["item_id", *(x.name for x in snapshot.modalities)], progress):
        number = pc.index_in(block["item_id"].combine_chunks().cast(item_ids.type), value_set=item_ids)
        known = number.is_valid()
        numbers, part = np.asarray(number.filter(known)).astype(np.int64), block.filter(known)
        for features in made:
            features.add(numbers, part[features.name].combine_chunks(), snapshot.uri)
    found = {x.name: x.close() for x in made}
    if found and all(x == len(item_ids) for x in found.values()):
        raise InputError(
            f"source.catalog: none of its items with interactions has a row in {snapshot.uri}; give the table's own catalog"
        )
    return found


class _Features:
    """One modality's file while it is being filled."""

    def __init__(self, modality: SnapshotModality, writer: StageWriter, items: int) -> None:
        self.name, self._width = modality.name, modality.width
        self._writer = writer
        self._values = writer.memmap(f"{modality.name}_feat", (items, modality.width), np.float32)
        self._present = np.zeros(items, np.bool_)
        self._sum = np.zeros(modality.width)

    def add(self, numbers: Array, column: pa.Array, uri: str) -> None:
        """Put the features of these items in their places."""
        given, values = vectors(column, self._width, f"{self.name} of {uri}")
        at = numbers[given]
        self._values[at] = values
        self._present[at] = True
        self._sum += values.sum(axis=0, dtype=np.float64)

    def close(self) -> int:
        """Give the others the mean, and write which these are; their number."""
        absent = np.flatnonzero(~self._present)
        if len(absent) and self._present.any():
            mean = (self._sum / self._present.sum()).astype(np.float32)
            for rows in row_blocks(len(absent), 1 << 12):
                self._values[absent[rows]] = mean
        self._values.flush()
        self._writer.array(f"{self.name}_mask", self._present)
        return len(absent)


def _feature_files(snapshot: Snapshot) -> dict[str, str]:
    """The files that MMRec reads as pictures and as texts: those of these names, else the first ones that are left."""
    left = [x.name for x in snapshot.modalities if x.name not in ("image", "text")]
    names = {x.name for x in snapshot.modalities}
    chosen = {role: role if role in names else (left.pop(0) if left else role) for role in ("image", "text")}
    return {role: f"{modality}_feat.npy" for role, modality in chosen.items()}

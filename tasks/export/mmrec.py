"""Export as a dataset folder of the MMRec framework (github.com/enoche/MMRec), named after the folder.

- ``<name>.inter``: userID, itemID, rating, timestamp, x_label, tab-separated.
- ``<m>_feat.npy`` [I, D] float32 and ``<m>_mask.npy`` [I] bool (which items have a feature), for each modality m.
- ``u_id_mapping.csv`` and ``i_id_mapping.csv``, as MMRec's preprocessing writes them; ``<name>.yaml`` for its ``configs/dataset``.

MMRec counts items and users by the largest number in the interactions, and wants a feature row for each of these numbers. So users and
items without interactions get no number. An item without a feature gets the mean of the others, as in MMRec's own preprocessing. A row of
zeros would have NaN cosines, and MMRec's top-k would choose it for every item.

With ``--append-behaviour`` each feature has the item's anchor behind it, scaled to the features' mean length. The evaluation's variant
``anchors_appended`` does the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rectifier_core.base.numerics import Progress
from tasks.errors import InputError
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.split import SplitRule, label_pairs
from tasks.export.npy import vectors
from tasks.export.write import Export
from tasks.source.config import BEHAVIOUR, SourceConfig
from tasks.source.files import ParquetFiles
from tasks.source.raw_log import catalog_ids, log_files, user_ids
from tasks.store.store import Ref, StageWriter
from tasks.table.snapshot import Snapshot

# Files that MMRec's models and scripts compute and keep in a dataset's folder.
DERIVED = ("*.pt", "user_graph_dict*.npy", "item_graph_dict*.npy")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_CONFIG = """USER_ID_FIELD: userID
ITEM_ID_FIELD: itemID
TIME_FIELD: timestamp
filter_out_cod_start_users: True
inter_file_name: '{name}.inter'
vision_feature_file: '{image}_feat.npy'
text_feature_file: '{text}_feat.npy'
user_graph_dict_file: 'user_graph_dict.npy'
field_separator: "\\t"
"""
_README = """# {name}

Version {version} of `{uri}`, features as of {day}, as a dataset of the MMRec framework.

    ln -s "$PWD" MMREC/data/{name}
    cp {name}.yaml MMREC/src/configs/dataset/
    cd MMREC/src && python main.py -d {name} -m FREEDOM

`{name}.inter` has one row a distinct positive pair, so `rating` is always 1. `timestamp`, if there, is the latest event in seconds.
It holds {users:,} users and {items:,} items. Those without interactions are left out.
x_label: 0 training ({training:,} rows), 1 validation ({validation:,}), 2 test ({test:,}).
`u_id_mapping.csv` and `i_id_mapping.csv` map the numbers to ids. Read text ids as text.

| features, one row an itemID | columns | embedding model | mask | items without a feature |
|---|---|---|---|---|
{features}

An item without a feature has the mean of the others in its row and False in the mask.
{appended}
**The features have seen these interactions**, validation and test too: they were rectified by behaviour up to {day}. This is right for
training a recommender for use. It favours rectified over raw features in a comparison. To compare, use `catalog-rectifier evaluate`.

Models keep item graphs (`*.pt`) in this folder. The next export to this folder removes them.
"""

_APPENDED = """
The last {width} columns of each row are the item's anchor (its place by behaviour), scaled to the mean length of the features before them.
It is zero for an item that had no interactions when the features were published.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MMRecLog:
    """The interactions that go with the features, and how they are split.

    ``source`` is the log as read for the features' day, ``files`` its files as listed before. ``rule`` and ``seed``: see ``label_pairs``.
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
        split: dict[str, Any] = {"rule": self.rule}
        if self.rule == "column":
            split["column"] = config.split_column
        else:
            split |= {"validation": config.validation, "test": config.test, "seed": self.seed}
        return {"log": self.reading.interactions, "digest": self.source.digest, "split": split}


def mmrec_export(name: str, log: MMRecLog, *, append_behaviour: bool = False) -> Export:
    """Return the export of ``--format mmrec`` for a dataset of this name. Raises InputError for a name that MMRec cannot use.

    ``append_behaviour`` puts each item's anchor behind its features. Writing raises InputError where the table has no anchors.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--out: MMRec names the dataset after the folder; {name!r} is not possible; use letters, digits, . _ and -"
        )
    return Export(
        format="mmrec",
        write=partial(_write, name=name, log=log, append_behaviour=append_behaviour),
        about={"interactions": log.about, "append_behaviour": append_behaviour},
        derived=DERIVED,
    )


def _write(
    snapshot: Snapshot, writer: StageWriter, progress: Progress, *, name: str, log: MMRecLog, append_behaviour: bool
) -> dict[str, Any]:
    appended = _behaviour_width(snapshot) if append_behaviour else 0
    pairs, ids = _numbered(log, progress)
    users, items = ids
    if pa.types.is_integer(items.type) != pa.types.is_integer(snapshot.schema.field("item_id").type):
        raise InputError(
            f"source.item_column: its ids are {items.type}, those of the table are not; give the table's own catalog"
        )
    pairs.write_csv(writer.folder / f"{name}.inter", separator="\t")
    for file, header, number, values in (("u", "user_id", "userID", users), ("i", "asin", "itemID", items)):
        mapping = pl.DataFrame({header: pl.from_arrow(values), number: np.arange(len(values))})
        mapping.write_csv(writer.folder / f"{file}_id_mapping.csv", separator="\t")
    missing = _write_features(snapshot, writer, items, appended, progress)
    counts = np.bincount(pairs["x_label"].to_numpy(), minlength=3).tolist()
    parts = dict(zip(("training", "validation", "test"), counts, strict=True))
    (writer.folder / f"{name}.yaml").write_text(_CONFIG.format(name=name, **_modality_files(snapshot)), "utf-8")
    text = _README.format(
        name=name,
        version=snapshot.version,
        uri=snapshot.uri,
        day=snapshot.day,
        users=len(users),
        items=len(items),
        features=_feature_table(snapshot, missing, appended),
        appended=_APPENDED.format(width=appended) if appended else "",
        **parts,
    )
    (writer.folder / "README.md").write_text(text, "utf-8")
    return {"users": len(users), "items": len(items), "interactions": parts, "without_feature": missing}


def _behaviour_width(snapshot: Snapshot) -> int:
    if not snapshot.behaviour:
        raise InputError(
            f"--append-behaviour: version {snapshot.version} of {snapshot.uri} has no anchors in the column {BEHAVIOUR} of {snapshot.day};"
            f" set publish.behaviour = true, publish that day again, then export"
        )
    return snapshot.behaviour


def _numbered(log: MMRecLog, progress: Progress) -> tuple[pl.DataFrame, tuple[pa.Array, pa.Array]]:
    """Return the pairs in MMRec's columns, and the user and item ids by number, in the source's order."""
    labels = label_pairs(log.source, log.reading, log.as_of, log.evaluation, log.rule, log.seed)
    ids = user_ids(log.source, log.reading, log.as_of, progress)
    if log_files(log.reading, log.as_of).fingerprint != log.files.fingerprint:
        raise InputError(
            f"{log.reading.interactions}: changed while it was being read; run again when nothing writes to it"
        )
    kept = np.flatnonzero(labels >= 0)
    users, user_numbers = np.unique(log.source.array("users")[kept], return_inverse=True)
    items, item_numbers = np.unique(log.source.array("items")[kept], return_inverse=True)
    columns: dict[str, np.ndarray[Any, Any]] = {"userID": user_numbers, "itemID": item_numbers}
    columns["rating"] = np.ones(len(kept))
    if log.source.file("times.npy").exists():
        columns["timestamp"] = log.source.array("times")[kept]
    columns["x_label"] = labels[kept]
    return pl.DataFrame(columns), (ids.take(pa.array(users)), catalog_ids(log.source).take(pa.array(items)))


def _write_features(
    snapshot: Snapshot, writer: StageWriter, item_ids: pa.Array, appended: int, progress: Progress
) -> dict[str, int]:
    """Write each modality's features by item number; return how many items have none, by modality.

    ``appended`` is the width of the anchors behind the features, 0 for none.
    """
    names, missing = [x.name for x in snapshot.modalities], {}
    features = {
        x.name: writer.memmap(f"{x.name}_feat", (len(item_ids), x.width + appended), np.float32)
        for x in snapshot.modalities
    }
    masks = {name: np.zeros(len(item_ids), np.bool_) for name in names}
    lengths = dict.fromkeys(names, 0.0)
    for block in snapshot.blocks(["item_id", *names, *([BEHAVIOUR] if appended else [])], progress):
        positions = pc.index_in(block["item_id"].cast(item_ids.type), value_set=item_ids)
        known = positions.is_valid()
        numbers, part = positions.filter(known).to_numpy().astype(np.int64), block.filter(known)
        anchors = np.zeros((len(part), appended), np.float32)
        if appended:
            rows, values = vectors(part[BEHAVIOUR], appended, f"{BEHAVIOUR} of {snapshot.uri}")
            anchors[rows] = values
        for x in snapshot.modalities:
            rows, values = vectors(part[x.name], x.width, f"{x.name} of {snapshot.uri}")
            features[x.name][numbers[rows]] = np.concatenate([values, anchors[rows]], axis=1)
            masks[x.name][numbers[rows]] = True
            lengths[x.name] += float(np.linalg.norm(values, axis=1).sum(dtype=np.float64))
    for name, values in features.items():
        # The anchors are unit vectors.
        values[:, values.shape[1] - appended :] *= np.float32(lengths[name] / max(1, masks[name].sum()))
        absent = np.flatnonzero(~masks[name])
        if 0 < len(absent) < len(values):
            # The absent rows are zeros, so they do not change the sum.
            values[absent] = values.sum(axis=0, dtype=np.float64) / (len(values) - len(absent))
        values.flush()
        writer.array(f"{name}_mask", masks[name])
        missing[name] = len(absent)
    if missing and min(missing.values()) == len(item_ids):
        raise InputError(
            f"source.catalog: none of its items with interactions has a row in {snapshot.uri}; give the table's own catalog"
        )
    return missing


def _feature_table(snapshot: Snapshot, missing: Mapping[str, int], appended: int) -> str:
    return "\n".join(
        f"| `{x.name}_feat.npy` | {x.width + appended:,} | {x.embedding_model or 'not named'} | `{x.name}_mask.npy` | {missing[x.name]:,} |"
        for x in snapshot.modalities
    )


def _modality_files(snapshot: Snapshot) -> dict[str, str]:
    """Return the modalities that MMRec reads as images and as texts: those of these names, else the first others."""
    names = [x.name for x in snapshot.modalities]
    others = iter([x for x in names if x not in ("image", "text")])
    return {role: role if role in names else next(others, role) for role in ("image", "text")}

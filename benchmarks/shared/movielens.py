"""MovieLens with poster and plot embeddings as the benchmarks use it; research data that is never part of the project.

The folder (``--data``) holds ``items.parquet``, ``interactions.parquet`` and ``interactions_sparse_split.parquet`` with a ``split`` column.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.arrays import Int32
from rectifier_core.base.records import Anchors, Catalog, Interactions
from rectifier_core.evaluation.splits import Split

FILES = {"sparse": "interactions_sparse_split.parquet", "full": "interactions.parquet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A catalog with its training pairs; ``validation`` and ``held_out``, the test part, where the split has them."""

    catalog: Catalog
    training: Interactions
    validation: Interactions | None
    held_out: Interactions | None


def load(data: Path, split: str) -> Sample:
    """Items that occur in the split, in catalog order, and its pairs."""
    items, pairs = pq.read_table(data / "items.parquet"), pq.read_table(data / FILES[split])
    items = items.filter(
        pc.is_in(items["item_id"].cast("large_string"), pairs["item_id"].cast("large_string").combine_chunks())
    )
    ids = np.asarray(items["item_id"].to_pylist())
    features = {m: np.asarray(items[f"{m}_embedding"].to_pylist(), dtype=np.float32) for m in ("image", "text")}
    rows = {item: row for row, item in enumerate(ids)}
    item = np.asarray([rows[x] for x in pairs["item_id"].to_pylist()], dtype=np.int32)
    names, user = np.unique(np.asarray(pairs["user_id"].to_pylist()), return_inverse=True)
    part = np.asarray(pairs["split"].to_pylist()) if "split" in pairs.column_names else np.full(len(item), "train")

    def of(which: str) -> Interactions | None:
        at = part == which
        if not at.any():
            return None
        return Interactions(
            users=user[at].astype(np.int32), items=item[at], times=None, num_users=len(names), num_items=len(ids)
        )

    catalog = Catalog(item_ids=ids, features=features, present={m: np.ones(len(ids), np.bool_) for m in features})
    training = of("train")
    assert training is not None, "a split has training pairs"
    return Sample(catalog=catalog, training=training, validation=of("valid"), held_out=of("test"))


def genre_numbers(data: Path, sample: Sample) -> Int32:
    """Each item's genres as a number [I]: items with the very same genres have the same one."""
    items = pq.read_table(data / "items.parquet", columns=["item_id", "genres"])
    genres = dict(zip(items["item_id"].to_pylist(), items["genres"].to_pylist(), strict=True))
    return np.unique([str(genres[x]) for x in sample.catalog.item_ids.tolist()], return_inverse=True)[1].astype(
        np.int32
    )


def trained(training: Interactions, split: str, seed: int, cache: Path | None = None) -> Anchors:
    """The default anchors of a log, named ``split``; those of the full log take minutes, so ``cache`` keeps them from one table to the next."""
    file = None if cache is None else cache / f"anchors-{split}-{seed}.npz"
    if file is not None and file.exists():
        with np.load(file) as kept:
            return Anchors(
                **{x.name: kept[x.name] if kept[x.name].ndim else str(kept[x.name]) for x in fields(Anchors)}
            )
    anchors = train_anchors(training, AnchorsConfig(), seed=seed)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **{x.name: getattr(anchors, x.name) for x in fields(Anchors)})
    return anchors


def load_tested(data: Path) -> tuple[Sample, Interactions]:
    """The sparse split with its test pairs, for measures on pairs that no training saw."""
    sample = load(data, "sparse")
    assert sample.held_out is not None, "the sparse split has a test part"
    return sample, sample.held_out


def load_split(data: Path) -> Split:
    """The sparse split's three parts."""
    sample, test = load_tested(data)
    assert sample.validation is not None, "the sparse split has a validation part"
    return Split(training=sample.training, validation=sample.validation, test=test)


def options_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every table takes: where the data lies, and how many seeds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="a folder to keep trained anchors in")
    return parser

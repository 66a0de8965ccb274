"""What the tables on MovieLens share: its genres, its split, anchors that are kept, and options."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.shared.catalogs import CATALOGS, Sample, load_sample
from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.arrays import Int32
from rectifier_core.base.records import Anchors, Interactions
from rectifier_core.evaluation.splits import Split

NAMES = {"sparse": "movielens-1m-sparse", "full": "movielens-1m"}


def load(data: Path, log: str) -> Sample:
    """The sample of the sparse or the full log."""
    return load_sample(data, NAMES[log])


def genre_numbers(data: Path, sample: Sample) -> Int32:
    """Each item's genres as a number [I]: items with the very same genres have the same one."""
    items = pq.read_table(data / CATALOGS[NAMES["full"]].items, columns=["item_id", "genres"])
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

"""Divide a log into training, validation and test: by a column of the log, by time, or at random."""

from __future__ import annotations

from datetime import date
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rectifier_core.base.arrays import Int64
from rectifier_core.base.pairs import pair_keys
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.splits import PARTS as NAMES
from rectifier_core.evaluation.splits import Split, split_parts, split_time, split_users
from tasks.errors import InputError
from tasks.evaluation.arrays import timed_interactions
from tasks.evaluation.config import EvaluationConfig
from tasks.source.config import SourceConfig
from tasks.source.raw_log import catalog_ids, rank_ids, used_rows
from tasks.stages.anchors import load_interactions
from tasks.store.store import Ref

KEY = "evaluation.split_column"
PARTS = {"train": 0, "training": 0, "0": 0, "valid": 1, "validation": 1, "val": 1, "1": 1, "test": 2, "2": 2}
SplitRule = Literal["column", "time", "random"]


def split_by_column(source: Ref, config: SourceConfig, as_of: date, column: str) -> Split:
    """The pairs of ``source`` divided by ``column``. A repeated pair belongs to the part nearest to training.

    Raises InputError for a missing column, a value that is no part, and a part without pairs.
    """
    pairs = load_interactions(source)
    keys, parts = _labelled(source, config, as_of, column)
    order = np.lexsort((parts, keys))
    first = np.flatnonzero(np.concatenate([[True], keys[order][1:] != keys[order][:-1]]))
    rows = order[first]
    if not np.array_equal(keys[rows], pair_keys(pairs)):
        raise InputError(f"{config.interactions}: changed since it was read; run again when nothing writes to it")
    part = parts[rows]
    for name, code in (("train", 0), ("valid", 1), ("test", 2)):
        if not (part == code).any():
            raise InputError(f"{config.interactions}: {KEY} {column!r} leaves no pair for {name}")
    return split_parts(pairs, part)


def _labelled(source: Ref, config: SourceConfig, as_of: date, column: str) -> tuple[Int64, Int64]:
    """Every usable row as the key of its pair, user rank times items plus item, and its part's number."""
    ids = catalog_ids(source)
    users, items, parts = [], [], []
    for file, rows, item in used_rows(config, as_of, ids, (column, KEY)):
        users.append(rows.column("user").combine_chunks().dictionary_encode())
        items.append(item)
        parts.append(_numbers(rows.column("label"), column, file.uri))
    _, ranks = rank_ids(users)
    return ranks * len(ids) + np.concatenate(items), np.concatenate(parts)


def _numbers(labels: pa.ChunkedArray, column: str, file: str) -> Int64:
    """The part of each row as a number."""
    for label in labels.unique().to_pylist():
        if str(label).lower() not in PARTS:
            raise InputError(f"{file}: {KEY} {column!r} holds {label!r}; wanted train, valid or test")
    return np.array([PARTS[label.lower()] for label in labels.to_pylist()], np.int64)


def label_pairs(
    source: Ref, reading: SourceConfig, as_of: date, config: EvaluationConfig, rule: SplitRule, seed: int
) -> NDArray[np.int8]:
    """The part of every pair of ``source`` [E] int8: 0 training, 1 validation, 2 test, -1 none.

    ``column`` uses ``evaluation.split_column``, ``random`` the evaluation's split of that seed, ``time`` the times. Raises InputError where the
    log cannot be divided this way.
    """
    if rule == "column":
        if config.split_column is None:
            raise InputError(f"--split column: the config names no {KEY}")
        split = split_by_column(source, reading, as_of, config.split_column)
    else:
        split = _divided(source, config, rule, seed)
    pairs = load_interactions(source)
    keys, labels = pair_keys(pairs), np.full(len(pairs.users), -1, np.int8)
    for code, name in enumerate(NAMES):
        part: Interactions = getattr(split, name)
        if not len(part.users):
            raise InputError(f"--split {rule}: leaves no pair for {name}; the log is too small")
        labels[np.searchsorted(keys, pair_keys(part))] = code
    return labels


def _divided(source: Ref, config: EvaluationConfig, rule: SplitRule, seed: int) -> Split:
    shares, pairs = {"validation": config.validation, "test": config.test}, timed_interactions(source)
    if rule == "random":
        return split_users(pairs, seed=seed, **shares)
    if pairs.times is None:
        raise InputError("--split time: the config names no source.time_column to divide the log by")
    try:
        return split_time(pairs, **shares)
    except ValueError as error:
        raise InputError(f"--split time: {error}") from error

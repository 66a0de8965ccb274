"""A division by a column of the log: the pairs are those of the source, each in the part that its rows name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rectifier_core.evaluation.splits import Split
from tasks.errors import InputError
from tasks.evaluation.split import split_by_column
from tasks.source.config import SourceConfig
from tasks.store.store import Ref
from tests.support.source_samples import DAY, IDS, log_table, read, sample, source_config, write, write_by_day

NAMES = ("train", "valid", "test")


def labelled(**changed: Any) -> pa.Table:
    """The sample log, rows dealt to the parts in turn."""
    table = log_table(**changed)
    return table.append_column("part", pa.array([NAMES[row % 3] for row in range(len(table))]))


def parts_of(split: Split) -> dict[tuple[int, int], str]:
    """The part of every pair."""
    named = zip(NAMES, (split.training, split.validation, split.test), strict=True)
    return {(int(u), int(i)): name for name, pairs in named for u, i in zip(pairs.users, pairs.items, strict=True)}


def wanted(table: pa.Table, source: Ref, used: Any = lambda row: True) -> dict[tuple[int, int], str]:
    """The same, straight from the rows of a log that ``used`` keeps: the part nearest to training of each pair."""
    rows = [row for row in table.to_pylist() if used(row) and row["item_id"] in IDS and row["user_id"] is not None]
    users = sorted({row["user_id"] for row in rows})
    parts: dict[tuple[int, int], str] = {}
    for row in rows:
        pair = (users.index(row["user_id"]), list(source.array("item_ids")).index(row["item_id"]))
        parts[pair] = min(row["part"], parts.get(pair, row["part"]), key=NAMES.index)
    return parts


def divided(config: SourceConfig, folder: Path) -> tuple[Ref, dict[tuple[int, int], str]]:
    source = read(config, folder)
    split = split_by_column(source, config, DAY, "part")
    parts = parts_of(split)
    sizes = [len(pairs.users) for pairs in (split.training, split.validation, split.test)]
    assert len(parts) == sum(sizes) == len(source.array("users"))
    return source, parts


def test_every_pair_is_in_the_part_that_its_rows_name(tmp_path: Path) -> None:
    table = labelled()
    source, parts = divided(sample(tmp_path, log=table), tmp_path)
    assert parts == wanted(table, source)
    assert set(parts.values()) == set(NAMES)


def test_only_rows_that_were_used_count(tmp_path: Path) -> None:
    users = [None if row == 4 else f"u{row % 5}" for row in range(40)]
    items = ["gone" if row == 9 else IDS[(row * 7) % len(IDS)] for row in range(40)]
    table = labelled(user_id=users, item_id=items)
    config = sample(tmp_path, log=table, positive="rating >= 4", lookback_days=6, max_quarantined=0.5)
    source, parts = divided(config, tmp_path)
    assert parts == wanted(table, source, lambda row: row["rating"] >= 4 and row["event_time"].day > DAY.day - 6)


def test_a_log_in_partitions_and_numbers_for_parts(tmp_path: Path) -> None:
    table = labelled()
    numbers = pa.array([row % 3 for row in range(len(table))], pa.int8())
    write_by_day(table.set_column(table.column_names.index("part"), "part", numbers), tmp_path / "log")
    sample(tmp_path)
    source, parts = divided(source_config(tmp_path, interactions=str(tmp_path / "log")), tmp_path)
    assert parts == wanted(table, source)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (["train", "test"], "leaves no pair for valid"),
        (["train", "valid", "test", "held"], "holds 'held'; wanted train, valid or test"),
        (["train", "valid", "test", None], "holds None; wanted train, valid or test"),
    ],
)
def test_labels_that_are_no_division_are_refused(tmp_path: Path, labels: list[str | None], line: str) -> None:
    table = log_table().append_column("part", pa.array([labels[row % len(labels)] for row in range(40)]))
    config = sample(tmp_path, log=table)
    with pytest.raises(InputError, match=r"evaluation\.split_column 'part' " + line):
        split_by_column(read(config, tmp_path), config, DAY, "part")


def test_a_missing_column_or_a_changed_log_is_refused(tmp_path: Path) -> None:
    config = sample(tmp_path)
    source = read(config, tmp_path)
    with pytest.raises(InputError, match=r"no column 'part' \(evaluation\.split_column\)"):
        split_by_column(source, config, DAY, "part")
    write(labelled(item_id=[IDS[row % 2] for row in range(40)]), tmp_path / "log.parquet")
    with pytest.raises(InputError, match="changed since it was read"):
        split_by_column(source, config, DAY, "part")

"""A log whose item ids are another catalog's: nothing is published, and the line says to check the join."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable

from tests.support.flow.flow_support import CommandLine

FULL = pytest.mark.slow


def rename(log: Path, ids: list[str], kind: str) -> None:
    """Give the log's pairs to other items: to the next one, to the mirrored one, to a random one for half of the items or of the pairs."""
    rng = np.random.default_rng(0)
    dealt = dict(zip(ids, rng.permutation(ids).tolist(), strict=True))
    others = {
        "shifted": dict(zip(ids, [*ids[1:], ids[0]], strict=True)),
        "reversed": dict(zip(ids, reversed(ids), strict=True)),
        "half of the items": {x: dealt[x] if rng.random() < 0.5 else x for x in ids},
        "half of the pairs": dealt,
    }[kind]
    for path in log.rglob("*.parquet"):
        rows = pl.read_parquet(path, hive_partitioning=False)
        renamed = rows["item_id"].replace(others)
        if kind == "half of the pairs":
            renamed = pl.Series(np.where(rng.random(len(rows)) < 0.5, renamed.to_numpy(), rows["item_id"].to_numpy()))
        rows.with_columns(renamed.alias("item_id")).write_parquet(path)


@pytest.mark.parametrize(
    "kind",
    [
        "shifted",
        pytest.param("reversed", marks=FULL),
        "half of the items",
        pytest.param("half of the pairs", marks=FULL),
    ],
)
def test_a_log_of_other_items_publishes_nothing(cli: CommandLine, tmp_path: Path, kind: str) -> None:
    demo = tmp_path / "demo"
    size = ("--items", "1200", "--users", "2000", "--interactions", "30000")
    assert cli("demo", demo, *size).code == 0
    ids = pl.scan_parquet(demo / "catalog" / "**" / "*.parquet").select("item_id").unique(maintain_order=True)
    rename(demo / "interactions", ids.collect()["item_id"].to_list(), kind)
    refused = cli("rectify", "--config", demo / "run.toml")
    assert refused.code == 3
    assert "check the join of their item ids" in refused.error
    assert not DeltaTable.is_deltatable(str(demo / "warehouse" / "item_features"))

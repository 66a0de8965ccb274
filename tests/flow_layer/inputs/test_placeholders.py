"""The demo's stock picture through the real command line: found by a night, reported by an audit, and held against nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rectifier_core.base.records import Anchors, Copies, Plan
from tasks.store.saved_records import load_record
from tasks.store.store import Ref
from tests.support.flow.flow_support import SHORT, CommandLine, last_days, rows_of, table_uri

SIZE = ("--items", "1600", "--users", "1600", "--interactions", "32000")


@pytest.mark.slow
def test_a_stock_picture_is_found_and_is_neither_donor_nor_suspect(tmp_path: Path, cli: CommandLine) -> None:
    demo, (day,) = tmp_path / "demo", last_days(1)
    assert cli("demo", demo, *SIZE).code == 0
    with (demo / "run.toml").open("a") as stream:
        stream.write(SHORT)
    planted = set(pl.read_parquet(demo / "truth" / "placeholders.parquet")["item_id"])
    assert len(planted) == 8

    night = cli.published(demo, day)
    image = night["modalities"]["image"]
    assert (image["placeholders"], image["placeholder_groups"]) == (8, 1)
    assert night["modalities"]["text"]["placeholders"] == 0
    source, copies, plan, anchors = (
        Ref(**night["stages"][x]) for x in ("source", "copies/image", "sinkhorn/image", "anchors")
    )
    held = load_record(copies, Copies).placeholder
    assert set(np.asarray(source.array("item_ids"))[held]) == planted
    assert not np.isin(load_record(plan, Plan).indices, np.flatnonzero(held)).any()
    assert load_record(anchors, Anchors).trained[held].any()
    published = pl.from_arrow(rows_of(table_uri(demo), day))
    assert isinstance(published, pl.DataFrame)
    stock = published.filter(pl.col("item_id").is_in(planted))
    assert stock["image_status"].unique().to_list() == ["passed_through"]
    assert stock["image_trust"].is_null().all() and stock["text_trust"].is_not_null().any()
    given = pl.read_parquet(demo / "catalog" / "*.parquet").filter(pl.col("item_id").is_in(planted))
    assert {tuple(x) for x in stock["image"].to_list()} == {
        tuple(x) for x in given["image_embedding"].cast(pl.List(pl.Float32)).to_list()
    }

    done = cli("audit", "--config", demo / "run.toml", "--as-of", day, "--top", "500", "--json")
    assert done.code == 0, done.err
    found = done.result["modalities"]["image"]
    assert (found["placeholders"], found["placeholder_groups"]) == (8, 1)
    assert (found["mismatch_rate"], found["low"], found["high"]) == (
        image["mismatch_rate"],
        image["low"],
        image["high"],
    )
    out = Path(done.result["out"])
    assert set(pl.read_parquet(out / "placeholders.parquet")["item_id"]) == planted
    suspects = pl.read_parquet(out / "suspects.parquet").filter(pl.col("modality") == "image")
    assert len(suspects) == 500 and not planted & set(suspects["item_id"])
    wrong = pl.read_parquet(demo / "truth" / "mismatches.parquet").filter(pl.col("modality") == "image")["item_id"]
    share = suspects.head(100)["item_id"].is_in(wrong.to_list()).mean()
    assert isinstance(share, float) and share > 0.5, "the list names the swapped, which are one in five"

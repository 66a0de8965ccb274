"""The pages for consumers: their code runs as it stands there, against a published table, and gives what is in it."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from flows.config.run_config import RunConfig
from flows.export import ExportOptions, export_table
from tasks.errors import InputError
from tasks.feature_store.refresh import refresh_store
from tasks.source.read import read_source
from tasks.store.store import StageStore, StageWriter
from tasks.table.config import PublishConfig
from tests.support.flow.flow_support import ROOT, CommandLine, last_days, table_uri
from tests.support.table.publish_support import publish, write_modality

PAGES = ROOT / "docs" / "consumers"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
YESTERDAY, TODAY = last_days(2)


@pytest.fixture(scope="module")
def shop(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with two days of made-up features published for its items: the newest is version 0, the day before was added after it."""
    folder = Path(shutil.copytree(tiny_demo, tmp_path_factory.mktemp("consumers") / "demo"))
    config = RunConfig.from_toml(folder / "run.toml")
    for seed, day in enumerate((TODAY, YESTERDAY)):
        source = read_source(config.source, date.fromisoformat(day), config.run.store)

        def rectified(writer: StageWriter, source: Any = source, seed: int = seed) -> None:
            rng = np.random.default_rng(seed)
            for name in ("image", "text"):
                present = np.array(source.array(f"present-{name}"))
                trust = np.where(rng.random(len(present)) < 0.1, np.nan, rng.random(len(present)))
                write_modality(writer, name, rng.normal(size=(len(present), 6)), present, trust)
            writer.meta({"features": ["image", "text"]})

        made = StageStore(folder / "made").once("rectified", (seed, source), rectified)
        publish(
            PublishConfig(uri=table_uri(folder)), (source, made), day, seed, models={"image": f"encoder@{2 - seed}"}
        )
    return folder


@pytest.fixture
def run_page(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Run a page's code from top to bottom where a user would; its names."""
    monkeypatch.chdir(shutil.copytree(shop, tmp_path / "demo"))

    def run(page: str) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "page"}
        for kind, text in BLOCK.findall((PAGES / page).read_text()):
            if kind == "python":
                exec(compile(text, page, "exec"), names)
            for line in text.splitlines() if kind == "sh" else ():
                if line.startswith("catalog-rectifier "):
                    run_command(shlex.split(line)[1:])
        return names

    return run


def run_command(words: list[str]) -> None:
    """An export or a refresh as a page spells it, by what the command line calls."""
    command, options = words[0], dict(zip(words[1::2], words[2::2], strict=True))
    if command == "refresh":
        config = RunConfig.from_toml(
            Path(options.pop("--config")), [options.pop("--set")] if "--set" in options else []
        )
        version = int(options.pop("--version")) if "--version" in options else None
        assert not options
        refresh_store(config.feature_store, config.publish, version=version)
        return
    assert command == "export"
    assert set(options) <= {"--config", "--format", "--out", "--day"}
    day = date.fromisoformat(options["--day"]) if "--day" in options else None
    made = ExportOptions(format=options["--format"], out=Path(options["--out"]), day=day)
    export_table(RunConfig.from_toml(Path(options["--config"])), made, lambda what, done, total: None)


def of_day(day: str) -> pl.DataFrame:
    return pl.read_delta("warehouse/item_features").filter(pl.col("as_of") == date.fromisoformat(day)).sort("item_id")


def test_polars(run_page: Callable[[str], dict[str, Any]]) -> None:
    names, today = run_page("polars.md"), of_day(TODAY)
    assert names["day"].isoformat() == TODAY
    features = names["features"].sort("item_id")
    assert features.equals(today.select(features.columns))
    assert names["pinned"].sort("item_id").equals(today)
    assert names["one_day"].sort("item_id").equals(today)
    known = today.drop_nulls("image")
    assert 0 < len(known) < len(today)
    assert sorted(names["matrix"].tolist()) == sorted(known["image"].to_list())
    assert 0 < len(names["trusted"]) < len(known)


def test_pyarrow(run_page: Callable[[str], dict[str, Any]]) -> None:
    names, today = run_page("pyarrow.md"), of_day(TODAY)
    assert names["day"].as_py().isoformat() == TODAY
    found = pl.from_arrow(names["features"].sort_by("item_id"))
    assert isinstance(found, pl.DataFrame)
    assert found.equals(today.select(found.columns))
    # Version 0 does not have the day that was backfilled after it.
    assert sum(names["batches"]) == 0
    assert names["whole"].sort_by("item_id").to_pylist() == today.select("item_id", "image").to_dicts()


def test_duckdb(run_page: Callable[[str], dict[str, Any]]) -> None:
    names, today = run_page("duckdb.md"), of_day(TODAY)
    assert sorted(names["newest"]) == list(today.select("item_id", "image", "image_trust").iter_rows())
    wanted = today.group_by("as_of", "image_status").len().sort("as_of", "image_status")
    assert names["counts"] == list(wanted.iter_rows())
    day = names["one_day"].sort("item_id")
    assert day.equals(today.select("item_id", "text").drop_nulls())
    doubted = pl.read_delta("warehouse/item_features").filter(pl.col("image_trust") < 0.5).sort("image_trust")
    assert [x for (x,) in names["suspects"]] == doubted["item_id"].head(20).to_list()
    vectors = {k: np.array(v) for k, v in today.select("item_id", "text").drop_nulls().iter_rows()}
    one = vectors["item-0000010"]
    likeness = {k: float(v @ one / np.linalg.norm(v) / np.linalg.norm(one)) for k, v in vectors.items()}
    assert [x for x, _ in names["nearest"]] == sorted(likeness, key=lambda x: -likeness[x])[:5]
    assert names["nearest"][0] == ("item-0000010", pytest.approx(1.0, abs=1e-6))


def test_pytorch(run_page: Callable[[str], dict[str, Any]]) -> None:
    names, today = run_page("pytorch.md"), of_day(TODAY)
    given = {x["item_id"]: x for x in today.drop_nulls("image").iter_rows(named=True)}
    features = names["features"]
    assert set(features.rows) == set(given)
    assert len(features) == len(given) < len(today)
    assert names["vector"].tolist() == given["item-0000010"]["image"]
    assert names["vector"].dtype == torch.float32
    for item, (vector, trust) in ((x, features[x]) for x in list(given)[:50]):
        assert vector.tolist() == given[item]["image"]
        assert np.isnan(trust) if given[item]["image_trust"] is None else trust == given[item]["image_trust"]
    vectors = torch.cat([vector for vector, _ in names["batches"]])
    assert vectors.tolist() == [given[x]["image"] for x in features.rows]
    assert tuple(names["layer"].weight.shape) == (len(today), 6)
    with pytest.raises(KeyError):
        features["no such item"]


def test_mmrec(run_page: Callable[[str], dict[str, Any]]) -> None:
    names, today = run_page("mmrec.md"), of_day(TODAY)
    table = {x["item_id"]: x["image"] for x in today.iter_rows(named=True)}
    pairs, items = names["pairs"], names["items"]
    log = (
        pl.read_parquet("interactions/*/*.parquet")
        .filter(pl.col("rating") >= 4)
        .filter(pl.col("item_id").is_in(list(table)))
    )
    taken = log.drop_nulls("user_id").unique(["user_id", "item_id"]).group_by("item_id").len()
    assert names["popular"]["len"][0] == taken["len"].max()
    assert dict(names["popular"].select("asin", "len").iter_rows()) == dict(taken.iter_rows())
    assert pairs["itemID"].n_unique() == len(items) == len(names["image"]) == len(names["has_image"])
    for row, item in enumerate(items["asin"].to_list()):
        assert names["has_image"][row] == (table[item] is not None)
        assert table[item] is None or names["image"][row].tolist() == table[item]
    assert not names["has_image"].all()


def test_feast(run_page: Callable[[str], dict[str, Any]]) -> None:
    names, today = run_page("feast.md"), of_day(TODAY)
    row = next(x for x in today.iter_rows(named=True) if x["item_id"] == "item-0000010")
    for name in ("image", "image_trust", "image_status", "text"):
        assert names["rows"][name] == [row[name], None]
    assert names["rows"]["image_version"] == [1, None]
    assert names["rows"]["image_as_of"][0].date().isoformat() == TODAY
    assert names["views"] == {"image": {"embedding_model": "encoder@2", "embedding_model_since": TODAY}, "text": {}}
    found = names["features"].sort_values("event_timestamp")
    assert pd.isna(found["image_as_of"].iloc[0])
    assert pd.Timestamp(found["image_as_of"].iloc[1]).date().isoformat() == TODAY
    assert list(found["image"].iloc[1]) == row["image"]
    assert names["day"][0].date().isoformat() == TODAY


def test_the_command_exports_what_is_asked_for(shop: Path, tmp_path: Path, cli: CommandLine) -> None:
    config = ("--config", shop / "run.toml")
    done = cli("export", *config, "--format", "npy", "--out", tmp_path / "arrays", "--json")
    assert done.code == 0, done.err
    assert {"version": 1, "as_of": TODAY, "format": "npy", "reused": False}.items() <= done.result.items()
    day = cli("export", *config, "--format", "parquet", "--out", tmp_path / "day", "--day", YESTERDAY)
    assert day.code == 0, day.err
    assert day.out.startswith(f"exported version 1 as of {YESTERDAY} as parquet: 400 rows, 2 files, ")
    options = ("--out", tmp_path / "shop", "--version", "0", "--split", "time", "--json")
    named = cli("export", *config, "--format", "mmrec", *options)
    assert named.code == 0, named.err
    assert (named.result["version"], named.result["contents"]["items"] > 300) == (0, True)
    refused = cli("export", *config, "--format", "csv", "--out", tmp_path / "none")
    assert (refused.code, refused.error) == (2, "error: --format csv: wanted mmrec, npy or parquet")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "npy", "split": "time"}, "--split time: only mmrec holds interactions to divide"),
        ({"format": "mmrec", "split": "even"}, "--split even: wanted column, random or time"),
        ({"format": "npy", "append_behaviour": True}, "--append-behaviour: only for mmrec"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ExportOptions(out=Path("out"), **options)

"""Whole runs, day by day: what is published, what a repeat does, and what it all equals."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flows.config.run_config import RunConfig
from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Catalog
from rectifier_core.config import PipelineConfig
from rectifier_core.pipeline import rectify_catalog as rectify_in_memory
from tasks.source.read import read_source
from tasks.stages.anchors import load_interactions
from tasks.stages.trust import category_numbers
from tasks.store.store import Ref, StageStore
from tests.support.flow.flow_support import CommandLine, Published, days_of, rows_of, table_uri


def versions(cli: CommandLine, demo: Path) -> list[int]:
    """The versions in the table's log, newest first."""
    finished = cli("versions", "--config", demo / "run.toml", "--json")
    assert finished.code == 0, finished.err
    return [x["version"] for x in finished.result["versions"]]


def stage(result: dict[str, Any], name: str) -> Ref:
    """One stage output of a finished run."""
    return Ref(**result["stages"][name])


def test_three_days_are_three_partitions_of_the_contracts_table(three_days: Published) -> None:
    uri = table_uri(three_days.demo)
    assert days_of(uri) == three_days.days
    assert [x["version"] for x in three_days.results] == [0, 1, 2]
    assert all(x["published"] for x in three_days.results)
    frame = pl.scan_delta(uri).collect()
    columns = {"as_of": pl.Date(), "item_id": pl.String()}
    for m in ("image", "text"):
        columns |= {
            m: pl.List(pl.Float32),
            f"{m}_trust": pl.Float32(),
            f"{m}_status": pl.String(),
            f"{m}_moved": pl.Float32(),
        }
    columns["run_id"] = pl.String()
    assert list(frame.schema.items()) == list(columns.items())
    assert frame.group_by("as_of").agg(pl.col("run_id").unique()).sort("as_of")["run_id"].to_list() == [
        [x["run_id"]] for x in three_days.results
    ]
    assert frame.select("as_of", "item_id").is_duplicated().sum() == 0
    for result, day in zip(three_days.results, three_days.days, strict=True):
        of_day = frame.filter(pl.col("as_of") == date.fromisoformat(day))
        assert result["rows"] == len(of_day) == 400
        for m, found in result["modalities"].items():
            counts = {x.value: found[x.value] for x in Status}
            assert counts == {x.value: int((of_day[f"{m}_status"] == x.value).sum()) for x in Status}
            assert (of_day[m].is_null() == (of_day[f"{m}_status"] == "missing")).all()
            assert of_day[f"{m}_trust"].drop_nulls().is_between(0, 1).all()
    assert len({x["run_id"] for x in three_days.results}) == 3


def test_every_stage_states_what_it_held(three_days: Published) -> None:
    for result in three_days.results:
        assert all(0 < held < result["memory_limit_bytes"] for held in result["stage_memory_bytes"].values())
        assert all(seconds >= 0 for seconds in result["cpu_seconds"].values())


def test_a_run_that_cannot_fit_is_refused_before_anything_is_made(published: Published, cli: CommandLine) -> None:
    keys = ("seed=5", 'resources.memory="512MiB"', "anchors.embedding_size=60000")
    finished = cli.rectify(published.demo, published.days[0], *(x for key in keys for x in ("--set", key)))
    assert finished.code == 2, finished.err
    assert "resources.memory: 0.5 GiB will not do for anchors of 400 items" in finished.err
    assert "Traceback" not in finished.err


def test_a_repeat_of_a_day_publishes_nothing_and_reuses_everything(published: Published, cli: CommandLine) -> None:
    before = versions(cli, published.demo)
    log = published.demo / "warehouse" / "item_features" / "_delta_log"
    names = sorted(x.name for x in log.iterdir())
    for day, first in zip(published.days, published.results, strict=True):
        again = cli.published(published.demo, day)
        assert not again["published"]
        # The newest version: the one that shows this day, whichever commit brought it.
        assert (again["run_id"], again["version"], again["rows"]) == (first["run_id"], 2, first["rows"])
        assert again["modalities"] == first["modalities"]
        # Where things lie now: the folder was copied since.
        assert again["report"] == str(published.demo / "runs" / first["run_id"] / "report.html")
        assert again["table"] == table_uri(published.demo)
    assert versions(cli, published.demo) == before == [2, 1, 0]
    assert sorted(x.name for x in log.iterdir()) == names


@pytest.mark.slow
def test_a_repeat_whose_run_folder_is_gone_commits_nothing_and_reports_again(
    published: Published, cli: CommandLine
) -> None:
    result = published.results[2]
    folder = published.demo / "runs" / result["run_id"]
    for path in (folder / "summary.json", folder / "report.html"):
        path.unlink()
    again = cli.published(published.demo, published.days[2])
    assert not again["published"]
    assert again["modalities"] == result["modalities"]
    assert json.loads((folder / "report.json").read_text())["run"]["outcome"] == "unchanged"
    assert (folder / "report.html").exists()
    assert versions(cli, published.demo) == [2, 1, 0]


def test_another_config_replaces_that_day_and_no_other(published: Published, cli: CommandLine) -> None:
    uri, days = table_uri(published.demo), published.days
    before = {day: rows_of(uri, day) for day in days}
    anchors = stage(published.results[1], "anchors").digest
    changed = cli.published(published.demo, days[1], "--set", "rectify.keep_original=0.7")
    assert (changed["published"], changed["version"]) == (True, 3)
    assert changed["run_id"] != published.results[1]["run_id"]
    assert stage(changed, "anchors").digest == anchors
    after = {day: rows_of(uri, day) for day in days}
    assert [after[day].equals(before[day]) for day in days] == [True, False, True]
    assert set(after[days[1]]["run_id"].to_pylist()) == {changed["run_id"]}
    assert after[days[1]]["item_id"].equals(before[days[1]]["item_id"])
    assert after[days[1]]["image_trust"].equals(before[days[1]]["image_trust"])
    # And back again: the first config's rows, as a new version.
    back = cli.published(published.demo, days[1])
    assert (back["published"], back["version"]) == (True, 4)
    assert rows_of(uri, days[1]).equals(before[days[1]])


def test_behaviour_turned_on_republishes_the_day_with_its_anchors(
    published: Published, cli: CommandLine, tmp_path: Path
) -> None:
    uri, days, config = table_uri(published.demo), published.days, published.demo / "run.toml"
    before = {day: rows_of(uri, day) for day in days}
    more = [x for key in ("publish.behaviour=true", "incremental.enabled=true") for x in ("--set", key)]
    changed = cli.published(published.demo, days[2], *more)
    assert changed["published"] and changed["run_id"] != published.results[2]["run_id"]
    assert stage(changed, "rectify").digest == stage(published.results[2], "rectify").digest
    assert not cli.published(published.demo, days[2], *more)["published"]
    tomorrow = cli.published(published.demo, published.tomorrow, *more)
    assert (changed["base"], tomorrow["base"]["base"]) == (None, changed["run_id"])
    for day, result in ((days[2], changed), (published.tomorrow, tomorrow)):
        anchors = stage(result, "anchors")
        places = zip(anchors.array("trained"), anchors.array("items").tolist(), strict=True)
        wanted = [place if trained else None for trained, place in places]
        rows = {x["item_id"]: x["behaviour"] for x in rows_of(uri, day).select(["item_id", "behaviour"]).to_pylist()}
        assert [rows[x] for x in stage(result, "source").array("item_ids").tolist()] == wanted
    for day in days[:2]:
        assert rows_of(uri, day).drop_columns(["behaviour"]).equals(before[day])
    exported = cli("export", "--config", config, "--format", "mmrec", "--append-behaviour", "--out", tmp_path / "shop")
    assert exported.code == 0, exported.err
    assert np.load(tmp_path / "shop" / "image_feat.npy").shape[1] == 16 + len(before[days[0]]["image"].drop_null()[0])
    refused = cli(
        "export",
        "--config",
        config,
        "--format",
        "mmrec",
        "--append-behaviour",
        "--out",
        tmp_path / "no",
        "--day",
        days[0],
    )
    assert (refused.code, refused.error.startswith("error: --append-behaviour: version ")) == (2, True)


def test_after_a_rollback_the_same_run_publishes_again(published: Published, cli: CommandLine) -> None:
    uri, day = table_uri(published.demo), published.days[2]
    before = rows_of(uri, day)
    rolled = cli("rollback", "--config", published.demo / "run.toml", "--to", "1", "--json")
    assert rolled.code == 0, rolled.err
    assert rolled.result["version"] == 3
    assert days_of(uri) == published.days[:2]
    again = cli.published(published.demo, day)
    assert (again["published"], again["version"], again["run_id"]) == (True, 4, published.results[2]["run_id"])
    assert rows_of(uri, day).equals(before)
    assert not cli.published(published.demo, day)["published"]


def test_nothing_that_ran_before_shows_in_a_days_rows(three_days: Published, one_day: Published) -> None:
    day = one_day.days[0]
    assert three_days.results[1]["run_id"] == one_day.results[0]["run_id"]
    assert rows_of(table_uri(three_days.demo), day).equals(rows_of(table_uri(one_day.demo), day))


def test_a_warm_start_uses_the_newest_earlier_run(published: Published, cli: CommandLine) -> None:
    # Published anew here: the copied runs are those of the table that they were copied with.
    earlier = cli.published(published.demo, published.days[2], "--set", "rectify.keep_original=0.5")
    finished = cli.rectify(published.demo, published.tomorrow, "--set", "anchors.warm_start=true", "--verbose")
    assert finished.code == 0, finished.err
    assert f"anchors start from {earlier['run_id']}" in finished.err
    config = RunConfig.from_toml(published.demo / "run.toml")
    source, before = stage(finished.result, "source"), stage(earlier, "source")
    anchors = stage(earlier, "anchors")
    # Items without interactions start like new ones.
    rows = np.where(anchors.array("trained")[:, None], anchors.array("ego"), np.nan).astype(np.float32)
    ego = dict(zip(before.array("item_ids").tolist(), rows, strict=True))
    previous = np.stack([ego[item] for item in source.array("item_ids").tolist()])
    warm, cold = (
        train_anchors(load_interactions(source), config.anchors, seed=config.seed, previous=x) for x in (previous, None)
    )
    found = stage(finished.result, "anchors").array("items")
    np.testing.assert_allclose(found, warm.items, atol=1e-5)
    assert np.abs(found - cold.items).max() > 0.01


@pytest.mark.slow
def test_a_warm_start_without_an_earlier_run_is_the_configured_one(published: Published, cli: CommandLine) -> None:
    finished = cli.rectify(published.demo, published.days[0], "--set", "anchors.warm_start=true", "--verbose")
    assert finished.code == 0, finished.err
    assert "anchors start from a spectral start: no earlier run is here" in finished.err
    cold, warm = (stage(x, "anchors") for x in (published.results[0], finished.result))
    assert warm.digest == cold.digest


def test_to_keep_the_original_is_to_publish_the_input_bit_for_bit(published: Published, cli: CommandLine) -> None:
    day = published.days[2]
    result = cli.published(published.demo, day, "--set", "rectify.mix='constant'", "--set", "rectify.keep_original=1.0")
    assert {x["rectified"] + x["imputed"] for x in result["modalities"].values()} == {0}
    catalog = pl.read_parquet(published.demo / "catalog" / "part-00000.parquet").filter(pl.col("item_id").is_not_null())
    given = {row["item_id"]: row for row in reversed(catalog.to_dicts())}
    rows = rows_of(table_uri(published.demo), day)
    compared = 0
    for m in ("image", "text"):
        for item, row in zip(rows["item_id"].to_pylist(), rows[m], strict=True):
            if row.is_valid:
                assert (
                    row.values.to_numpy().tobytes() == np.asarray(given[item][f"{m}_embedding"], np.float32).tobytes()
                )
                compared += 1
        assert rows[m].null_count == result["modalities"][m]["missing"]
    assert compared > 700


@pytest.mark.parametrize(
    "changed", [(), ("rectify.impute=true", "sinkhorn.balance='row'", "projection.solver='minibatch'", "seed=3")]
)
def test_the_flow_publishes_what_the_stages_give_in_memory(
    demo: Path, cli: CommandLine, changed: tuple[str, ...]
) -> None:
    day = "2026-06-25"
    sets = [part for text in changed for part in ("--set", text)]
    result = cli.published(demo, day, *sets)
    config = RunConfig.from_toml(demo / "run.toml", changed)
    source = read_source(config.source, date.fromisoformat(day), StageStore(demo / "stages"))
    modalities = list(config.source.modalities)
    catalog = Catalog(
        item_ids=source.array("item_ids"),
        features={m: source.array(f"features-{m}") for m in modalities},
        present={m: np.asarray(source.array(f"present-{m}")) for m in modalities},
    )
    stages = PipelineConfig(
        anchors=config.anchors,
        copies=config.copies,
        projection=config.projection,
        cross_modal=config.cross_modal,
        affinity=config.affinity,
        sinkhorn=config.sinkhorn,
        trust=config.trust,
        rectify=config.rectify,
    )
    category = category_numbers(source)
    assert category is not None
    outcome = rectify_in_memory(catalog, load_interactions(source), stages, seed=config.seed, category=category)
    assert outcome.judged.cross_modal
    wanted = outcome.rectified
    order = np.argsort(catalog.item_ids)
    rows = rows_of(table_uri(demo), day)
    assert rows["item_id"].to_pylist() == catalog.item_ids[order].tolist()
    words = np.array([x.value for x in Status])
    for m in modalities:
        status = words[wanted.status[m]][order]
        assert rows[f"{m}_status"].to_pylist() == status.tolist()
        given = status != "missing"
        found = np.array(rows[m].filter(given).to_pylist(), np.float32)
        np.testing.assert_allclose(found, wanted.features[m][order][given], atol=1e-6, rtol=1e-6)
        trust = rows[f"{m}_trust"].to_numpy()
        np.testing.assert_allclose(trust, wanted.trust[m][order], atol=1e-6)
        assert result["modalities"][m]["rectified"] == int((status == "rectified").sum())
        np.testing.assert_allclose(rows[f"{m}_moved"].to_numpy(), wanted.moved[m][order], atol=1e-6)
    assert (result["modalities"]["image"]["imputed"] > 0) == bool(changed)

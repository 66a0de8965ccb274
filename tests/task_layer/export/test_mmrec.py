"""Exports as an MMRec dataset: every pair, number and feature against the log and the table, by plain polars and by MMRec itself."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.splits import split_time, split_users
from rectifier_core.evaluation.variants import append_anchors
from tasks.errors import InputError
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.split import SplitRule
from tasks.export.mmrec import MMRecLog, mmrec_export
from tasks.export.write import save_export
from tasks.source.config import SourceConfig
from tasks.source.raw_log import log_files
from tasks.source.read import read_source
from tasks.store.store import Ref, StageStore, StageWriter
from tasks.table.publish import PublishConfig
from tasks.table.snapshot import open_snapshot
from tests.support import mmrec_process
from tests.support.core_samples import anchors_of
from tests.support.export_support import contents, manifest
from tests.support.source_samples import DAY, catalog_table, image_rows, instant, log_table, sample, write
from tests.support.table.publish_support import anchors_ref, publish, write_modality

ROOT = Path(__file__).parents[3]
MMREC = Path(os.environ.get("MMREC_HOME", ROOT.parent / "MMRec")) / "src"
# Ids with characters that mean something in a text file.
IDS = ["a\tb", 'say "hi"', "new\nline", "comma, tab\t", "007", "", "../up", "ünï 🎈", "'", "NA", "x" * 40, "-1"]


def publish_from(source: Ref, folder: Path, *, drop: int = 0, seed: int = 0, behaviour: bool = False) -> str:
    """Publish random features for the items of ``source`` without the first ``drop``; return the table's uri."""

    def ids(writer: StageWriter) -> None:
        writer.array("item_ids", np.array(source.array("item_ids")[drop:]))
        writer.meta({"id_type": source.meta["id_type"]})

    def rectified(writer: StageWriter) -> None:
        rng = np.random.default_rng(seed)
        for name in ("image", "text"):
            present = np.array(source.array(f"present-{name}")[drop:])
            write_modality(writer, name, rng.normal(size=(len(present), 5 if name == "image" else 3)), present)
        writer.meta({"features": ["image", "text"]})

    store, key = StageStore(folder / "made"), (source.digest, drop, seed)
    config = PublishConfig(uri=str(folder / "table"), rows_per_file=5)
    refs = (store.once("ids", key, ids), store.once("rectified", key, rectified))
    anchors = anchors_ref(folder / "made", items=len(refs[0].array("item_ids"))) if behaviour else None
    publish(config, refs, str(DAY), seed, models={"image": "encoder@1"}, anchors=anchors)
    return config.uri


def read(config: SourceConfig, folder: Path, day: date = DAY) -> Ref:
    return read_source(config, day, StageStore(folder / "stages"))


def export(
    uri: str,
    out: Path,
    source: Ref,
    config: SourceConfig,
    rule: SplitRule = "random",
    seed: int = 3,
    append: bool = False,
    **more: Any,
) -> dict[str, Any]:
    evaluation = EvaluationConfig(**{"validation": 0.2, "test": 0.2} | more)
    files = log_files(config, DAY)
    log = MMRecLog(source=source, files=files, reading=config, as_of=DAY, evaluation=evaluation, rule=rule, seed=seed)
    made = mmrec_export(out.name, log, append_behaviour=append)
    return save_export(out, open_snapshot(PublishConfig(uri=uri)), made)


def tab(path: Path) -> pl.DataFrame:
    """Return a tab-separated file as Python's own reader gets it; every column but the ids is a number."""
    with path.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream, delimiter="\t")
    table = pl.DataFrame(rows, schema=header, orient="row")
    return table.with_columns(pl.exclude("user_id", "asin").cast(float).cast(int))


def exported(out: Path) -> pl.DataFrame:
    """Return the interactions joined with the ids of their numbers. Assert that the numbers are 0, 1, 2 …"""
    users, items = tab(out / "u_id_mapping.csv"), tab(out / "i_id_mapping.csv")
    for mapping, number in ((users, "userID"), (items, "itemID")):
        assert mapping[number].to_list() == list(range(len(mapping)))
        assert mapping[mapping.columns[0]].is_unique().all()
    pairs = tab(out / f"{out.name}.inter")
    assert (pairs["userID"].max(), pairs["userID"].n_unique()) == (len(users) - 1, len(users))
    assert (pairs["itemID"].max(), pairs["itemID"].n_unique()) == (len(items) - 1, len(items))
    return pairs.join(users, on="userID").join(items, on="itemID")


def check_features(out: Path, uri: str) -> None:
    """Assert that every item has its feature of the table, or the mean of the others and False in the mask."""
    items = tab(out / "i_id_mapping.csv")["asin"].to_list()
    rows = pl.scan_delta(uri).collect()
    table = {str(row["item_id"]): row for row in rows.iter_rows(named=True)}
    for name in ("image", "text"):
        features, mask = (np.load(out / f"{name}_{x}.npy", allow_pickle=False) for x in ("feat", "mask"))
        wanted = [table.get(x, {}).get(name) for x in items]
        assert features.dtype == np.float32
        assert mask.tolist() == [x is not None for x in wanted]
        assert features[mask].tolist() == [x for x in wanted if x is not None]
        mean = features[mask].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(features[~mask], np.broadcast_to(mean, features[~mask].shape), rtol=1e-6)


def pairs_of(source: Ref) -> Interactions:
    arrays = {name: np.array(source.array(name)) for name in ("users", "items", "times")}
    return Interactions(**arrays, num_users=source.meta["num_users"], num_items=source.meta["num_items"])


@pytest.fixture
def odd(tmp_path: Path) -> SourceConfig:
    """The sample with difficult ids, a ``positive`` filter, and one item without interactions."""
    rename = dict(zip(catalog_table()["item_id"].to_pylist(), IDS, strict=True))
    taken = [x if x != 5 else 4 for x in (rename_at % 12 for rename_at in range(0, 280, 7))]
    log = log_table(item_id=[IDS[x] for x in taken], user_id=[IDS[(r * 5) % 7] for r in range(40)])
    return sample(tmp_path, catalog_table(item_id=list(rename.values())), log, positive="rating >= 4")


@pytest.mark.parametrize("rule", ["random", "time"])
def test_pairs_numbers_and_features(tmp_path: Path, odd: SourceConfig, rule: SplitRule) -> None:
    source = read(odd, tmp_path)
    uri = publish_from(source, tmp_path)
    done = export(uri, tmp_path / "shop", source, odd, rule)
    pairs = exported(tmp_path / "shop")
    assert pairs.columns[:5] == ["userID", "itemID", "rating", "timestamp", "x_label"]

    given, shares = pairs_of(source), {"validation": 0.2, "test": 0.2}
    split = split_users(given, seed=3, **shares) if rule == "random" else split_time(given, **shares)
    log = pl.read_parquet(odd.interactions).filter(pl.col("rating") >= 4)
    newest = log.group_by("user_id", "item_id").agg(pl.col("event_time").max().dt.epoch("s"))
    times = {(user, item): seconds for user, item, seconds in newest.iter_rows()}
    users, items = sorted(set(log["user_id"])), list(source.array("item_ids"))
    wanted = {
        (users[user], items[item], times[users[user], items[item]], code)
        for code, part in enumerate((split.training, split.validation, split.test))
        for user, item in zip(part.users, part.items, strict=True)
    }
    assert set(pairs.select("user_id", "asin", "timestamp", "x_label").iter_rows()) == wanted
    assert len(pairs) == len(wanted)
    assert set(pairs["x_label"]) == {0, 1, 2}
    assert IDS[5] not in pairs["asin"].to_list()

    check_features(tmp_path / "shop", uri)
    about = manifest(tmp_path / "shop")
    assert about["interactions"]["digest"] == source.digest
    assert about["interactions"]["split"]["rule"] == rule
    assert {m: x["embedding_model"] for m, x in about["modalities"].items()} == {"image": "encoder@1", "text": None}
    assert done["contents"]["items"] == pairs["asin"].n_unique()
    assert done["contents"]["without_feature"]["image"] == 1
    assert "The features have seen these interactions" in (tmp_path / "shop" / "README.md").read_text()


def test_splits_that_can_be_chosen(tmp_path: Path) -> None:
    table = log_table()
    names = ["train", "valid", "test"]
    table = table.append_column("part", pa.array([names[row % 3] for row in range(len(table))]))
    config = sample(tmp_path, log=table)
    source = read(config, tmp_path)
    uri = publish_from(source, tmp_path)
    export(uri, tmp_path / "by_column", source, config, "column", split_column="part")
    rows = pl.DataFrame(table).with_columns(pl.col("part").replace_strict(names, [0, 1, 2]))
    first_part = rows.group_by("user_id", "item_id").agg(pl.min("part"))
    pairs = exported(tmp_path / "by_column").select("user_id", "asin", "x_label")
    assert set(pairs.iter_rows()) == set(first_part.iter_rows())
    with pytest.raises(InputError, match=r"--split column: the config names no evaluation\.split_column"):
        export(uri, tmp_path / "none", source, config, "column")
    timeless = sample(tmp_path / "timeless", log=table.drop_columns(["event_time"]), time_column=None)
    with pytest.raises(InputError, match=r"--split time: the config names no source\.time_column"):
        export(uri, tmp_path / "none", read(timeless, tmp_path), timeless, "time")
    export(uri, tmp_path / "plain", read(timeless, tmp_path), timeless)
    assert exported(tmp_path / "plain").columns[:4] == ["userID", "itemID", "rating", "x_label"]
    assert not (tmp_path / "none").exists()


def test_anchors_appended_as_the_evaluation_appends_them(tmp_path: Path, odd: SourceConfig) -> None:
    source, out = read(odd, tmp_path), tmp_path / "shop"
    uri = publish_from(source, tmp_path, behaviour=True)
    export(uri, out, source, odd)
    plain = {name: np.load(out / f"{name}_feat.npy") for name in ("image", "text")}
    assert export(uri, out, source, odd, append=True)["reused"] is False
    rows = {row["item_id"]: row["behaviour"] for row in pl.scan_delta(uri).collect().iter_rows(named=True)}
    places = [rows[x] for x in tab(out / "i_id_mapping.csv")["asin"]]
    trained = np.array([x is not None for x in places])
    items = np.array([[0.0] * 5 if x is None else x for x in places], np.float32)
    assert 0 < trained.sum() < len(trained)
    anchors = anchors_of(items, trained)
    for name, features in plain.items():
        appended, mask = np.load(out / f"{name}_feat.npy"), np.load(out / f"{name}_mask.npy")
        wanted = append_anchors(features, mask, anchors)
        np.testing.assert_allclose(appended[mask], wanted[mask], rtol=1e-6)
        np.testing.assert_allclose(
            appended[~mask], np.broadcast_to(wanted[mask].mean(0), wanted[~mask].shape), rtol=1e-5
        )
    text = (out / "README.md").read_text()
    assert "The last 5 columns of each row are the item's anchor" in text and "| `image_feat.npy` | 10 |" in text
    assert export(uri, out, source, odd, append=True)["reused"] is True


def test_anchors_that_the_table_lacks_cannot_be_appended(tmp_path: Path, odd: SourceConfig) -> None:
    source = read(odd, tmp_path)
    with pytest.raises(InputError, match=r"--append-behaviour: version 0 of .* set publish\.behaviour = true"):
        export(publish_from(source, tmp_path), tmp_path / "shop", source, odd, append=True)
    assert not (tmp_path / "shop").exists()


def test_another_seed_is_another_export(tmp_path: Path, odd: SourceConfig) -> None:
    source = read(odd, tmp_path)
    uri = publish_from(source, tmp_path)
    out = tmp_path / "shop"
    assert export(uri, out, source, odd)["reused"] is False
    before = contents(out)
    # MMRec's models leave graphs of the features in the folder. A new export removes them.
    (out / "mm_adj_freedomdsp_10_1.pt").write_bytes(b"graph")
    assert export(uri, out, source, odd)["reused"] is True
    assert (out / "mm_adj_freedomdsp_10_1.pt").exists()
    assert export(uri, out, source, odd, seed=4)["reused"] is False
    assert contents(out)["shop.inter"] != before["shop.inter"]
    assert export(uri, out, source, odd)["reused"] is False
    assert contents(out) == before


def test_integer_ids(tmp_path: Path) -> None:
    numbers = {x: 900 + 7 * at for at, x in enumerate(catalog_table()["item_id"].to_pylist())}

    def shop(folder: str, shift: int) -> SourceConfig:
        items = [numbers[x] + shift for x in log_table()["item_id"].to_pylist()]
        users = [int(x[1:]) for x in log_table()["user_id"].to_pylist()]
        catalog = catalog_table(item_id=pa.array([x + shift for x in numbers.values()], pa.int32()))
        return sample(tmp_path / folder, catalog, log_table(item_id=pa.array(items, pa.int32()), user_id=users))

    config = shop("shop", 0)
    source = read(config, tmp_path)
    # The table does not have the first four items.
    uri = publish_from(source, tmp_path, drop=4)
    done = export(uri, tmp_path / "out", source, config)
    assert done["contents"]["without_feature"] == {"image": 4, "text": 4}
    log = pl.read_parquet(config.interactions)
    pairs = exported(tmp_path / "out").select(pl.col("user_id", "asin").cast(int))
    assert set(pairs.iter_rows()) == set(log.select("user_id", "item_id").iter_rows())
    check_features(tmp_path / "out", uri)
    for other, message in (
        (sample(tmp_path / "texts"), r"source\.item_column: its ids are large_string"),
        (shop("moved", 1), r"source\.catalog: none of its items with interactions has a row in "),
    ):
        with pytest.raises(InputError, match=message):
            export(uri, tmp_path / "none", read(other, tmp_path), other)
    assert not (tmp_path / "none").exists()


def test_a_log_that_changes_meanwhile(tmp_path: Path) -> None:
    config = sample(tmp_path)
    source = read(config, tmp_path)
    snapshot, files = open_snapshot(PublishConfig(uri=publish_from(source, tmp_path))), log_files(config, DAY)
    log = MMRecLog(
        source=source, files=files, reading=config, as_of=DAY, evaluation=EvaluationConfig(), rule="random", seed=0
    )
    # More users, then as many users in another file.
    for users, message in ((6, "changed since it was read"), (5, "changed while it was being read")):
        write(log_table(user_id=[f"u{x % users}" for x in range(40)]), Path(config.interactions))
        os.utime(config.interactions, ns=(1, 1))
        with pytest.raises(InputError, match=message):
            save_export(tmp_path / "shop", snapshot, mmrec_export("shop", log))
    assert not (tmp_path / "shop").exists()


def test_a_folder_whose_name_cannot_be_a_dataset(tmp_path: Path) -> None:
    config = sample(tmp_path)
    source = read(config, tmp_path)
    uri = publish_from(source, tmp_path)
    for name in ("a b", "-x", "ü", "x\ny"):
        with pytest.raises(InputError, match="--out: MMRec names the dataset after the folder"):
            export(uri, tmp_path / name, source, config)


@pytest.mark.skipif(not MMREC.is_dir(), reason="needs a checkout of github.com/enoche/MMRec, named by MMREC_HOME")
@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="MMRec needs pandas")
def test_mmrec_reads_the_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows, items = 900, [f"i{x:02d}" for x in range(40)]
    catalog = pa.table(
        {
            "item_id": items,
            "title": items,
            "genres": [["drama"]] * 40,
            "image": pa.array([None, *image_rows(39)], pa.list_(pa.float32())),
            "text": pa.array(rng.normal(size=(40, 4)).tolist(), pa.list_(pa.float32())),
        }
    )
    log = pa.table(
        {
            "user_id": [f"u{x}" for x in rng.integers(0, 60, rows)],
            "item_id": [items[x] for x in rng.integers(0, 38, rows)],
            "event_time": pa.array([instant(1 + x % 10) for x in range(rows)], pa.timestamp("us", tz="UTC")),
        }
    )
    config = sample(tmp_path, catalog, log)
    source = read(config, tmp_path)
    out = tmp_path / "shop"
    export(publish_from(source, tmp_path), out, source, config)
    command = [sys.executable, str(mmrec_process.__file__), str(MMREC), str(tmp_path), "shop"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout.splitlines()[-1])
    pairs = exported(out)
    assert (facts["users"], facts["items"]) == (pairs["userID"].n_unique(), pairs["itemID"].n_unique()) == (60, 38)
    for code in range(3):
        wanted = sorted(pairs.filter(pl.col("x_label") == code).select("userID", "itemID").iter_rows())
        assert [tuple(x) for x in facts["pairs"][code]] == wanted
    assert facts["features"] == [[38, 5], [38, 3]]
    features = [np.load(out / f"{name}_feat.npy", allow_pickle=False) for name in ("image", "text")]
    assert facts["sums"] == pytest.approx([float(x.sum(dtype=np.float64)) for x in features])
    assert np.isfinite(facts["loss"])

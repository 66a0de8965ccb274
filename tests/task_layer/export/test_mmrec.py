"""Exports as an MMRec dataset: every pair, number and feature held against the log and the table, by plain polars and by MMRec itself."""

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
import polars.selectors as cs
import pyarrow as pa
import pytest

from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.splits import split_time, split_users
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
from tests.support.export_support import contents, manifest
from tests.support.source_samples import DAY, catalog_table, image_rows, instant, log_table, sample, write
from tests.support.table.publish_support import publish

ROOT = Path(__file__).parents[3]
MMREC = Path(os.environ.get("MMREC_HOME", ROOT.parent / "MMRec")) / "src"
# Whatever a file format gives a meaning to.
IDS = ["a\tb", 'say "hi"', "new\nline", "comma, tab\t", "007", "", "../up", "ünï 🎈", "'", "NA", "x" * 40, "-1"]


def publish_from(source: Ref, folder: Path, day: str, *, drop: int = 0, seed: int = 0) -> str:
    """Publish made-up features for the items of ``source`` but the first ``drop``, missing where the source's are; the table's uri."""

    def ids(writer: StageWriter) -> None:
        writer.array("item_ids", np.array(source.array("item_ids")[drop:]))
        writer.meta({"id_type": source.meta["id_type"]})

    def rectified(writer: StageWriter) -> None:
        rng = np.random.default_rng(seed)
        for name in ("image", "text"):
            present = np.array(source.array(f"present-{name}")[drop:])
            values = rng.normal(size=(len(present), 5 if name == "image" else 3)).astype(np.float32)
            writer.array(f"features-{name}", np.where(present[:, None], values, 0).astype(np.float32))
            writer.array(
                f"status-{name}", np.where(present, Status.RECTIFIED.code, Status.MISSING.code).astype(np.int8)
            )
            writer.array(f"trust-{name}", np.full(len(present), 0.5, np.float32))
        writer.meta({"features": ["image", "text"]})

    store, key = StageStore(folder / "made"), (source.digest, drop, seed)
    config = PublishConfig(uri=str(folder / "table"), rows_per_file=5)
    publish(
        config,
        (store.once("ids", key, ids), store.once("rectified", key, rectified)),
        day,
        seed,
        models={"image": "encoder@1"},
    )
    return config.uri


def read(config: SourceConfig, folder: Path, day: date = DAY) -> Ref:
    return read_source(config, day, StageStore(folder / "stages"))


def export(
    uri: str, out: Path, source: Ref, config: SourceConfig, rule: SplitRule = "random", seed: int = 3, **more: Any
) -> dict[str, Any]:
    evaluation = EvaluationConfig(**{"validation": 0.2, "test": 0.2} | more)
    snapshot = open_snapshot(PublishConfig(uri=uri))
    day = date.fromisoformat(snapshot.day)
    log = MMRecLog(
        source=source,
        files=log_files(config, day),
        reading=config,
        as_of=day,
        evaluation=evaluation,
        rule=rule,
        seed=seed,
    )
    return save_export(out, snapshot, mmrec_export(out.name, log))


def tab(path: Path, **kinds: type) -> pl.DataFrame:
    """A tab-separated file by Python's own reader, all columns numbers but those of another kind."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return pl.DataFrame({name: [kinds.get(name, float)(row[name]) for row in rows] for name in rows[0]}).with_columns(
        cs.float().cast(int)
    )


def exported(out: Path, *, text: bool = True) -> pl.DataFrame:
    """The interactions with the ids that their numbers stand for."""
    kind: type = str if text else int
    users, items = tab(out / "u_id_mapping.csv", user_id=kind), tab(out / "i_id_mapping.csv", asin=kind)
    for mapping, number in ((users, "userID"), (items, "itemID")):
        assert mapping[number].to_list() == list(range(len(mapping)))
        assert mapping[mapping.columns[0]].is_unique().all()
    pairs = tab(out / f"{out.name}.inter")
    # MMRec takes the largest number for the count.
    assert (pairs["userID"].max(), pairs["userID"].n_unique()) == (len(users) - 1, len(users))
    assert (pairs["itemID"].max(), pairs["itemID"].n_unique()) == (len(items) - 1, len(items))
    return pairs.join(users, on="userID").join(items, on="itemID")


def check_features(out: Path, uri: str, day: str = str(DAY)) -> None:
    """Hold every item's row against the table's: its feature, or the mean of the others and False in the mask."""
    items = tab(out / "i_id_mapping.csv", asin=str)["asin"].to_list()
    rows = pl.scan_delta(uri).filter(pl.col("as_of") == date.fromisoformat(day)).collect()
    table = {str(row["item_id"]): row for row in rows.iter_rows(named=True)}
    for name in ("image", "text"):
        features, mask = (np.load(out / f"{name}_{x}.npy", allow_pickle=False) for x in ("feat", "mask"))
        wanted = [table.get(x, {}).get(name) for x in items]
        assert features.dtype == np.float32
        assert mask.tolist() == [x is not None for x in wanted]
        given = np.array([x for x in wanted if x is not None], np.float32)
        assert features[mask].tolist() == given.tolist()
        np.testing.assert_allclose(
            features[~mask], np.tile(given.mean(axis=0, dtype=np.float64), (int((~mask).sum()), 1)), rtol=1e-6
        )


def labels_of(source: Ref, split: Any) -> dict[tuple[int, int], int]:
    parts = enumerate((split.training, split.validation, split.test))
    return {(int(u), int(i)): code for code, part in parts for u, i in zip(part.users, part.items, strict=True)}


def pairs_of(source: Ref) -> Interactions:
    arrays = {name: np.array(source.array(name)) for name in ("users", "items", "times")}
    return Interactions(**arrays, num_users=source.meta["num_users"], num_items=source.meta["num_items"])


@pytest.fixture
def odd(tmp_path: Path) -> SourceConfig:
    """The sample, whose ids are what text files choke on, as a ``positive`` log with one item that nobody took."""
    rename = dict(zip(catalog_table()["item_id"].to_pylist(), IDS, strict=True))
    taken = [x if x != 5 else 4 for x in (rename_at % 12 for rename_at in range(0, 280, 7))]
    log = log_table(item_id=[IDS[x] for x in taken], user_id=[IDS[(r * 5) % 7] for r in range(40)])
    return sample(tmp_path, catalog_table(item_id=list(rename.values())), log, positive="rating >= 4")


@pytest.mark.parametrize("rule", ["random", "time"])
def test_pairs_numbers_and_features(tmp_path: Path, odd: SourceConfig, rule: SplitRule) -> None:
    source = read(odd, tmp_path)
    uri = publish_from(source, tmp_path, str(DAY))
    done = export(uri, tmp_path / "shop", source, odd, rule)
    found = exported(tmp_path / "shop")
    assert found.columns[:5] == ["userID", "itemID", "rating", "timestamp", "x_label"]

    log = pl.read_parquet(odd.interactions).filter(pl.col("rating") >= 4)
    pairs = log.group_by("user_id", pl.col("item_id").alias("asin")).agg(
        (pl.col("event_time").max().dt.epoch("s")).alias("timestamp")
    )
    given = pairs_of(source)
    shares = {"validation": 0.2, "test": 0.2}
    labels = labels_of(
        source, split_users(given, seed=3, **shares) if rule == "random" else split_time(given, **shares)
    )
    users, ids = sorted(set(log["user_id"])), list(source.array("item_ids"))
    wanted = {
        (row["user_id"], row["asin"], row["timestamp"], labels[(users.index(row["user_id"]), ids.index(row["asin"]))])
        for row in pairs.iter_rows(named=True)
        if (users.index(row["user_id"]), ids.index(row["asin"])) in labels
    }
    assert set(found.select("user_id", "asin", "timestamp", "x_label").iter_rows()) == wanted
    assert len(found) == len(wanted)
    assert set(found["x_label"]) == {0, 1, 2}
    assert IDS[5] not in found["asin"].to_list()

    check_features(tmp_path / "shop", uri)
    told = manifest(tmp_path / "shop")
    assert told["interactions"]["digest"] == source.digest
    assert told["interactions"]["split"]["rule"] == rule
    assert done["contents"]["items"] == found["asin"].n_unique()
    assert done["contents"]["without_feature"]["image"] == 1
    readme = (tmp_path / "shop" / "README.md").read_text()
    assert "The features have seen these interactions" in readme
    assert "`image_mask.npy` | 1 |" in readme
    assert "were made: image by `encoder@1`." in readme


def test_the_divisions_that_can_be_asked_for(tmp_path: Path) -> None:
    table = log_table()
    names = ["train", "valid", "test"]
    table = table.append_column("part", pa.array([names[row % 3] for row in range(len(table))]))
    config = sample(tmp_path, log=table)
    source = read(config, tmp_path)
    uri = publish_from(source, tmp_path, str(DAY))
    export(uri, tmp_path / "by_column", source, config, "column", split_column="part")
    found = exported(tmp_path / "by_column")
    rows = pl.from_arrow(table)
    assert isinstance(rows, pl.DataFrame)
    nearest = (
        rows.with_columns(pl.col("part").replace_strict(names, [0, 1, 2]).alias("code"))
        .group_by("user_id", "item_id")
        .agg(pl.min("code"))
    )
    assert set(found.select("user_id", "asin", "x_label").iter_rows()) == set(nearest.iter_rows())
    with pytest.raises(InputError, match=r"--split column: the config names no evaluation\.split_column"):
        export(uri, tmp_path / "none", source, config, "column")
    timeless = sample(tmp_path / "timeless", log=table.drop_columns(["event_time"]), time_column=None)
    with pytest.raises(InputError, match=r"--split time: the config names no source\.time_column"):
        export(uri, tmp_path / "none", read(timeless, tmp_path), timeless, "time")
    export(uri, tmp_path / "plain", read(timeless, tmp_path), timeless)
    assert exported(tmp_path / "plain").columns[:4] == ["userID", "itemID", "rating", "x_label"]
    assert not (tmp_path / "none").exists()


def test_the_seed_decides_and_a_repeat_writes_nothing(tmp_path: Path, odd: SourceConfig) -> None:
    source = read(odd, tmp_path)
    uri = publish_from(source, tmp_path, str(DAY))
    out = tmp_path / "shop"
    assert export(uri, out, source, odd)["reused"] is False
    before = contents(out)
    # What MMRec's models leave in a dataset's folder goes with the features that it was computed from.
    (out / "mm_adj_freedomdsp_10_1.pt").write_bytes(b"graph")
    assert export(uri, out, source, odd)["reused"] is True
    assert (out / "mm_adj_freedomdsp_10_1.pt").exists()
    assert export(uri, out, source, odd, seed=4)["reused"] is False
    assert contents(out)["shop.inter"] != before["shop.inter"]
    assert export(uri, out, source, odd)["reused"] is False
    assert contents(out) == before


def test_items_that_the_table_does_not_have(tmp_path: Path) -> None:
    config = sample(tmp_path)
    source = read(config, tmp_path)
    uri = publish_from(source, tmp_path, str(DAY), drop=4)
    done = export(uri, tmp_path / "shop", source, config)
    assert done["contents"]["without_feature"] == {"image": 4, "text": 4}
    check_features(tmp_path / "shop", uri)


def test_integer_ids(tmp_path: Path) -> None:
    numbers = {x: 900 + 7 * at for at, x in enumerate(catalog_table()["item_id"].to_pylist())}
    log = log_table(
        item_id=pa.array([numbers[x] for x in log_table()["item_id"].to_pylist()], pa.int32()),
        user_id=[int(x[1:]) for x in log_table()["user_id"].to_pylist()],
    )
    config = sample(tmp_path, catalog_table(item_id=pa.array(list(numbers.values()), pa.int32())), log)
    source = read(config, tmp_path)
    uri = publish_from(source, tmp_path, str(DAY))
    export(uri, tmp_path / "shop", source, config)
    found = exported(tmp_path / "shop", text=False)
    assert set(found.select("user_id", "asin").iter_rows()) == set(
        zip(log["user_id"].to_pylist(), log["item_id"].to_pylist(), strict=True)
    )
    check_features(tmp_path / "shop", uri)
    # The same catalog by other ids is another catalog.
    other = sample(tmp_path / "other")
    with pytest.raises(InputError, match=r"source\.item_column: its ids are large_string"):
        export(uri, tmp_path / "none", read(other, tmp_path), other)
    moved = sample(
        tmp_path / "moved",
        catalog_table(item_id=pa.array([x + 1 for x in numbers.values()], pa.int32())),
        log.set_column(1, "item_id", pa.array([x + 1 for x in log["item_id"].to_pylist()], pa.int32())),
    )
    with pytest.raises(InputError, match=r"source\.catalog: none of its items with interactions has a row in "):
        export(uri, tmp_path / "none", read(moved, tmp_path), moved)
    assert not (tmp_path / "none").exists()


def test_a_log_that_changes_meanwhile(tmp_path: Path) -> None:
    config = sample(tmp_path)
    source = read(config, tmp_path)
    uri = publish_from(source, tmp_path, str(DAY))
    listed = log_files(config, DAY)
    more = log_table(user_id=[f"u{r % 6}" for r in range(40)], event_time=[instant(5)] * 40)
    write(more, Path(config.interactions))
    log = MMRecLog(
        source=source, files=listed, reading=config, as_of=DAY, evaluation=EvaluationConfig(), rule="random", seed=0
    )
    with pytest.raises(InputError, match="changed since it was read; run again when nothing writes to it"):
        save_export(tmp_path / "shop", open_snapshot(PublishConfig(uri=uri)), mmrec_export("shop", log))
    # As many users, and another file: the numbers would stand for others.
    write(log_table(), Path(config.interactions))
    os.utime(config.interactions, ns=(1, 1))
    with pytest.raises(InputError, match="changed while it was being read"):
        save_export(tmp_path / "shop", open_snapshot(PublishConfig(uri=uri)), mmrec_export("shop", log))
    assert not (tmp_path / "shop").exists()


@pytest.mark.parametrize("name", ["a b", "-x", "ü", "x\ny"])
def test_a_folder_whose_name_cannot_be_a_dataset(tmp_path: Path, name: str) -> None:
    config = sample(tmp_path)
    source = read(config, tmp_path)
    with pytest.raises(InputError, match=r"--out: MMRec names the dataset after the folder"):
        export(publish_from(source, tmp_path, str(DAY)), tmp_path / name, source, config)


def test_a_log_too_small_to_divide(tmp_path: Path) -> None:
    log = log_table().slice(0, 2)
    config = sample(tmp_path, log=log)
    source = read(config, tmp_path)
    with pytest.raises(InputError, match=r"--split random: leaves no pair for validation; the log is too small"):
        export(publish_from(source, tmp_path, str(DAY)), tmp_path / "shop", source, config)


@pytest.mark.skipif(
    not MMREC.is_dir(), reason="needs a checkout of github.com/enoche/MMRec, named by MMREC_HOME or beside this one"
)
@pytest.mark.skipif(
    importlib.util.find_spec("pandas") is None, reason="MMRec reads interactions with pandas, which is not installed"
)
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
    uri = publish_from(source, tmp_path, str(DAY))
    out = tmp_path / "shop"
    export(uri, out, source, config)
    process = Path(__file__).with_name("mmrec_process.py")
    ended = subprocess.run(
        [sys.executable, process, MMREC, tmp_path, "shop"], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    pairs = exported(out)
    assert (found["users"], found["items"]) == (pairs["userID"].n_unique(), pairs["itemID"].n_unique()) == (60, 38)
    for code in range(3):
        wanted = sorted(pairs.filter(pl.col("x_label") == code).select("userID", "itemID").iter_rows())
        assert [tuple(x) for x in found["pairs"][code]] == wanted
    assert found["features"] == [[38, 5], [38, 3]]
    features = [np.load(out / f"{name}_feat.npy", allow_pickle=False) for name in ("image", "text")]
    assert found["sums"] == pytest.approx([float(x.sum(dtype=np.float64)) for x in features])
    assert np.isfinite(found["loss"])
    assert found["test_batches"] == 1

"""The demo catalog on disk: what was planted is exactly what the files hold, and nothing else is odd."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from rectifier_core.base.config import explain
from tasks.demo.catalog import DemoConfig, write_demo
from tasks.demo.features import Features
from tasks.demo.world import CATEGORIES, DemoWorld, build_world
from tasks.errors import InputError, StorageError

CONFIG = DemoConfig(items=1500, users=2000, interactions=50_000, seed=11, days=14)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "shop"
    write_demo(folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def world() -> DemoWorld:
    return build_world(CONFIG)


@pytest.fixture(scope="module")
def catalog(demo: Path) -> pa.Table:
    return pq.read_table(demo / "catalog")


def summary(demo: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((demo / "truth" / "summary.json").read_text())
    return found


def truth(demo: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(demo / "truth" / f"{name}.parquet").to_pylist()
    return rows


def index(item_id: str) -> int:
    return int(item_id.removeprefix("item-"))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_config_same_bytes_and_another_seed_others(demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "again", CONFIG)
    assert digests(tmp_path / "again") == digests(demo)
    other = DemoConfig(items=1500, users=2000, interactions=50_000, seed=12, days=14)
    write_demo(tmp_path / "other", other)
    same = [name for name, digest in digests(tmp_path / "other").items() if digests(demo).get(name) == digest]
    assert same == []


def test_planted_shares_are_exact(demo: Path, catalog: pa.Table) -> None:
    stated = summary(demo)
    counts = Counter(row["modality"] for row in truth(demo, "mismatches"))
    nulls = {m: catalog.slice(0, CONFIG.items)[f"{m}_embedding"].null_count for m in CONFIG.widths}
    assert nulls == {"image": 75, "text": 15}
    assert counts == {"image": round(0.2 * (1500 - 75)), "text": round(0.1 * (1500 - 15))}
    for m in CONFIG.widths:
        assert stated["modalities"][m]["mismatches"] == counts[m]
        assert stated["modalities"][m]["mismatch_rate"] == counts[m] / (1500 - nulls[m])
    assert stated["seed"] == 11
    assert stated["complete"] is True


def test_swapped_features_are_exactly_their_owners(demo: Path, world: DemoWorld, catalog: pa.Table) -> None:
    special = {row["item_id"] for row in truth(demo, "broken")}
    stock = {row["item_id"] for row in truth(demo, "placeholders")}
    for m, width in CONFIG.widths.items():
        features = Features(CONFIG.seed, m, CONFIG.widths[m], world.taste)
        owner = {row["item_id"]: row["owner_item_id"] for row in truth(demo, "mismatches") if row["modality"] == m}
        assert all(item != other for item, other in owner.items())
        assert set(owner) == set(owner.values())
        assert not (set(owner) & special)
        for item_id, vector in zip(
            catalog["item_id"].to_pylist()[: CONFIG.items], catalog[f"{m}_embedding"], strict=False
        ):
            if vector.as_py() is None or item_id in special or (m == "image" and item_id in stock):
                continue
            wanted = features.rows(np.array([index(owner.get(item_id, item_id))]))[0]
            assert vector.values.to_numpy().tobytes() == wanted.tobytes(), item_id
            assert wanted.shape == (width,)


def test_placeholders_share_one_image(demo: Path, catalog: pa.Table) -> None:
    stock = [index(row["item_id"]) for row in truth(demo, "placeholders")]
    assert len(stock) == round(0.005 * CONFIG.items)
    images = {tuple(catalog["image_embedding"][row].as_py()) for row in stock}
    everyone = Counter(
        tuple(x) for x in catalog["image_embedding"].to_pylist()[: CONFIG.items] if x is not None and len(x) == 256
    )
    assert len(images) == 1
    assert everyone[images.pop()] == len(stock)


def test_every_kind_of_broken_row_is_there_and_told(demo: Path, catalog: pa.Table) -> None:
    rows = truth(demo, "broken")
    assert Counter(row["kind"] for row in rows) == summary(demo)["broken_catalog_rows"]
    assert len({row["item_id"] for row in rows}) == len(rows) <= 0.005 * CONFIG.items
    extra = catalog.slice(CONFIG.items)
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in {row["kind"] for row in rows}}
    assert set(by_kind) == {"duplicate_id", "null_id", "nan", "infinite", "zero_norm", "wrong_width"}
    assert (
        catalog.num_rows
        == summary(demo)["catalog_rows"]
        == CONFIG.items + len(by_kind["duplicate_id"]) + len(by_kind["null_id"])
    )
    assert extra["item_id"].to_pylist() == [row["item_id"] for row in by_kind["duplicate_id"]] + [None] * len(
        by_kind["null_id"]
    )
    for row in rows:
        if row["modality"] is None:
            continue
        vector = catalog[f"{row['modality']}_embedding"][index(row["item_id"])].values.to_numpy()
        seen = {
            "nan": int(np.isnan(vector).sum()) == 1,
            "infinite": int(np.isinf(vector).sum()) == 1,
            "zero_norm": len(vector) == CONFIG.widths[row["modality"]] and not vector.any(),
            "wrong_width": len(vector) == CONFIG.widths[row["modality"]] // 2,
        }
        assert [kind for kind, holds in seen.items() if holds] == [row["kind"]]


def test_no_feature_is_broken_but_those_told(demo: Path, catalog: pa.Table) -> None:
    told = {(row["item_id"], row["modality"]) for row in truth(demo, "broken")}
    for m, width in CONFIG.widths.items():
        for item_id, vector in zip(catalog["item_id"].to_pylist(), catalog[f"{m}_embedding"].to_pylist(), strict=True):
            if vector is not None and (item_id, m) not in told:
                assert len(vector) == width, (item_id, m)
                assert np.isfinite(vector).all(), (item_id, m)
                assert any(vector), (item_id, m)


def test_scales_are_those_of_real_features(world: DemoWorld) -> None:
    everyone = np.arange(CONFIG.items)
    image = np.linalg.norm(Features(CONFIG.seed, "image", CONFIG.widths["image"], world.taste).rows(everyone), axis=1)
    text = np.linalg.norm(Features(CONFIG.seed, "text", CONFIG.widths["text"], world.taste).rows(everyone), axis=1)
    assert np.percentile(image, 5) > 10
    assert np.percentile(image, 95) < 30
    assert 0.9 < text.mean() < 1.1
    assert text.std() < 0.2
    assert (Features(CONFIG.seed, "image", CONFIG.widths["image"], world.taste).rows(everyone) >= 0).all()


def test_the_log_holds_what_it_states(demo: Path) -> None:
    days = sorted((demo / "interactions").iterdir())
    assert [day.name for day in days] == [
        f"dt={date.fromordinal(date(2026, 6, 30).toordinal() - 13 + n).isoformat()}" for n in range(14)
    ]
    stated, total, broken = summary(demo)["interactions"], 0, Counter[str]()
    positive, touched = 0, set()
    known = {f"item-{n:07d}" for n in range(CONFIG.items)}
    for day in days:
        table = pq.read_table(day / "part-0.parquet")
        assert table.schema.field("event_time").type == pa.timestamp("us", tz="UTC")
        times = table["event_time"].to_pylist()
        assert times == sorted(times)
        assert {time.date().isoformat() for time in times} == {day.name.removeprefix("dt=")}
        assert set(table["rating"].to_pylist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
        total += table.num_rows
        for user, item, rating in zip(
            table["user_id"].to_pylist(), table["item_id"].to_pylist(), table["rating"].to_pylist(), strict=True
        ):
            if user is None or item not in known:
                broken["null_user" if user is None else "unknown_item"] += 1
                continue
            positive += rating >= 4
            touched.add(item)
    assert total == stated["rows"] == CONFIG.num_interactions
    assert broken == {"null_user": stated["null_user"], "unknown_item": stated["unknown_item"]}
    assert broken.total() == round(0.003 * CONFIG.num_interactions)
    assert positive == stated["positive"] > 0.6 * total
    assert stated["items_without_interactions"] == CONFIG.items - len(touched)


def test_titles_say_what_the_item_is(catalog: pa.Table) -> None:
    noun = dict(CATEGORIES)
    titles, categories = (catalog[name].to_pylist()[: CONFIG.items] for name in ("title", "category"))
    assert len(set(titles)) == CONFIG.items
    assert all(f" {noun[category]} " in title for title, category in zip(titles, categories, strict=True))
    assert len(set(categories)) == 40


def test_run_toml_follows_the_contract(demo: Path) -> None:
    text = (demo / "run.toml").read_text()
    run = tomllib.loads(text)
    assert run["seed"] == CONFIG.seed
    assert run["source"]["modalities"] == {"image": "image_embedding", "text": "text_embedding"}
    assert run["source"]["positive"] == "rating >= 4"
    assert (run["source"]["title_column"], run["source"]["category_column"]) == ("title", "category")
    assert run["publish"]["uri"] == "warehouse/item_features"
    assert run["run"]["folder"] == "runs"
    assert (demo / run["source"]["catalog"]).is_dir()
    assert (demo / run["source"]["interactions"]).is_dir()


def test_an_earlier_demo_is_replaced_and_its_warehouse_kept(tmp_path: Path) -> None:
    folder, small = tmp_path / "shop", DemoConfig(items=100, interactions=1500, days=3)
    write_demo(folder, DemoConfig(items=120, interactions=1500, days=5))
    (folder / "warehouse").mkdir()
    (folder / "warehouse" / "kept").write_text("yes")
    write_demo(folder, small)
    write_demo(tmp_path / "fresh", small)
    assert digests(folder) == {**digests(tmp_path / "fresh"), "warehouse/kept": hashlib.sha256(b"yes").hexdigest()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "shop"]


def test_a_half_replaced_demo_can_be_written_again(tmp_path: Path) -> None:
    folder, small = tmp_path / "shop", DemoConfig(items=100, interactions=1500, days=3)
    write_demo(folder, small)
    (folder / "truth" / "summary.json").write_text('{"complete": false}')
    (folder / "catalog").rename(tmp_path / "gone")
    assert write_demo(folder, small)["complete"] is True
    assert digests(folder / "catalog") == digests(tmp_path / "gone")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"mine.*not empty"):
        write_demo(tmp_path / "mine", DemoConfig(items=100))
    with pytest.raises(InputError, match=r"thesis\.tex.*a file"):
        write_demo(tmp_path / "mine" / "thesis.tex", DemoConfig(items=100))
    with pytest.raises(StorageError, match="writing failed"):
        write_demo(tmp_path / "mine" / "thesis.tex" / "below", DemoConfig(items=100))
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


def test_an_empty_folder_is_used_and_progress_told(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    (tmp_path / "empty").mkdir()
    write_demo(tmp_path / "empty", DemoConfig(items=100, interactions=1500, days=3), lambda *words: said.append(words))
    assert said == [("catalog", 102, 102), ("interactions", 1, 3), ("interactions", 2, 3), ("interactions", 3, 3)]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"items": 99}, "items"),
        ({"interactions": 1000}, "interactions: wanted at least 1200"),
        ({"mismatch": {"image": 0.95}}, "mismatch.image"),
        ({"mismatch": {"text": float("nan")}}, "mismatch.text"),
        ({"mismatch": {"smell": 0.1}}, "mismatch.smell"),
        ({"missing": {"text": -0.1}}, "missing.text"),
        ({"items": 100, "mismatch": {"image": 0.01}}, "mismatch.image.*none to swap with"),
        ({"items": 100, "mismatch": {"image": 0.9}, "missing": {"image": 0.9}}, "mismatch.image.*no room"),
    ],
)
def test_config_names_the_wrong_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DemoConfig(**changes)
    assert re.match(key, explain(caught.value, DemoConfig))


def test_config_defaults() -> None:
    config = DemoConfig()
    assert (config.items, config.num_users, config.num_interactions, config.days) == (5000, 8000, 200_000, 60)
    assert (config.swapped("image"), config.swapped("text")) == (950, 495)

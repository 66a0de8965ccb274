"""The demo on disk: the files hold exactly the planted truth, the next day changes what it says, and the same config gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from rectifier_core.base.config import explain
from tasks.demo.catalog import DemoConfig, add_day, write_demo
from tasks.demo.config import FEATURE_FAULTS, MODALITIES, ROW_FAULTS, SEQUENCES
from tasks.demo.features import Features
from tasks.demo.world import CATEGORIES, build_world
from tasks.errors import InputError, StorageError

SIZES: dict[str, Any] = {"items": 600, "users": 800, "interactions": 20_000, "seed": 11, "days": 6}
CONFIG = DemoConfig(**SIZES, sequences=True, spliced=0.25, time_offset=2)
SMALL = DemoConfig(items=100, interactions=1500, days=3)
SHARES = (0.02, 0.1)
DAYS = ("2026-06-30", "2026-07-01", "2026-07-02")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "shop"
    write_demo(folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("later") / "shop"
    write_demo(folder, CONFIG)
    for share in SHARES:
        add_day(folder, share)
    return folder


@pytest.fixture(scope="module")
def catalog(demo: Path) -> pa.Table:
    return pq.read_table(demo / "catalog")


@pytest.fixture(scope="module")
def features() -> dict[str, Features]:
    taste = build_world(CONFIG).taste
    return {m: Features(CONFIG, m, taste) for m in (*MODALITIES, *SEQUENCES)}


def summary(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "truth" / "summary.json").read_text())
    return read


def truth(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "truth" / f"{name}.parquet").to_pylist()
    return rows


def index(item_id: str) -> int:
    return int(item_id.removeprefix("item-"))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_config_and_days_give_the_same_bytes(demo: Path, later: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "again", CONFIG)
    assert digests(tmp_path / "again") == digests(demo)
    for share in SHARES:
        add_day(tmp_path / "again", share)
    assert digests(tmp_path / "again") == digests(later)
    write_demo(tmp_path / "other", DemoConfig(**{**SIZES, "seed": 12}, sequences=True))
    assert not set(digests(tmp_path / "other").items()) & set(digests(demo).items())


def test_mismatches_are_exact_and_show_their_owners_features(
    demo: Path, catalog: pa.Table, features: dict[str, Features]
) -> None:
    special = {row["item_id"] for name in ("broken", "placeholders") for row in truth(demo, name)}
    for m, missing, planted in (("image", 30, 114), ("text", 6, 59)):
        owner = {row["item_id"]: row["owner_item_id"] for row in truth(demo, "mismatches") if row["modality"] == m}
        assert set(owner) == set(owner.values()) and not set(owner) & special
        assert all(item != other for item, other in owner.items())
        counts = summary(demo)["modalities"][m]
        assert (counts["missing"], counts["mismatches"], len(owner)) == (missing, planted, planted)
        column = catalog[f"{m}_embedding"].slice(0, CONFIG.items)
        assert column.null_count == missing
        for item_id, vector in zip(catalog["item_id"].to_pylist(), column, strict=False):
            if vector.is_valid and item_id not in special:
                wanted = features[m].rows(np.array([index(owner.get(item_id, item_id))]))[0]
                assert vector.values.to_numpy().tobytes() == wanted.tobytes(), item_id


def test_every_planted_fault_is_in_the_catalog_and_no_other(demo: Path, catalog: pa.Table) -> None:
    rows = truth(demo, "broken")
    assert Counter(row["kind"] for row in rows) == summary(demo)["broken_catalog_rows"]
    assert {row["kind"] for row in rows} == {*ROW_FAULTS, *FEATURE_FAULTS}
    repeated, nameless = ([x["item_id"] for x in rows if x["kind"] == kind] for kind in ("duplicate_id", "null_id"))
    assert catalog["item_id"].to_pylist()[CONFIG.items :] == repeated + [None] * len(nameless)
    assert catalog.num_rows == summary(demo)["catalog_rows"]
    broken = {(row["item_id"], row["modality"]): row["kind"] for row in rows if row["modality"]}
    for m in MODALITIES:
        for item_id, vector in zip(catalog["item_id"].to_pylist(), catalog[f"{m}_embedding"].to_pylist(), strict=True):
            if vector is not None:
                values = np.array(vector)
                kind = (
                    "wrong_width" if len(values) < CONFIG.widths[m]
                    else "zero_norm" if not values.any()
                    else "nan" if np.isnan(values).any()
                    else "infinite" if np.isinf(values).any()
                    else None
                )  # fmt: skip
                assert kind == broken.get((item_id, m)), item_id


def test_the_log_holds_what_the_summary_counts(demo: Path) -> None:
    counts, counted, touched = summary(demo)["interactions"], Counter[str](), set()
    for day in sorted((demo / "interactions").iterdir()):
        table = pq.read_table(day / "part-0.parquet")
        times = table["event_time"].to_pylist()
        assert times == sorted(times)
        assert {time.date().isoformat() for time in times} == {day.name.removeprefix("dt=")}
        for row in table.to_pylist():
            assert row["rating"] in (1, 2, 3, 4, 5)
            fault = "unknown_item" if row["item_id"].startswith("delisted") else ""
            fault = "null_user" if row["user_id"] is None else fault
            counted.update({"rows": 1, fault or "sound": 1, "positive": not fault and row["rating"] >= 4})
            touched |= set() if fault else {row["item_id"]}
    assert all(counted[name] == counts[name] for name in ("rows", "unknown_item", "null_user", "positive"))
    assert counts["rows"] == CONFIG.num_interactions and counts["unknown_item"] > 0 and counts["null_user"] > 0
    assert counts["items_without_interactions"] == CONFIG.items - len(touched)


def test_the_run_config_names_the_columns(demo: Path, catalog: pa.Table) -> None:
    run = tomllib.loads((demo / "run.toml").read_text())
    assert run["seed"] == CONFIG.seed
    assert run["source"]["modalities"] == {m: f"{m}_embedding" for m in (*MODALITIES, *SEQUENCES)}
    assert {*run["source"]["modalities"].values(), "item_id", "title", "category"} == set(catalog.column_names)
    assert run["publish"]["uri"] == "warehouse/item_features"
    titles, categories = (catalog[name].to_pylist()[: CONFIG.items] for name in ("title", "category"))
    assert len(set(titles)) == CONFIG.items
    assert all(f" {dict(CATEGORIES)[category]} " in title for title, category in zip(titles, categories, strict=True))


def test_segments_are_those_of_their_owners(demo: Path, catalog: pa.Table, features: dict[str, Features]) -> None:
    for m in SEQUENCES:
        planted = {
            (index(row["item_id"]), row["segment"]): (index(row["owner_item_id"]), row["owner_segment"])
            for row in truth(demo, "segments")
            if row["modality"] == m
        }
        assert all(item != owner for (item, _), (owner, _) in planted.items())
        column = catalog[f"{m}_embedding"].combine_chunks().slice(0, CONFIG.items)
        lengths = column.value_lengths().fill_null(0).to_numpy()
        own = [(item, time) for item, length in enumerate(lengths) for time in range(length)]
        wanted = np.array([planted.get(segment, segment) for segment in own])
        assert (wanted[:, 1] < lengths.max()).all()
        rows = features[m].segments(wanted[:, 0], wanted[:, 1])
        assert column.flatten().flatten().to_numpy().tobytes() == rows.tobytes()
        counts = summary(demo)["sequences"]["modalities"][m]
        assert counts == {
            "width": SEQUENCES[m], "items_with_feature": 588, "missing": column.null_count, "segments": len(own),
            "items_spliced": 147, "segments_spliced": len(planted),
        }  # fmt: skip
        assert len({item for item, _ in planted}) == 147


def snapshot(folder: Path, day: str) -> dict[str, dict[str, Any]]:
    """The rows of a day's catalog by item id."""
    rows = pq.read_table(folder / "catalog" / f"dt={day}", partitioning=None).to_pylist()
    return {row["item_id"]: row for row in rows if row["item_id"]}


def test_the_next_day_changes_the_stated_share_and_its_truth_follows(
    later: Path, features: dict[str, Features]
) -> None:
    days = [snapshot(later, day) for day in DAYS]
    for before, after, share in zip(days, days[1:], SHARES, strict=False):
        assert 0 < len(before.keys() ^ after.keys()) < share / 2 * CONFIG.items + 2
        both = before.keys() & after.keys()
        for m in MODALITIES:
            changed = sum(str(before[item][f"{m}_embedding"]) != str(after[item][f"{m}_embedding"]) for item in both)
            assert abs(changed - share * CONFIG.having(m)) <= 0.2 * share * CONFIG.items + 2
    planted, exact = truth(later, "mismatches"), 0
    for row in planted:
        items = np.array([index(row["item_id"]), index(row["owner_item_id"])])
        own, of_owner = features[row["modality"]].rows(items).tolist()
        shown = days[-1][row["item_id"]][f"{row['modality']}_embedding"]
        assert shown != own
        exact += shown == of_owner
    # The others show a later picture of their owner.
    assert 0.85 * len(planted) < exact <= len(planted)
    for m, counts in summary(later)["modalities"].items():
        assert counts["mismatches"] == sum(row["modality"] == m for row in planted)
        assert abs(counts["mismatch_rate"] - CONFIG.mismatch[m]) < 0.04


def test_the_next_days_log_has_known_users(later: Path) -> None:
    for day in DAYS[1:]:
        table = pq.read_table(later / "interactions" / f"dt={day}", partitioning=None)
        assert len(table) == round(CONFIG.num_interactions / CONFIG.days)
        assert {str(x)[:10] for x in table["event_time"].to_pylist()} == {day}
        assert set(table["user_id"].drop_null().to_pylist()) <= set(range(CONFIG.num_users))


def test_a_new_demo_replaces_the_old_one_and_keeps_its_warehouse(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    write_demo(folder, CONFIG)
    (folder / "warehouse").mkdir()
    (folder / "warehouse" / "kept").write_text("yes")
    # A killed replacement has no truth, and perhaps no catalog.
    (folder / "truth" / "summary.json").unlink()
    (folder / "catalog").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="no complete demo"):
        add_day(folder)
    write_demo(folder, SMALL)
    write_demo(tmp_path / "fresh", SMALL)
    assert digests(folder) == {**digests(tmp_path / "fresh"), "warehouse/kept": hashlib.sha256(b"yes").hexdigest()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "gone", "shop"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("text")
    with pytest.raises(InputError, match=r"mine.*not empty"):
        write_demo(tmp_path / "mine", SMALL)
    with pytest.raises(InputError, match=r"thesis\.tex.*a file"):
        write_demo(tmp_path / "mine" / "thesis.tex", SMALL)
    with pytest.raises(StorageError, match="writing failed"):
        write_demo(tmp_path / "mine" / "thesis.tex" / "below", SMALL)
    with pytest.raises(InputError, match="no complete demo"):
        add_day(tmp_path / "mine")
    with pytest.raises(InputError, match="--changed"):
        add_day(tmp_path / "mine", 0.9)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"items": 99}, "items"),
        ({"interactions": 1000}, "interactions: wanted at least 1200"),
        ({"seed": -1}, "seed"),
        ({"mismatch": {"text": float("nan")}}, "mismatch.text"),
        ({"mismatch": {"smell": 0.1}}, "mismatch.smell"),
        ({"missing": {"text": -0.1}}, "missing.text"),
        ({"spliced": 1.5}, "spliced"),
        ({"time_offset": 17}, "time_offset"),
        ({"items": 100, "mismatch": {"image": 0.01}}, "mismatch.image.*no other to swap with"),
        ({"items": 100, "mismatch": {"image": 0.9}, "missing": {"image": 0.9}}, "mismatch.image.*no room"),
    ],
)
def test_the_config_names_the_wrong_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DemoConfig(**changes)
    assert re.match(key, explain(caught.value, DemoConfig))

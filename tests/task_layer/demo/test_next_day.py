"""The day after a demo: what changed is what is said to have, the truth follows, and the same days give the same bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.demo.catalog import DemoConfig, write_demo
from tasks.demo.features import Features
from tasks.demo.next_day import add_day
from tasks.demo.world import build_world
from tasks.errors import InputError

CONFIG = DemoConfig(items=1500, users=2000, interactions=50_000, seed=11, days=14)
SHARES = (0.02, 0.1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "shop"
    write_demo(folder, CONFIG)
    for share in SHARES:
        add_day(folder, share)
    return folder


def snapshot(demo: Path, day: str) -> dict[str, dict[str, bytes | None]]:
    """Feature bytes by item id and modality; an id that stands twice counts once."""
    table = pq.read_table(demo / "catalog" / f"dt={day}", partitioning=None)
    rows: dict[str, dict[str, bytes | None]] = {}
    for at, item in enumerate(table["item_id"].to_pylist()):
        if item is not None:
            found = {m: table[f"{m}_embedding"][at] for m in CONFIG.widths}
            rows.setdefault(item, {m: np.asarray(x.values).tobytes() if x.is_valid else None for m, x in found.items()})
    return rows


def test_the_share_that_is_said_changes_and_items_come_and_go(demo: Path) -> None:
    days = [snapshot(demo, day) for day in ("2026-06-30", "2026-07-01", "2026-07-02")]
    for before, after, share in zip(days, days[1:], SHARES, strict=False):
        both = before.keys() & after.keys()
        assert 0 < len(before.keys() ^ after.keys()) < share / 2 * CONFIG.items
        for m in CONFIG.widths:
            changed = sum(before[item][m] != after[item][m] for item in both)
            assert abs(changed - share * CONFIG.having(m)) <= 0.2 * share * CONFIG.items + 2


def test_the_truth_is_the_newest_days(demo: Path) -> None:
    rows, world = snapshot(demo, "2026-07-02"), build_world(CONFIG)
    planted = pq.read_table(demo / "truth" / "mismatches.parquet").to_pylist()
    features = {m: Features(CONFIG.seed, m, CONFIG.widths[m], world.taste) for m in CONFIG.widths}
    summary = json.loads((demo / "truth" / "summary.json").read_text())
    assert Counter(x["modality"] for x in planted) == {
        m: found["mismatches"] for m, found in summary["modalities"].items()
    }
    exact = 0
    for row in planted:
        item, owner = (int(row[name].removeprefix("item-")) for name in ("item_id", "owner_item_id"))
        assert item != owner and row["item_id"] in rows
        carried = np.frombuffer(rows[row["item_id"]][row["modality"]] or b"", np.float32)
        of_owner, of_item = features[row["modality"]].rows(np.array([owner, item]))
        exact += np.array_equal(carried, of_owner)
        assert not np.array_equal(carried, of_item)
    # The others carry a later picture of their owner.
    assert 0.9 * len(planted) < exact <= len(planted)
    for m, found in summary["modalities"].items():
        assert abs(found["mismatch_rate"] - CONFIG.mismatch[m]) < 0.03


def test_the_log_goes_on_with_users_it_knows(demo: Path) -> None:
    before = pq.read_table(demo / "interactions" / "dt=2026-06-30", partitioning=None)
    for day in ("2026-07-01", "2026-07-02"):
        table = pq.read_table(demo / "interactions" / f"dt={day}", partitioning=None)
        assert len(table) == round(CONFIG.num_interactions / CONFIG.days)
        assert {str(x)[:10] for x in table["event_time"].to_pylist()} == {day}
        assert set(table["user_id"].to_pylist()) <= set(range(CONFIG.num_users))
        assert table.schema.equals(before.schema)
    assert pa.types.is_int64(before["user_id"].type)


def test_the_same_days_give_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "again", CONFIG)
    for share in SHARES:
        add_day(tmp_path / "again", share)
    digests = [
        {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*")
            if path.is_file()
        }
        for root in (demo, tmp_path / "again")
    ]
    assert digests[0] == digests[1]


def test_there_has_to_be_a_whole_demo(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no demo here"):
        add_day(tmp_path)
    with pytest.raises(InputError, match="--changed"):
        add_day(demo, 0.9)
    broken = Path(shutil.copytree(demo, tmp_path / "broken"))
    summary = json.loads((broken / "truth" / "summary.json").read_text())
    (broken / "truth" / "summary.json").write_text(json.dumps(summary | {"complete": False}))
    with pytest.raises(InputError, match="incomplete"):
        add_day(broken)

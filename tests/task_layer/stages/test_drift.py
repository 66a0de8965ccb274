"""How far today's rows lie from the last published ones, against plain NumPy over a real table."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.errors import InputError
from tasks.stages.drift import drift_since_last, last_published
from tasks.store.store import Ref, StageStore, StageWriter
from tasks.table.history import roll_back
from tasks.table.publish import PublishConfig
from tests.support.table.publish_support import publish, write_modality

YESTERDAY, TODAY = "2024-03-09", date(2024, 3, 10)
Rows = dict[str, np.ndarray[Any, Any] | None]


def refs(root: Path, features: dict[str, Rows], *, integers: bool = False) -> tuple[Ref, Ref]:
    """Stage outputs of a run: per modality each item's row, None where it is missing."""
    ids = list(next(iter(features.values())))
    numbers = {
        m: {item: (None if row is None else row.tolist()) for item, row in rows.items()} for m, rows in features.items()
    }

    def source(writer: StageWriter) -> None:
        writer.array("item_ids", np.array([int(x) for x in ids]) if integers else np.array(ids))
        writer.meta({"id_type": "int64" if integers else "string"})

    def rectified(writer: StageWriter) -> None:
        for m, rows in features.items():
            width = next(len(x) for x in rows.values() if x is not None)
            there = [rows[item] is not None for item in ids]
            write_modality(writer, m, [np.zeros(width) if (x := rows[item]) is None else x for item in ids], there)
        writer.meta({"features": list(features)})

    store = StageStore(root)
    return store.once("source", (ids, integers), source), store.once("rectified", (ids, numbers), rectified)


def some(seed: int, items: list[str], width: int = 5, missing: tuple[str, ...] = ()) -> Rows:
    """Random rows of any length."""
    rng = np.random.default_rng(seed)
    return {
        item: None if item in missing else (rng.normal(size=width) * rng.integers(1, 9)).astype(np.float32)
        for item in items
    }


def mean_cosine(before: Rows, after: Rows) -> float:
    """Over the items that both have."""
    pairs = [(a, b) for item, a in before.items() if a is not None and (b := after.get(item)) is not None]
    cosines = [
        np.dot(a.astype(float), b) / np.linalg.norm(a.astype(float)) / np.linalg.norm(b.astype(float)) for a, b in pairs
    ]
    return float(np.mean(cosines))


def drift(config: PublishConfig, source: Ref, rectified: Ref, **more: Any) -> dict[str, float | None]:
    """As the gate asks for it, on the day after."""
    return drift_since_last(last_published(config, TODAY), source, rectified, more.pop("models", {}), **more)


@pytest.fixture
def config(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "table"), rows_per_file=3)


@pytest.mark.parametrize("integers", [False, True])
def test_it_is_the_mean_cosine_over_the_items_of_both_days(
    tmp_path: Path, config: PublishConfig, integers: bool
) -> None:
    old, new = ["7", "3", "11", "5", "2", "13"], ["2", "3", "4", "5", "7", "13", "17"]
    before = {"image": some(1, old, missing=("5",)), "text": some(2, old, width=4)}
    after = {"image": some(3, new, missing=("2",)), "text": some(4, new, width=4)}
    publish(config, refs(tmp_path / "old", before, integers=integers), YESTERDAY)
    found = drift(config, *refs(tmp_path / "new", after, integers=integers))
    assert found == {m: pytest.approx(mean_cosine(before[m], after[m]), abs=1e-9) for m in before}


def test_of_a_large_day_every_so_many_th_row_group_tells(tmp_path: Path, config: PublishConfig) -> None:
    items = [f"item-{x}" for x in range(12)]
    before, after = {"image": some(1, items)}, {"image": some(2, items)}
    publish(config, refs(tmp_path / "old", before), YESTERDAY)
    sampled = {x: before["image"][x] for x in (*items[0:3], *items[6:9])}
    found = drift(config, *refs(tmp_path / "new", after), sample_rows=6)
    assert found == {"image": pytest.approx(mean_cosine(sampled, after["image"]), abs=1e-9)}


def test_the_newest_earlier_day_counts_and_no_later_one(tmp_path: Path, config: PublishConfig) -> None:
    items = ["a", "b", "c", "d"]
    days = {
        day: {"image": some(seed, items)}
        for seed, day in enumerate(("2024-03-01", YESTERDAY, "2024-03-10", "2024-03-11"))
    }
    for day, rows in days.items():
        publish(config, refs(tmp_path / day, rows), day)
    today = {"image": some(9, items)}
    found = drift(config, *refs(tmp_path / "today", today))
    assert found["image"] == pytest.approx(mean_cosine(days[YESTERDAY]["image"], today["image"]), abs=1e-9)


def test_it_is_unknown_where_there_is_nothing_to_compare(tmp_path: Path, config: PublishConfig) -> None:
    today = refs(tmp_path / "today", {"image": some(1, ["a", "b"]), "text": some(2, ["a", "b"])})
    assert drift(config, *today) == {"image": None, "text": None}
    publish(config, today, "2024-03-10")
    assert drift(config, *today) == {"image": None, "text": None}
    publish(config, refs(tmp_path / "old", {"image": some(1, ["x", "y"])}), YESTERDAY)
    # No item in common, and a modality that was not there.
    assert drift(config, *today) == {"image": None, "text": None}


@pytest.mark.parametrize(
    ("before", "now", "compared"),
    [("a", "b", False), ("a", "a", True), (None, "b", True), ("a", None, True), (None, None, True)],
)
def test_days_of_two_embedding_models_are_not_compared(
    tmp_path: Path, config: PublishConfig, before: str | None, now: str | None, compared: bool
) -> None:
    rows = {"image": some(1, ["a", "b"]), "text": some(2, ["a", "b"])}
    publish(config, refs(tmp_path / "older", rows), "2024-03-01", models={"image": "c"})
    publish(config, refs(tmp_path / "old", rows), YESTERDAY, models={"image": before} if before else {})
    # Neither a later commit of an older day nor a rollback to what is shown hides whose the newest day's rows are.
    publish(config, refs(tmp_path / "backfilled", rows), "2024-03-02", models={"image": "c"})
    publish(config, refs(tmp_path / "later", rows), "2024-03-10", models={"image": "c"})
    roll_back(config, 2)
    found = drift(config, *refs(tmp_path / "new", rows), models={"image": now} if now else {})
    assert found == {"image": pytest.approx(1.0) if compared else None, "text": pytest.approx(1.0)}
    last = last_published(config, TODAY)
    assert last is not None and (last.day, last.models) == (YESTERDAY, {"image": before} if before else {})


def test_a_table_of_another_layout_is_refused(tmp_path: Path, config: PublishConfig) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(config.uri, pa.table({"x": [1]}))
    with pytest.raises(InputError, match="a Delta table of another layout"):
        drift(config, *refs(tmp_path / "stages", {"image": some(1, ["a"])}))

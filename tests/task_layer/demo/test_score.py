"""Scoring a published table against planted truth, on real Delta tables small enough to work out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from tasks.demo.catalog import DemoConfig, write_demo
from tasks.demo.score import describe_score, score_ranking
from tasks.errors import InputError

ITEMS = list("abcdefgh")


def plant(folder: Path, swapped: dict[str, str], placeholders: str = "") -> Path:
    folder.mkdir()
    rows = [(item, m) for m, items in swapped.items() for item in items]
    mismatches = {
        "item_id": [item for item, _ in rows],
        "modality": [m for _, m in rows],
        "owner_item_id": ["a"] * len(rows),
    }
    pq.write_table(
        pa.table(mismatches, schema=pa.schema([(name, pa.string()) for name in mismatches])),
        folder / "mismatches.parquet",
    )
    stock = {"item_id": list(placeholders), "modality": ["image"] * len(placeholders)}
    pq.write_table(
        pa.table(stock, schema=pa.schema([(name, pa.string()) for name in stock])), folder / "placeholders.parquet"
    )
    modalities = {m: {"mismatch_rate": len(items) / 8} for m, items in swapped.items()}
    (folder / "summary.json").write_text(json.dumps({"modalities": modalities}))
    return folder


def publish(folder: Path, day: date, **trust: Sequence[float | None]) -> str:
    columns: dict[str, Any] = {"as_of": pa.array([day] * 8, pa.date32()), "item_id": ITEMS}
    columns |= {f"{m}_trust": pa.array(values, pa.float32()) for m, values in trust.items()}
    write_deltalake(folder, pa.table(columns), mode="append", partition_by=["as_of"])
    return str(folder)


def test_counts_shares_and_auc_by_hand(tmp_path: Path) -> None:
    truth = plant(tmp_path / "truth", {"image": "bdh", "text": "c"}, placeholders="e")
    uri = publish(
        tmp_path / "table",
        date(2026, 6, 30),
        image=[0.9, 0.1, 0.8, 0.5, 0.2, 0.7, 0.6, None],
        text=[0.9, 0.8, 0.1, 0.7, 0.6, 0.5, 0.4, 0.3],
    )
    score = score_ranking(uri, truth)
    assert (score["as_of"], score["rows"]) == ("2026-06-30", 8)
    # Ranked: b .1, e .2, d .5 | g, f, c, a; h has no trust. b beats all five matched items, d all but e.
    assert score["modalities"]["image"] == {
        "planted": 3, "planted_rate": 3 / 8, "planted_ranked": 2, "ranked": 7, "unranked": 1, "listed": 3, "found": 2,
        "placeholders_listed": 1, "precision": 2 / 3, "recall": 2 / 3, "auc": 9 / 10,
    }  # fmt: skip
    assert score["modalities"]["text"]["precision"] == score["modalities"]["text"]["auc"] == 1.0
    assert describe_score(score).splitlines() == [
        "image: the 3 least trusted hold 2 of 3 planted mismatches (precision 67 %; by chance 38 %), AUC .90; "
        "1 of the others show the planted placeholder; 1 of 8 items have no trust value; "
        "1 planted mismatches have no trust value",
        "text: the 1 least trusted hold 1 of 1 planted mismatches (precision 100 %; by chance 12 %), AUC 1.00",
    ]


def test_ties_go_by_item_id(tmp_path: Path) -> None:
    uri = publish(tmp_path / "table", date(2026, 6, 30), image=[0.5] * 8)
    early = score_ranking(uri, plant(tmp_path / "early", {"image": "ab"}))["modalities"]["image"]
    late = score_ranking(uri, plant(tmp_path / "late", {"image": "gh"}))["modalities"]["image"]
    assert (early["found"], late["found"]) == (2, 0)
    assert early["auc"] == late["auc"] == 0.5


def test_the_newest_day_unless_one_is_named(tmp_path: Path) -> None:
    truth = plant(tmp_path / "truth", {"image": "a"})
    publish(tmp_path / "table", date(2026, 6, 30), image=[0.0] + [1.0] * 7)
    uri = publish(tmp_path / "table", date(2026, 6, 1), image=[1.0] + [0.0] * 7)
    assert score_ranking(uri, truth)["modalities"]["image"]["auc"] == 1.0
    assert score_ranking(uri, truth, date(2026, 6, 1))["modalities"]["image"]["auc"] == 0.0
    with pytest.raises(InputError, match=r"as_of 2026-06-02; it holds 2026-06-01, 2026-06-30"):
        score_ranking(uri, truth, date(2026, 6, 2))


def test_nothing_ranked_and_nothing_planted(tmp_path: Path) -> None:
    truth = plant(tmp_path / "truth", {"image": "ab", "text": ""})
    uri = publish(tmp_path / "table", date(2026, 6, 30), image=[None] * 8, text=[float("nan")] + [0.5] * 7)
    score = score_ranking(uri, truth)
    image, text = score["modalities"]["image"], score["modalities"]["text"]
    assert (image["precision"], image["recall"], image["auc"], image["unranked"]) == (None, 0.0, None, 8)
    assert (text["precision"], text["recall"], text["auc"], text["ranked"]) == (None, None, None, 7)
    assert json.loads(json.dumps(score, allow_nan=False)) == score
    assert describe_score(score).splitlines() == [
        "image: no item has a trust value, so none of the 2 planted mismatches is ranked",
        "text: no mismatch was planted, so there is none to find among 7 ranked items",
    ]


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    truth = plant(tmp_path / "truth", {"image": "a"})
    with pytest.raises(InputError, match="nowhere: no published table"):
        score_ranking(str(tmp_path / "nowhere"), truth)
    uri = publish(tmp_path / "table", date(2026, 6, 30), text=[0.5] * 8)
    with pytest.raises(InputError, match="column image_trust is missing"):
        score_ranking(uri, truth)
    (truth / "mismatches.parquet").unlink()
    with pytest.raises(InputError, match=r"truth .*cannot be read.*mismatches\.parquet"):
        score_ranking(uri, truth)
    (truth / "summary.json").unlink()
    with pytest.raises(InputError, match=r"truth .*cannot be read.*summary\.json"):
        score_ranking(uri, truth)


def test_a_written_demo_can_be_scored(tmp_path: Path) -> None:
    """A perfect detector on a real demo finds every planted mismatch and nothing else."""
    write_demo(tmp_path / "shop", DemoConfig(items=400, interactions=2000, days=2))
    truth = tmp_path / "shop" / "truth"
    swapped = {(row["item_id"], row["modality"]) for row in pq.read_table(truth / "mismatches.parquet").to_pylist()}
    ids = [f"item-{number:07d}" for number in range(400)]
    columns: dict[str, Any] = {"as_of": pa.array([date(2026, 6, 30)] * 400), "item_id": ids}
    columns |= {
        f"{m}_trust": pa.array([0.1 if (x, m) in swapped else 0.9 for x in ids], pa.float32())
        for m in ("image", "text")
    }
    write_deltalake(tmp_path / "table", pa.table(columns), partition_by=["as_of"])
    for m, found in score_ranking(str(tmp_path / "table"), truth)["modalities"].items():
        assert found["precision"] == found["recall"] == found["auc"] == 1.0
        assert found["planted"] == {"image": 76, "text": 40}[m]


def test_segments_by_hand(tmp_path: Path) -> None:
    truth = plant(tmp_path / "truth", {"text": "c"})
    summary = json.loads((truth / "summary.json").read_text())
    (truth / "summary.json").write_text(json.dumps(summary | {"sequences": {"modalities": {"video": {}, "audio": {}}}}))
    wrong = {"item_id": ["a", "a", "b", "c"], "modality": ["video", "audio", "video", "video"], "segment": [2, 0, 0, 0]}
    pq.write_table(pa.table(wrong), truth / "segments.parquet")
    positions: list[list[int] | None] = [[0, 2], [0, 1], [0]]
    trust: list[list[float | None] | None] = [[0.9, 0.1], [0.7, 0.6], [None]]
    columns: dict[str, Any] = {
        "as_of": pa.array([date(2026, 6, 30)] * 8),
        "item_id": ITEMS,
        "text_trust": pa.array([0.5] * 8, pa.float32()),
    }
    columns["video_segment_positions"] = pa.array(positions + [None] * 5, pa.list_(pa.int32()))
    columns["video_segment_trust"] = pa.array(trust + [None] * 5, pa.list_(pa.float32()))
    write_deltalake(tmp_path / "table", pa.table(columns), partition_by=["as_of"])
    score = score_ranking(str(tmp_path / "table"), truth)
    # Ranked: a/2 .1, b/1 .6, b/0 .7, a/0 .9; nothing is known of c/0. Of the pairs only b/0 against b/1 is the wrong way round.
    assert score["sequences"] == {"video": {"planted": 3, "ranked": 4, "listed": 3, "found": 2, "auc": 3 / 4}}
    assert describe_score(score).splitlines()[1:] == [
        "segments of video: the 3 least trusted hold 2 of 3 planted mismatches, AUC .75"
    ]

"""Nights with a shadow evaluation: what is published, what is refused, and that without one nothing changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.support.flow.flow_support import SHORT, CommandLine, days_of, rows_of, table_uri

DAY = "2026-06-30"
SETTINGS = (
    *("shadow=vbpr", "shadow_seeds=2", "models.vbpr.weight_decay=0.1", "models.vbpr.embedding_size=16"),
    *("training.vbpr.epochs=20", "training.vbpr.learning_rate=0.01", "training.vbpr.batch_size=512"),
)
SHADOW = tuple(part for text in SETTINGS for part in ("--set", f"evaluation.{text}"))
# Every feature becomes the mean of all; the checks that see features change are told not to mind.
WIPED = (
    *("rectify.mix=constant", "rectify.keep_original=0", "affinity.num_neighbours=400", "affinity.temperature=100"),
    *("quality.max_changed=1", "quality.min_drift_cosine=-1"),
)
KINDS = """
[source]
catalog = "catalog.parquet"
interactions = "interactions.parquet"
item_column = "item_id"
user_column = "user_id"
time_column = "event_time"

[source.modalities]
image = "image_embedding"

[publish]
uri = "warehouse/item_features"
"""


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    """A catalog of 400 items of ten kinds that the pictures show, and 600 users who take five items each, of one kind."""
    rng = np.random.default_rng(0)
    kind = np.arange(400) % 10
    pictures = (2 * rng.standard_normal((10, 12))[kind] + 0.5 * rng.standard_normal((400, 12))).astype(np.float32)
    ids = [f"item-{i}" for i in range(400)]
    pl.DataFrame({"item_id": ids, "image_embedding": pictures.tolist()}).write_parquet(tmp_path / "catalog.parquet")
    users = np.repeat(np.arange(600), 5)
    items = np.concatenate([rng.permutation(np.flatnonzero(kind == user % 10))[:5] for user in range(600)])
    times = pl.Series(rng.integers(1_782_000_000, 1_782_770_000, len(users)) * 1000).cast(pl.Datetime("ms", "UTC"))
    log = pl.DataFrame({"user_id": users, "item_id": [ids[i] for i in items], "event_time": times})
    log.write_parquet(tmp_path / "interactions.parquet")
    (tmp_path / "run.toml").write_text(KINDS + SHORT)
    return tmp_path


def report_of(demo: Path, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((demo / "runs" / run_id / "report.json").read_text())
    return found


def test_a_shadow_that_finds_no_harm_changes_no_row(demo: Path, cli: CommandLine) -> None:
    uri = table_uri(demo)
    off = cli.published(demo, DAY)
    assert "shadow" not in off and "shadow" not in off["stages"]
    assert not list((demo / "runs" / "stages").glob("shadow-*"))
    assert report_of(demo, off["run_id"])["shadow"] is None
    before = rows_of(uri, DAY)
    on = cli.published(demo, DAY, *SHADOW)
    assert on["published"] and on["run_id"] != off["run_id"]
    assert rows_of(uri, DAY).drop(["run_id"]).equals(before.drop(["run_id"]))
    found = on["shadow"]
    assert found["backbone"] == "vbpr" and found["split"] == "time" and found["not_worse"]
    assert found["seconds"] > 0 and found["peak_memory_after"] >= found["peak_memory_before"] > 0
    report = report_of(demo, on["run_id"])
    (check,) = (x for x in report["quality"]["checks"] if x["name"].startswith("shadow vbpr"))
    assert (check["value"], check["rule"], check["bound"], check["passed"]) == (found["high"], "at least", -0.01, True)
    assert {"stage": "shadow", "reused": False}.items() <= next(
        x for x in report["timings"] if x["stage"] == "shadow"
    ).items()
    assert report["config"]["shadow"]["backbone"] == "vbpr"
    again = cli.published(demo, DAY, *SHADOW)
    assert (again["published"], again["run_id"], again["shadow"]) == (False, on["run_id"], found)


def test_a_shadow_that_finds_harm_refuses_the_day(kinds: Path, cli: CommandLine) -> None:
    uri, wiped = table_uri(kinds), [part for text in WIPED for part in ("--set", text)]
    good = cli.published(kinds, "2026-06-29", *SHADOW)
    assert good["shadow"]["not_worse"] and good["modalities"]["image"]["rectified"] > 200
    refused = cli.rectify(kinds, DAY, *SHADOW, *wiped)
    assert refused.code == 3
    said = "the quality gate refused, nothing was published: shadow vbpr: change of Recall@20 by rectification, relative, upper end of its"
    assert said in refused.error and "wanted at least -0.01" in refused.error and "; see " in refused.error
    assert ";" not in refused.error[: refused.error.index("; see ")], "nothing but the shadow refused"
    assert days_of(uri) == ["2026-06-29"]
    page = Path(refused.error.rsplit("; see ", 1)[1])
    twin = json.loads(page.with_suffix(".json").read_text())
    assert twin["run"]["outcome"] == "refused" and twin["shadow"]["not_worse"] is False
    assert "worse beyond noise" in page.read_text()
    # The same day without a shadow is published: no other check sees it.
    assert cli.published(kinds, DAY, *wiped)["published"]


def test_a_shadow_with_a_strange_setting_is_refused_before_anything_runs(demo: Path, cli: CommandLine) -> None:
    for setting, key in (
        ("evaluation.shadow=bert", "shadow: wanted one of"),
        ("evaluation.models.vbpr.width=3", "evaluation.models.vbpr"),
    ):
        finished = cli.rectify(demo, DAY, *SHADOW, "--set", setting)
        assert finished.code == 2 and key in finished.error
    assert not (demo / "runs").exists() or not list((demo / "runs").glob("*/report.json"))

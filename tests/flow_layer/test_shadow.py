"""Runs with a shadow evaluation: which are published and which refused, and that the published rows stay the same."""

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
# Every feature becomes the mean of all. The checks that see changed features are switched off.
WIPED = (
    *("rectify.mix=constant", "rectify.keep_original=0", "affinity.num_neighbours=400", "affinity.temperature=100"),
    *("quality.max_changed=1", "quality.min_drift_cosine=-1", "quality.max_moved=1"),
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
    """A catalog of 400 items of ten kinds that the features show, and 600 users who take five items of one kind each."""
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
    report: dict[str, Any] = json.loads((demo / "runs" / run_id / "report.json").read_text())
    return report


@pytest.mark.slow
def test_a_shadow_without_harm_changes_no_row(demo: Path, cli: CommandLine) -> None:
    uri = table_uri(demo)
    off = cli.published(demo, DAY)
    assert "shadow" not in off and "shadow" not in off["stages"]
    assert report_of(demo, off["run_id"])["shadow"] is None
    before = rows_of(uri, DAY)
    on = cli.published(demo, DAY, *SHADOW)
    assert on["published"] and on["run_id"] != off["run_id"]
    assert rows_of(uri, DAY).drop(["run_id"]).equals(before.drop(["run_id"]))
    shadow, report = on["shadow"], report_of(demo, on["run_id"])
    assert shadow["backbone"] == "vbpr" and shadow["split"] == "time" and shadow["not_worse"]
    assert shadow["seconds"] > 0 and shadow["peak_memory_after"] >= shadow["peak_memory_before"] > 0
    (check,) = (x for x in report["quality"]["checks"] if x["name"].startswith("shadow vbpr"))
    assert (check["value"], check["rule"], check["bound"], check["passed"]) == (shadow["high"], "at least", -0.01, True)
    assert {x["stage"]: x["reused"] for x in report["timings"]}["shadow"] is False
    assert report["config"]["shadow"]["backbone"] == "vbpr"
    again = cli.published(demo, DAY, *SHADOW)
    assert (again["published"], again["run_id"], again["shadow"]) == (False, on["run_id"], shadow)


@pytest.mark.slow
def test_a_shadow_with_harm_refuses_the_day(kinds: Path, cli: CommandLine) -> None:
    wiped = [part for text in WIPED for part in ("--set", text)]
    refused = cli.rectify(kinds, DAY, *SHADOW, *wiped)
    assert refused.code == 3
    gate = "the quality gate refused, nothing was published: shadow vbpr: change of Recall@20 by rectification"
    assert gate in refused.error and "wanted at least -0.01" in refused.error
    assert ";" not in refused.error[: refused.error.index("; see ")], "only the shadow refused"
    page = Path(refused.error.rsplit("; see ", 1)[1])
    report = json.loads(page.with_suffix(".json").read_text())
    assert report["run"]["outcome"] == "refused" and report["shadow"]["not_worse"] is False
    assert "worse beyond noise" in page.read_text()
    # The same day without a shadow is published: no other check sees the harm.
    assert cli.published(kinds, DAY, *wiped)["published"]
    assert days_of(table_uri(kinds)) == [DAY]


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("evaluation.shadow=bert", "evaluation.shadow: wanted 'lightgcn', 'vbpr'"),
        ("evaluation.models.vbpr.width=3", "evaluation.models.vbpr: 'width' is not one of"),
    ],
)
def test_a_wrong_setting_of_the_shadow_is_refused(demo: Path, cli: CommandLine, setting: str, line: str) -> None:
    finished = cli.rectify(demo, DAY, *SHADOW, "--set", setting)
    assert finished.code == 2 and line in finished.error
    assert not list((demo / "runs").glob("*/report.json"))

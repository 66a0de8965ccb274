"""``catalog-rectifier audit``: the files it writes, what it prints, its exit statuses, and what it does not touch."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from tasks.audit.explanations import describe_audit
from tests.support.flow.flow_support import CommandLine, Published, days_of, table_uri

FILES = {
    "suspects.parquet",
    "suspects.csv",
    "suggested_features.parquet",
    "suggested_features.csv",
    "unjudged.parquet",
    "placeholders.parquet",
    "audit.json",
    "audit.html",
}
KEYS = {
    "mismatch_rate",
    "low",
    "high",
    "identifiable",
    "judged",
    "unjudged",
    "suspects",
    "expected_false",
    "fdr",
    "placeholders",
}


def test_an_audit_after_a_night_reuses_its_stages_and_publishes_nothing(published: Published, cli: CommandLine) -> None:
    config, day = ("--config", published.demo / "run.toml", "--as-of", published.days[-1]), published.days[-1]
    stages = published.demo / "runs" / "stages"
    before = {x.name for x in stages.iterdir() if not x.name.startswith(".")}
    log = sorted(os.listdir(Path(table_uri(published.demo)) / "_delta_log"))
    done = cli("audit", *config, "--hand-check", "15", "--json")
    assert done.code == 0, done.err
    found = done.result
    assert (found["run_id"], found["as_of"]) == (published.results[-1]["run_id"], day)
    assert sorted(os.listdir(Path(table_uri(published.demo)) / "_delta_log")) == log
    # The copied demo is read anew, to the same bytes; what the night learned from them is found, and swept pieces of it are not needed.
    anew = {x.name.split("-")[0] for x in stages.iterdir() if not x.name.startswith(".") and x.name not in before}
    assert anew.isdisjoint({"anchors", "copies", "projection", "affinity", "sinkhorn", "trust"})
    out = Path(found["out"])
    assert out == published.demo / "runs" / found["run_id"] / "audit"
    assert {x.name for x in out.iterdir()} == FILES | {"hand_check.csv"}
    table = pl.read_parquet(out / "suspects.parquet")
    for name, x in found["modalities"].items():
        assert x.keys() >= KEYS
        assert x["judged"] + sum(x["unjudged"].values()) == x["items"]
        assert x["suspects"] == len(table.filter(pl.col("modality") == name))
        night = published.results[-1]["modalities"][name]
        assert (x["mismatch_rate"], x["low"], x["high"]) == (night["mismatch_rate"], night["low"], night["high"])
    lines = describe_audit(found).splitlines()
    assert lines[0] == f"{day}: audited, nothing published"
    assert lines[-1] == f"page: {out / 'audit.html'}"

    drawn = pl.read_csv(out / "hand_check.csv", infer_schema=False)
    truth = pl.read_parquet(published.demo / "truth" / "mismatches.parquet").with_columns(is_mismatch=pl.lit("true"))
    filled = (
        drawn.drop("is_mismatch")
        .join(truth, on=["item_id", "modality"], how="left")
        .with_columns(pl.col("is_mismatch").fill_null("false"))
    )
    filled.write_csv(published.demo / "filled.csv")
    elsewhere = published.demo / "elsewhere"
    labelled = cli(
        "audit", *config, "--labels", published.demo / "filled.csv", "--out", elsewhere, "--top", "7", "--json"
    )
    assert labelled.code == 0, labelled.err
    given = labelled.result["labels"]
    assert (given["unlabelled"], given["unknown_items"]) == (0, 0)
    for name, x in given["modalities"].items():
        assert x["labelled"] == 15 == x["agreement"]["labelled"] + x["agreement"]["unjudged"]
        assert labelled.result["modalities"][name]["suspects"] == 7
        assert labelled.result["modalities"][name]["recalibrated"]
    assert {x.name for x in elsewhere.iterdir()} == FILES


def test_an_audit_needs_no_night_before_it(demo: Path, cli: CommandLine) -> None:
    done = cli("audit", "--config", demo / "run.toml", "--json", "--set", "source.picture_column=title")
    assert done.code == 0, done.err
    assert days_of(table_uri(demo)) == []
    assert {x.name for x in Path(done.result["out"]).iterdir()} == FILES
    assert "<img" not in Path(done.result["page"]).read_text()


BAD = {
    "both lengths": (["--fdr", "0.1", "--top", "5"], 2, "--fdr, --top: give one of the two"),
    "no share": (["--fdr", "1.5"], 2, "--fdr 1.5: wanted a share in [0, 1]"),
    "negative": (["--top", "-1"], 2, "--top -1: wanted at least 0"),
    "bad day": (["--as-of", "today"], 2, "--as-of today: wanted a day"),
    "no labels": (["--labels", "nowhere.csv"], 2, "--labels nowhere.csv: cannot be read as CSV"),
    "no such column": (["--set", "source.picture_column=photo"], 2, "no column 'photo' (source.picture_column)"),
    "no room": (["--out", "/proc/nothing"], 1, "/proc/nothing/suspects.parquet: cannot be written: "),
}


@pytest.mark.parametrize("case", BAD)
def test_what_goes_wrong_is_one_line_and_an_exit_status(published: Published, cli: CommandLine, case: str) -> None:
    given, code, said = BAD[case]
    finished = cli("audit", "--config", published.demo / "run.toml", "--as-of", published.days[-1], *given)
    assert finished.code == code, finished.err
    assert said in finished.error

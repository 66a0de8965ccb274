"""The log and the metrics of a run, and the same metrics over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.flow.cli_process import Death
from tests.support.flow.flow_support import ROOT, CommandLine, Published

NAME = "catalog_rectifier"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def lines_of(demo: Path, day: str) -> list[dict[str, Any]]:
    """The log of a day."""
    return [json.loads(x) for x in (demo / "runs" / "logs" / f"{day}.log").read_text().splitlines()]


def samples(text: str) -> Samples:
    """Every series of an exposition by name and labels, the table's label left out; no series comes twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("counter", "gauge")
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "table"}
            assert sample.name == f"{NAME}_info" or sample.labels["table"] == "item_features"
            key = (sample.name.removeprefix(f"{NAME}_"), tuple(sorted(labels.items())))
            assert key not in found, f"{key} comes twice"
            found[key] = sample.value
    return found


def textfile(demo: Path) -> Samples:
    """What a node_exporter would collect."""
    return samples((demo / "runs" / "metrics" / f"{NAME}.prom").read_text())


def ended(found: Samples) -> dict[str, int]:
    """How many runs ended how, those that none did left out."""
    return {
        dict(labels)["outcome"]: int(value) for (name, labels), value in found.items() if name == "runs_total" and value
    }


@contextmanager
def served(demo: Path) -> Iterator[str]:
    """``flows metrics`` on a free port."""
    config = str(demo / "run.toml")
    command = [sys.executable, "-m", "flows", "metrics", "--config", config, "--port", "0", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(30)
    assert process.returncode == 0


def scrape(url: str) -> str:
    """One scrape."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        return str(answer.read().decode())


def test_every_line_says_run_day_and_stage(three_days: Published) -> None:
    result, day = three_days.results[1], three_days.days[1]
    lines = lines_of(three_days.demo, day)
    assert {x["as_of"] for x in lines} == {day}
    known = [x["run_id"] for x in lines]
    first = known.index(result["run_id"])
    # The run's id is a digest of what is read: the lines before that are those of the reading.
    assert set(known[:first]) == {None} and set(known[first:]) == {result["run_id"]}
    assert {x["stage"] for x in lines[:first]} <= {None, "source"}
    assert {x["stage"] for x in lines} - {None} >= {
        *result["stages"].keys() - {"trust/image", "rectify"},
        "quality",
        "publish",
        "report",
    }
    end = lines[-1]
    assert (end["outcome"], end["exit_code"], end["message"]) == ("published", 0, "done")
    assert end["seconds"].keys() >= {*result["stages"], "quality", "publish", "report"}
    linked = three_days.demo / "runs" / result["run_id"] / "run.log"
    assert linked.samefile(three_days.demo / "runs" / "logs" / f"{day}.log")


def test_a_refused_run_a_failed_one_and_a_killed_one_can_be_read_of(published: Published, cli: CommandLine) -> None:
    demo, day = published.demo, published.tomorrow
    before = textfile(demo)
    refused = cli.rectify(demo, day, "--set", "quality.max_marginal_error=0.0")
    assert refused.code == 3
    end = lines_of(demo, day)[-1]
    assert (end["outcome"], end["exit_code"], end["level"]) == ("refused", 3, "ERROR")
    assert "error: " + end["message"] == refused.error
    assert "traceback" not in end
    (failed,) = [x for x in lines_of(demo, day) if x["message"].endswith(": failed") and "text" in x["message"]]
    assert (failed["stage"], failed["level"], failed["run_id"]) == ("quality", "ERROR", end["run_id"])
    bad = cli.rectify(demo, day, "--set", "source.item_column='nowhere'")
    assert (bad.code, lines_of(demo, day)[-1]["outcome"]) == (2, "bad_input")
    killed = cli.rectify(demo, day, "--set", "seed=3", death=Death("os.rename", r"stages/\.tmp-.*rectify"))
    assert killed.code == -9
    with served(demo) as url:
        seen = samples(scrape(url))
    states = {dict(labels)["state"]: value for (name, labels), value in seen.items() if name == "days"}
    assert states == {"done": 3, "dead": 1, "failed": 0, "refused": 0, "running": 0}
    last = lines_of(demo, day)[-1]
    assert last["stage"] == "rectify" and last["run_id"].startswith(day.replace("-", ""))
    done = cli.published(demo, day)
    after = textfile(demo)
    assert ended(after) == {**ended(before), "published": 4, "refused": 1, "bad_input": 1}
    # The killed run began and never ended.
    assert after["runs_started_total", ()] - sum(ended(after).values()) == 1
    assert after["last_run_exit_code", ()] == 0 and after["table_version", ()] == done["version"]


def test_what_fails_before_there_is_a_day_is_counted_and_logged(demo: Path, cli: CommandLine) -> None:
    gone = ("--set", "source.catalog='gone'", "--set", "source.interactions='gone'")
    finished = cli("rectify", "--config", demo / "run.toml", *gone)
    assert finished.code == 2
    (*_, end) = [json.loads(x) for x in (demo / "runs" / "logs" / "no-day.log").read_text().splitlines()]
    assert "error: " + end["message"] == finished.error
    assert ended(textfile(demo)) == {"bad_input": 1}


def test_metrics_are_what_the_run_found(three_days: Published) -> None:
    found, result = textfile(three_days.demo), three_days.results[-1]
    for modality, facts in result["modalities"].items():
        label = (("modality", modality),)
        assert found["mismatch_rate_ratio", label] == facts["mismatch_rate"]
        assert found["mismatch_rate_low_ratio", label] == facts["low"]
        assert found["mismatch_rate_high_ratio", label] == facts["high"]
        for status in ("rectified", "passed_through", "imputed", "missing"):
            assert found["items", (*label, ("status", status))] == facts[status]
    stages = {dict(labels)["stage"] for name, labels in found if name == "stage_seconds"}
    assert stages == {*result["stages"], "quality", "publish", "report"}
    assert found["newest_day_rows", ()] == result["rows"] and found["table_days", ()] == 3
    assert all(value == 1 for (name, _), value in found.items() if name == "gate_passed")


def test_a_scrape_reads_the_table_again(published: Published, cli: CommandLine) -> None:
    demo = published.demo
    before = textfile(demo)
    newest = before["newest_day_end_timestamp_seconds", ()]
    assert ("served_version", ()) not in before
    refreshed = cli("refresh", "--config", demo / "run.toml")
    assert refreshed.code == 0, refreshed.err
    with served(demo) as url:
        assert url.startswith("http://127.0.0.1:")
        first = samples(scrape(url))
        assert first["table_readable", ()] == 1
        assert {
            key: x for key, x in before.items() if key[0] != "table_seen_timestamp_seconds"
        }.items() <= first.items()
        rolled = cli("rollback", "--config", demo / "run.toml", "--to", "0")
        assert rolled.code == 0, rolled.err
        second = samples(scrape(url))
        # The store is not enabled, so a rollback leaves it alone.
        assert (second["served_version", ()], second["served_day_end_timestamp_seconds", ()]) == (2, newest)
        assert (second["table_days", ()], second["table_version", ()]) == (1, 3)
        assert second["newest_day_end_timestamp_seconds", ()] == newest - 2 * 86400
        log = demo / "warehouse" / "item_features" / "_delta_log"
        log.rename(demo / "moved")
        log.write_text("no folder")
        third = samples(scrape(url))
        assert (third["table_readable", ()], third["newest_day_end_timestamp_seconds", ()]) == (0, newest)


@pytest.mark.parametrize("how", ["config", "environment"])
def test_the_terminal_gets_json_where_it_is_asked_for(one_day: Published, cli: CommandLine, how: str) -> None:
    asked = ["--set", "run.log=json"] if how == "config" else []
    environment = {"CATALOG_RECTIFIER_LOG": "json"} if how == "environment" else {}
    finished = cli.rectify(one_day.demo, one_day.days[0], *asked, environment=environment)
    assert finished.code == 0, finished.err
    lines = [json.loads(x) for x in finished.err.splitlines()]
    assert {x["as_of"] for x in lines} <= {None, one_day.days[0]} and one_day.days[0] in {x["as_of"] for x in lines}
    assert finished.result["run_id"] == one_day.results[0]["run_id"]
    refused = cli.rectify(one_day.demo, "2026-13-01", *asked, environment=environment)
    assert refused.code == 2
    (line,) = (
        [json.loads(x) for x in refused.err.splitlines()]
        if how == "environment"
        else [{"message": refused.error, "exit_code": 2}]
    )
    assert line["message"].startswith("error: --as-of 2026-13-01: wanted a day") and line["exit_code"] == 2


def test_freshness_is_an_exit_status(three_days: Published, cli: CommandLine) -> None:
    late = cli("freshness", "--config", three_days.demo / "run.toml", "--json")
    assert late.code == 1
    assert late.result["late"] and late.result["newest_day"] == three_days.days[-1]
    assert f"the newest published day is {three_days.days[-1]}" in late.error and "late: " in late.error
    fresh = cli("freshness", "--config", three_days.demo / "run.toml", "--json", "--within", "900000")
    assert (fresh.code, fresh.result["late"], fresh.result["version"]) == (0, False, 2)
    assert "error" not in fresh.err
    wrong = cli("freshness", "--config", three_days.demo / "run.toml", "--within", "3")
    assert wrong.code == 2 and wrong.error == "error: --within 3: wanted at least 24, got 3.0"


def test_what_looks_like_a_credential_is_in_no_log(published: Published, cli: CommandLine) -> None:
    # One is known by its name beside it, the other because the environment holds it under such a name.
    secret, key = "hunter2hunter2", "wJalrXUtnFEMI/K7MDENG"
    finished = cli.rectify(
        published.demo,
        published.tomorrow,
        "--set",
        f"source.item_column='{key} token={secret}'",
        environment={"AWS_SECRET_ACCESS_KEY": key},
    )
    assert finished.code == 2 and "source.item_column" in finished.error and "token=\u2022" in finished.error
    written = [
        x for x in (published.demo / "runs").rglob("*") if x.is_file() and x.suffix in (".log", ".json", ".prom")
    ]
    assert [x for x in written if x.name == f"{published.tomorrow}.log"]
    for text in (finished.out, finished.err, *(x.read_text() for x in written)):
        assert secret not in text and key not in text

"""Incremental nights: three in a row over a drifting demo, what makes a night cold, and how near a cold run they stay."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from flows.config.run_config import RunConfig
from tasks.stages.anchors import recall_drop
from tasks.stages.config import IncrementalConfig
from tasks.stages.previous_run import find_previous_run
from tasks.store.store import Ref
from tests.support.flow.cli_process import Death
from tests.support.flow.flow_support import CommandLine, rows_of, table_uri

ENABLED = "\n[incremental]\nenabled = true\n"


class Nights(NamedTuple):
    """A demo and its nights in order, the last not run yet; copy the folder before running anything in it."""

    demo: Path
    results: list[dict[str, Any]]
    days: list[str]


def next_day(cli: CommandLine, demo: Path, *more: str) -> str:
    finished = cli("demo", demo, "--next-day", "--json", *more)
    assert finished.code == 0, finished.err
    return str(finished.result["last_day"])


@pytest.fixture(scope="module")
def nights(tiny_demo: Path, cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    demo = Path(shutil.copytree(tiny_demo, tmp_path_factory.mktemp("nights") / "demo"))
    with (demo / "run.toml").open("a") as stream:
        stream.write(ENABLED)
    summary = json.loads((demo / "truth" / "summary.json").read_text())
    days, results = [summary["last_day"]], []
    for _ in range(3):
        results.append(cli.published(demo, days[-1]))
        days.append(next_day(cli, demo))
    return Nights(demo, results, days)


def copied(demo: Path, to: Path) -> Path:
    """The demo elsewhere, as if its nights had been run there."""
    shutil.copytree(demo, to)
    for path in to.glob("runs/*/summary.json"):
        path.write_text(path.read_text().replace(str(demo), str(to)))
    return to


@pytest.fixture
def tomorrow(nights: Nights, tmp_path: Path) -> Nights:
    return nights._replace(demo=copied(nights.demo, tmp_path / "demo"))


def test_every_night_brings_the_one_before_up_to_date(nights: Nights) -> None:
    first, *later = nights.results
    assert first["incremental"]["base"] is None and first["nights"] == 0 and first["base"] is None
    assert "no earlier run" in first["incremental"]["reason"]
    for at, (before, night) in enumerate(zip(nights.results, later, strict=False), 1):
        found = night["incremental"]
        assert found["base"] == before["run_id"] == night["base"]["base"]
        assert night["nights"] == at
        assert all(0 < share < 0.03 for share in found["changed"].values())
        assert night["published"] and night["version"] == at


def test_a_repeat_publishes_nothing_and_a_report_says_what_was_taken_over(
    nights: Nights, cli: CommandLine, tmp_path: Path
) -> None:
    demo = copied(nights.demo, tmp_path / "demo")
    day, last = nights.days[2], nights.results[2]
    again = cli.published(demo, day)
    assert not again["published"] and again["run_id"] == last["run_id"] and again["version"] == last["version"]
    report = json.loads((demo / "runs" / last["run_id"] / "report.json").read_text())
    assert nights.results[1]["run_id"] in json.dumps(report)


@pytest.mark.slow
def test_a_night_killed_at_any_stage_ends_with_the_same_bytes(
    tomorrow: Nights, cli: CommandLine, tmp_path: Path
) -> None:
    day, other = tomorrow.days[-1], copied(tomorrow.demo, tmp_path / "other")
    whole = cli.published(tomorrow.demo, day)
    for stage in ("affinity-text", "rectify"):
        assert cli.rectify(other, day, death=Death("os.rename", rf"/\.tmp-{stage}-")).code < 0
    resumed = cli.published(other, day)
    assert resumed["run_id"] == whole["run_id"] and resumed["nights"] == 3
    assert rows_of(table_uri(other), day).equals(rows_of(table_uri(tomorrow.demo), day))


def test_what_makes_a_night_cold_is_said(nights: Nights) -> None:
    config = RunConfig.from_toml(nights.demo / "run.toml")
    last = nights.results[-1]
    source, shaping, store = Ref(**last["stages"]["source"]), config.shaping, config.run.store

    def why(given: IncrementalConfig, day: str = nights.days[-1], parts: dict[str, Any] = shaping) -> str:
        found, reason = find_previous_run(
            config.run, config.publish.uri, date.fromisoformat(day), source, parts, given, store
        )
        assert found is None
        return reason

    usable, _ = find_previous_run(
        config.run, config.publish.uri, date.fromisoformat(nights.days[-1]), source, shaping, config.incremental, store
    )
    assert usable is not None and usable.run_id == last["run_id"]
    assert "no earlier run" in why(config.incremental, day=nights.days[0])
    assert "3 nights since the last cold run" in why(replace(config.incremental, cold_every=3))
    assert "another config" in why(config.incremental, parts=shaping | {"seed": 99})
    other_model = replace(config.source, embedding_models={"image": "encoder@2"})
    assert "another config" in why(config.incremental, parts=shaping | {"source": other_model})


def test_anchors_that_fell_behind_are_refused(nights: Nights, tmp_path: Path) -> None:
    config, now = RunConfig.from_toml(nights.demo / "run.toml"), Ref(kind="anchors", path=str(tmp_path), digest="0")
    source, day = Ref(**nights.results[-1]["stages"]["source"]), date.fromisoformat(nights.days[-1])
    last, _ = find_previous_run(
        config.run, config.publish.uri, day, source, config.shaping, config.incremental, config.run.store
    )
    assert last is not None
    then = float(last.stages["anchors"].array("recalls").max())
    for share, refused in ((0.95, False), (0.85, True)):
        np.save(tmp_path / "recalls.npy", np.array([share * then]))
        reason = recall_drop(now, last)
        assert (reason is not None) == refused
    assert reason is not None and f"held-out recall fell from {then:.4f} to" in reason and "most_fallen = 0.1" in reason


def test_a_night_that_the_gate_refuses_is_run_cold_before_it_is_reported(tomorrow: Nights, cli: CommandLine) -> None:
    with (tomorrow.demo / "run.toml").open("a") as stream:
        stream.write("\n[quality]\nwarn = []\n")
    base = cli.published(tomorrow.demo, tomorrow.days[2])
    deal_half_of(Path(base["stages"]["projection/text"]["path"]) / "projected.npy")
    found = cli.published(tomorrow.demo, tomorrow.days[-1])
    assert found["published"] and found["base"] is None and found["nights"] == 0
    assert found["incremental"] == {"base": None, "reason": "the quality gate refused the incremental night"}
    cold = cli.published(tomorrow.demo, tomorrow.days[-1], "--set", "incremental.enabled=false")
    assert cold["run_id"] == found["run_id"] and not cold["published"]


def deal_half_of(path: Path) -> None:
    """Have an earlier night's output give half of the rows to other items, as code that was wrong then would have."""
    rows = np.load(path)
    rows[::2] = np.roll(rows[::2], 1, axis=0)
    np.save(path, rows)


@pytest.mark.slow
def test_a_night_of_too_many_changes_is_cold_and_publishes_like_any_cold_one(
    tomorrow: Nights, cli: CommandLine
) -> None:
    day = next_day(cli, tomorrow.demo, "--changed", "0.3")
    found = cli.published(tomorrow.demo, day)
    assert found["incremental"]["base"] is None and "changed, most_changed" in found["incremental"]["reason"]
    cold = cli.published(tomorrow.demo, day, "--set", "incremental.enabled=false")
    assert cold["run_id"] == found["run_id"] and not cold["published"]


def test_a_chain_of_nights_stays_within_the_stated_tolerance(nights: Nights, cli: CommandLine, tmp_path: Path) -> None:
    finished = cli(
        "compare", "--config", nights.demo / "run.toml", "--as-of", nights.days[2], "--out", tmp_path / "out", "--json"
    )
    assert finished.code == 0, finished.err
    found = finished.result
    assert found["base"] == nights.results[1]["run_id"] and found["run_id"] == nights.results[2]["run_id"]
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["within"] == found["within"]
    assert all(passed for measures in found["within"].values() for passed in measures.values()), found["modalities"]
    assert "| image | cosine distance |" in (tmp_path / "out" / "comparison.md").read_text()

"""kill -9 at every step of a run: nothing partial is ever published, a rerun resumes, and it all ends in the same bytes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from tests.support.flow.cli_process import Death
from tests.support.flow.flow_support import ROOT, CommandLine, Published, days_of, rows_of, table_uri

MODALITIES = ("image", "text")
STAGES = [
    "source",
    "anchors",
    *(f"{part}-{m}" for part in ("copies", "projection") for m in MODALITIES),
    *(f"cross_modal_target-{m}" for m in MODALITIES),
    "cross_modal-text-image",
    *(f"trust-{m}" for m in MODALITIES),
    *(f"{part}-{m}" for m in MODALITIES for part in ("affinity", "sinkhorn")),
    "rectify",
]
BEGINNINGS = {"source", "anchors", "copies-image", "cross_modal-text-image", "trust-image", "rectify"}
# `make test` tries these points alone.
QUICK = (
    "anchors begins",
    "rectify is written and has no name yet",
    "a data file has no name yet",
    "the commit is written and has no name yet",
    "the commit is there and its folder not flushed",
    "the report begins",
    "the summary has no name yet",
)


class Point(NamedTuple):
    """Where a run dies, how many of ``STAGES`` are whole then, and whether the day is published."""

    name: str
    death: Death
    whole: int
    landed: bool = False


def points(day: str, version: int) -> list[Point]:
    """Every step of a run, in order; most stages at their ends alone, which are nearly the beginnings of the next."""
    found = []
    for at, stage in enumerate(STAGES):
        if stage in BEGINNINGS:
            found.append(Point(f"{stage} begins", Death("os.mkdir", rf"/\.tmp-{stage}-"), at))
        found.append(Point(f"{stage} is written and has no name yet", Death("os.rename", rf"/\.tmp-{stage}-"), at))
        if stage == "source":
            # Small inputs are read before the day begins, so that a mistake in them is refused at once.
            found.append(Point("the journal says that the day is under way", Death("os.rename", r"/days/\.tmp-"), 1))
    last, commit = len(STAGES), f"{version:020d}"
    found += [
        Point("the gate reads what is to be published", Death("open", r"/rectify-[0-9a-f]+/status-image\.npy"), last),
        Point("a data file has no name yet", Death("os.rename", r"/\.part-.*\.tmp$"), last),
        Point("the data files are there and no commit", Death("open", rf"/as_of={day}$"), last),
        Point(
            "the commit is written and has no name yet",
            Death("os.link", rf"/\.commit-[^/]*/_delta_log/{commit}\.json$"),
            last,
        ),
        Point(
            "the commit is there and its folder not flushed", Death("open", r"/item_features/_delta_log$"), last, True
        ),
        Point("the trend's entry has no name yet", Death("os.rename", r"/item_features-trend/.*\.tmp$"), last, True),
        Point("the quarantine is copied", Death("os.mkdir", r"/quarantine$"), last, True),
        Point("the report begins", Death("open", r"/\.tmp-report\.json"), last, True),
        Point("the report's page has no name yet", Death("os.rename", r"/\.tmp-report\.html"), last, True),
        Point("the summary has no name yet", Death("os.rename", r"/\.tmp-summary\.json-"), last, True),
    ]
    return found


def whole_stages(demo: Path, before: set[str]) -> dict[str, int]:
    """The stage outputs that are whole and were not there before: kind -> inode of the manifest, which tells one writing from another."""
    folders = [x for x in (demo / "runs" / "stages").iterdir() if not x.name.startswith(".") and x.name not in before]
    return {x.name.rsplit("-", 1)[0]: (x / "manifest.json").stat().st_ino for x in folders}


def leftovers(demo: Path) -> list[Path]:
    """What writers that died left among the stage outputs and in the table."""
    return [
        *(demo / "runs" / "stages").glob(".tmp-*"),
        *Path(table_uri(demo)).rglob("*.tmp"),
        *Path(table_uri(demo)).rglob("*#*"),
        *Path(table_uri(demo)).glob(".commit-*"),
    ]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "every"])
def test_a_run_killed_at_every_step_ends_in_the_bytes_of_one_that_never_was(
    published: Published, cli: CommandLine, tmp_path: Path, every: bool
) -> None:
    demo, uri = published.demo, table_uri(published.demo)
    day, earlier = published.tomorrow, published.days
    clean = Path(shutil.copytree(demo, tmp_path / "never-killed"))
    before = {x.name for x in (demo / "runs" / "stages").iterdir()}
    shown = {x: rows_of(uri, x) for x in earlier}
    seen: dict[str, int] = {}
    tried = [x for x in points(day, 3) if every or x.name in QUICK]
    assert len(tried) >= len(QUICK)
    for point in tried:
        finished = cli.rectify(demo, day, death=point.death)
        assert finished.code == -signal.SIGKILL, f"{point.name}: {finished.err}"
        assert days_of(uri) == ([*earlier, day] if point.landed else earlier), point.name
        assert DeltaTable(uri).version() == (3 if point.landed else 2), point.name
        found = whole_stages(demo, before)
        assert sorted(found) == sorted(STAGES[: point.whole]), point.name
        assert found.items() >= seen.items(), f"{point.name}: a whole output was written again"
        seen = found
    assert {x.name.split("-")[0] for x in leftovers(demo)} == {".part", ".commit"}

    result = cli.published(demo, day, "--set", "publish.vacuum_after_hours=0.0")
    assert leftovers(demo) == []
    assert whole_stages(demo, before) == seen
    assert not result["published"]
    timings = json.loads(Path(result["report"]).with_suffix(".json").read_text())["timings"]
    assert [x["stage"] for x in timings if not x["reused"]] == []
    assert {x["stage"].replace("/", "-") for x in timings} == {*STAGES}

    # The copy's summaries name the stages of the original, and its source is read anew: nothing of the chain is reused there.
    wanted = cli.published(clean, day)
    assert wanted["published"]
    assert (wanted["run_id"], wanted["rows"], wanted["modalities"]) == (
        result["run_id"],
        result["rows"],
        result["modalities"],
    )
    assert rows_of(uri, day).equals(rows_of(table_uri(clean), day))
    assert file_bytes(uri, day) == file_bytes(table_uri(clean), day)
    assert {name: x["digest"] for name, x in wanted["stages"].items()} == {
        name: x["digest"] for name, x in result["stages"].items()
    }
    for x in earlier:
        assert rows_of(uri, x).equals(shown[x])
    assert DeltaTable(uri).version() == 3


def file_bytes(uri: str, day: str) -> dict[str, bytes]:
    """The files of one day, temporary ones too."""
    return {x.name: x.read_bytes() for x in sorted((Path(uri) / f"as_of={day}").iterdir())}


NAMED = r"/days/\.tmp-|/item_features/as_of=[^/]*/\.part-|/item_features-trend/|/\d{8}-[0-9a-f]{12}/\.tmp-"


@pytest.mark.slow
def test_a_run_killed_before_every_name_that_it_gives_outside_its_stages(
    published: Published, cli: CommandLine
) -> None:
    uri, day = table_uri(published.demo), published.days[2]
    for number in itertools.count(1):
        # Another config is another run of the day, which reuses all but its last stage.
        sets = ("--set", f"rectify.keep_original={0.6 + number / 1000:.3f}")
        before = rows_of(uri, day)
        killed = cli.rectify(published.demo, day, *sets, death=Death("os.rename", NAMED, number))
        if killed.code == 0:
            break
        assert killed.code == -signal.SIGKILL, killed.err
        seen = rows_of(uri, day)
        result = cli.published(published.demo, day, *sets)
        assert seen.equals(before) or seen.equals(rows_of(uri, day)), number
        assert set(rows_of(uri, day)["run_id"].to_pylist()) == {result["run_id"]}
        assert DeltaTable(uri).version() == 2 + number
        journal = json.loads((published.demo / "runs" / "days" / f"{day}.json").read_text())
        assert (journal["state"], journal["run_id"], journal["version"]) == ("done", result["run_id"], 2 + number)
        assert (Path(f"{uri}-trend") / f"{day}.json").exists()
        assert (published.demo / "runs" / result["run_id"] / "summary.json").exists()
    assert number > 12


@pytest.mark.slow
def test_a_whole_interpreter_killed_from_outside(demo: Path, cli: CommandLine, one_day: Published) -> None:
    day = one_day.days[0]
    config = ("--config", str(demo / "run.toml"))
    command = [sys.executable, "-m", "flows", "rectify", *config, "--as-of", day, "--verbose"]
    environment = {**os.environ, **cli.environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for said in process.stderr:
            if "anchors: loss" in said:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert days_of(table_uri(demo)) == []
    result = cli.published(demo, day)
    assert result["run_id"] == one_day.results[0]["run_id"]
    assert rows_of(table_uri(demo), day).equals(rows_of(table_uri(one_day.demo), day))
    assert leftovers(demo) == []


@pytest.mark.parametrize(
    "broken", [*(pytest.param(x, marks=pytest.mark.slow) for x in ("gone", "manifest")), "truncated"]
)
def test_an_output_that_is_not_whole_is_built_again(published: Published, cli: CommandLine, broken: str) -> None:
    day, uri = published.days[2], table_uri(published.demo)
    before: pa.Table = rows_of(uri, day)
    # A new config of the last stage only: all others would be reused.
    sets = ("--set", "rectify.keep_original=0.61")
    stages = published.demo / "runs" / "stages"
    plan = stages / Path(published.results[2]["stages"]["sinkhorn/text"]["path"]).name
    other = stages / Path(published.results[2]["stages"]["sinkhorn/image"]["path"]).name
    inode = (other / "manifest.json").stat().st_ino
    name = "manifest.json" if broken == "manifest" else "weights.npy"
    if broken == "gone":
        (plan / name).unlink()
    else:
        os.truncate(plan / name, (plan / name).stat().st_size // 2)
    result = cli.published(published.demo, day, *sets)
    reused = {
        x["stage"]: x["reused"] for x in json.loads(Path(result["report"]).with_suffix(".json").read_text())["timings"]
    }
    # The command reads the source before the run begins.
    assert [stage for stage, found in reused.items() if not found] == ["rectify", "sinkhorn/text"]
    assert (other / "manifest.json").stat().st_ino == inode
    assert result["stages"]["sinkhorn/text"]["digest"] == published.results[2]["stages"]["sinkhorn/text"]["digest"]
    assert not rows_of(uri, day).equals(before)

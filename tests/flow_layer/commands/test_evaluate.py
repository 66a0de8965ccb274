"""``python -m flows evaluate`` as a process: a grid from end to end, killed and resumed, with a cell that fails, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from tests.support.flow.flow_support import PATIENCE, CommandLine, Finished

GRID = """
[evaluation]
backbones = ["lightgcn", "vbpr"]
seeds = 1
workers = 1

[evaluation.corruption]
shares = [0.0, 0.4]

[evaluation.variants.anchors_appended]

[evaluation.training.lightgcn]
epochs = 2

[evaluation.training.vbpr]
epochs = 2
"""
CELLS = 1 + 2 * 3
KEPT = ("results.parquet", "per_user.parquet")


class Evaluated(NamedTuple):
    """A demo whose grid was evaluated, and what the command said."""

    demo: Path
    found: dict[str, Any]

    @property
    def out(self) -> Path:
        """The folder of the results."""
        return Path(self.found["results"]).parent


def evaluate(cli: CommandLine, demo: Path, *more: str) -> Finished:
    return cli("evaluate", "--config", demo / "run.toml", "--json", *more)


def with_grid(demo: Path) -> Path:
    with (demo / "run.toml").open("a") as stream:
        stream.write(GRID)
    return demo


@pytest.fixture(scope="module")
def evaluated(tiny_demo: Path, cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """A grid that was evaluated in one go."""
    demo = with_grid(Path(shutil.copytree(tiny_demo, tmp_path_factory.mktemp("evaluated") / "demo")))
    finished = evaluate(cli, demo)
    assert finished.code == 0, finished.err
    return Evaluated(demo, finished.result)


def cells_of(demo: Path) -> set[str]:
    """The cells that lie whole among the stage outputs."""
    stages = demo / "runs" / "evaluation" / "stages"
    return (
        {x.name for x in stages.glob("evaluation-cell-*") if (x / "manifest.json").exists()}
        if stages.exists()
        else set()
    )


def children(parent: int) -> set[int]:
    """The processes that this one started and that still run."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, above = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(above) == parent and state != "Z":
            found.add(int(stat.parent.name))
    return found


def test_a_grid_ends_in_tables_a_summary_and_a_report(evaluated: Evaluated) -> None:
    found = evaluated.found
    assert (found["cells"], found["reused"], found["failed"]) == (CELLS, 0, 0)
    assert found["results"] == str(evaluated.demo / "runs" / "evaluation" / "results.parquet")
    assert Path(found["report"]).read_text().startswith("<!")
    rows = pq.read_table(found["results"]).to_pylist()
    assert len(rows) == len({row["cell"] for row in rows}) == CELLS
    assert {row["backbone"] for row in rows} == {"lightgcn", "vbpr"}
    assert {(row["kind"], row["damaged"], row["share"]) for row in rows} == {
        ("none", "none", 0.0),
        ("swap", "all", 0.4),
    }
    assert {row["variant"] for row in rows if row["backbone"] == "vbpr"} == {"raw", "rectified", "anchors_appended"}
    assert all(0 <= row["recall@20"] <= 1 and row["epochs"] == 2 for row in rows)
    users = pq.read_table(evaluated.out / "per_user.parquet").to_pylist()
    for row in rows[:3]:
        own = [x["recall@20"] for x in users if x["cell"] == row["cell"]]
        assert sum(own) / len(own) == pytest.approx(row["recall@20"], abs=1e-6)
    summary = json.loads((evaluated.out / "summary.json").read_text())
    assert (summary["cells"], summary["failures"]) == (CELLS, [])
    assert summary["config"]["evaluation"]["training"]["vbpr"] == {"epochs": 2}


def test_a_repeat_uses_every_cell_again_and_gives_the_same_bytes(
    evaluated: Evaluated, cli: CommandLine, tmp_path: Path
) -> None:
    finished = evaluate(cli, evaluated.demo, "--out", str(tmp_path / "again"))
    assert finished.code == 0, finished.err
    assert (finished.result["cells"], finished.result["reused"]) == (CELLS, CELLS)
    assert finished.result["results"] == str(tmp_path / "again" / "results.parquet")
    for name in KEPT:
        assert (tmp_path / "again" / name).read_bytes() == (evaluated.out / name).read_bytes()


def test_a_smaller_grid_by_options(evaluated: Evaluated, cli: CommandLine, tmp_path: Path) -> None:
    options = (
        "--backbones",
        "vbpr",
        "--corruption",
        "0.4",
        "--seeds",
        "1",
        "--modality",
        "all",
        "--out",
        str(tmp_path / "small"),
    )
    finished = evaluate(cli, evaluated.demo, *options)
    assert finished.code == 0, finished.err
    assert (finished.result["cells"], finished.result["reused"]) == (3, 3)


def test_killed_anywhere_it_leaves_nobody_behind_and_a_rerun_ends_in_the_same_bytes(
    evaluated: Evaluated, cli: CommandLine, demo: Path
) -> None:
    running = cli.start("evaluate", "--config", with_grid(demo) / "run.toml", "--json")
    process = running.process.pid
    assert process is not None
    end = time.monotonic() + PATIENCE
    while len(cells_of(demo)) < 2 and time.monotonic() < end:
        time.sleep(0.005)
    workers = children(process)
    assert workers
    running.process.kill()
    running.wait()
    while any(Path(f"/proc/{x}").exists() for x in workers) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [x for x in workers if Path(f"/proc/{x}").exists()]
    there = cells_of(demo)
    assert 2 <= len(there) < CELLS
    assert not (demo / "runs" / "evaluation" / "results.parquet").exists()
    written = {x: os.stat(demo / "runs" / "evaluation" / "stages" / x / "manifest.json").st_ino for x in there}

    finished = evaluate(cli, demo)
    assert finished.code == 0, finished.err
    assert (finished.result["cells"], finished.result["reused"]) == (CELLS, len(there))
    assert written == {x: os.stat(demo / "runs" / "evaluation" / "stages" / x / "manifest.json").st_ino for x in there}
    assert not list((demo / "runs" / "evaluation" / "stages").glob(".tmp-*"))
    for name in KEPT:
        assert (demo / "runs" / "evaluation" / name).read_bytes() == (evaluated.out / name).read_bytes()


def test_a_cell_that_fails_is_named_and_the_others_go_on(
    evaluated: Evaluated, cli: CommandLine, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sets = ("--set", "evaluation.training.vbpr.learning_rate=1e30", "--corruption", "0", "--out", str(out))
    finished = evaluate(cli, evaluated.demo, *sets)
    assert finished.code == 1
    assert finished.error.startswith("error: 3 of 4 cells failed, the first: vbpr, raw, seed 7: ")
    assert "learning_rate" in finished.error
    found = finished.result
    assert (found["cells"], found["reused"], found["failed"]) == (4, 1, 3)
    assert [row["cell"] for row in pq.read_table(out / "results.parquet").to_pylist()] == ["lightgcn, raw, seed 7"]
    failures = json.loads((out / "summary.json").read_text())["failures"]
    assert [x["cell"] for x in failures] == [
        "vbpr, raw, seed 7",
        "vbpr, rectified, seed 7",
        "vbpr, anchors_appended, seed 7",
    ]
    assert Path(found["report"]).exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--backbones", "gpt"), "evaluation.backbones: 'gpt' is not one of lightgcn"),
        (("--backbones", ","), "--backbones: backbones: wanted at least 1"),
        (("--modality", "audio"), "evaluation.corruption.modalities: 'audio' is not one of all, image, text"),
        (("--corruption", "0,lots"), "--corruption 0,lots: wanted shares such as 0,0.2,0.4"),
        (("--corruption", "1.5"), "--corruption: shares.0: wanted at most 1, got 1.5"),
        (("--seeds", "0"), "--seeds: seeds: wanted at least 1, got 0"),
        (("--set", "evaluation.corruption.kinds=['melt']"), "evaluation.corruption.kinds"),
        (("--set", "evaluation.sed=3"), "evaluation.sed: unknown key"),
        (("--as-of", "yesterday"), "--as-of yesterday: wanted a day as YYYY-MM-DD"),
    ],
)
def test_what_is_refused_ends_in_one_line(
    evaluated: Evaluated, cli: CommandLine, options: tuple[str, ...], said: str
) -> None:
    finished = evaluate(cli, evaluated.demo, *options)
    assert finished.code == 2
    assert said in finished.error


def test_the_evaluation_is_no_part_of_a_nights_identity_but_for_its_shadow(demo: Path) -> None:
    from flows.config.run_config import RunConfig

    plain = RunConfig.from_toml(demo / "run.toml").shaping
    assert RunConfig.from_toml(with_grid(demo) / "run.toml").shaping == plain
    assert RunConfig.from_toml(demo / "run.toml", ["evaluation.shadow=vbpr"]).shaping != plain


def test_a_relative_out_is_relative_to_the_config(demo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from flows.config.run_config import RunConfig

    monkeypatch.chdir(tmp_path)
    assert RunConfig.from_toml(demo / "run.toml", ["evaluation.out=proof"]).evaluation.out == str(demo / "proof")

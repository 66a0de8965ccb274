"""``catalog-rectifier evaluate``: a whole grid, killed and resumed, with a cell that fails, and wrong options."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from flows.config.run_config import RunConfig
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
    """A demo whose grid was evaluated, and the command's result."""

    demo: Path
    result: dict[str, Any]

    @property
    def out(self) -> Path:
        """The folder of the results."""
        return Path(self.result["results"]).parent


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
    """The finished cells among the stage outputs."""
    stages = demo / "runs" / "evaluation" / "stages"
    return {x.parent.name for x in stages.glob("evaluation-cell-*/manifest.json")}


def children(parent: int) -> set[int]:
    """The running child processes of a process."""
    running = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, above = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(above) == parent and state != "Z":
            running.add(int(stat.parent.name))
    return running


def test_a_grid_ends_in_tables_a_summary_and_a_report(evaluated: Evaluated) -> None:
    result = evaluated.result
    assert (result["cells"], result["reused"], result["failed"]) == (CELLS, 0, 0)
    assert result["results"] == str(evaluated.demo / "runs" / "evaluation" / "results.parquet")
    assert Path(result["report"]).read_text().startswith("<!")
    rows = pq.read_table(result["results"]).to_pylist()
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
    searches = json.loads((evaluated.out / "searches.json").read_text())
    assert [(x["backbone"], x["seeds"], len(x["candidates"])) for x in searches] == [
        *(("lightgcn", [7], 20), ("vbpr", [7], 20))
    ]
    assert [x["chosen"] for x in result["searches"]] == [x["chosen"] for x in searches]
    assert json.loads(Path(result["report"]).with_suffix(".json").read_text())["searches"] == searches
    summary = json.loads((evaluated.out / "summary.json").read_text())
    assert (summary["cells"], summary["failures"]) == (CELLS, [])
    assert summary["config"]["evaluation"]["training"]["vbpr"] == {"epochs": 2}


def test_a_repeat_reuses_every_cell_and_writes_the_same_bytes(
    evaluated: Evaluated, cli: CommandLine, tmp_path: Path
) -> None:
    finished = evaluate(cli, evaluated.demo, "--out", str(tmp_path / "again"))
    assert finished.code == 0, finished.err
    assert (finished.result["cells"], finished.result["reused"]) == (CELLS, CELLS)
    assert finished.result["results"] == str(tmp_path / "again" / "results.parquet")
    for name in KEPT:
        assert (tmp_path / "again" / name).read_bytes() == (evaluated.out / name).read_bytes()


def test_options_choose_a_smaller_grid(evaluated: Evaluated, cli: CommandLine, tmp_path: Path) -> None:
    options = ("--backbones", "vbpr", "--corruption", "0.4", "--seeds", "1", "--modality", "all")
    finished = evaluate(cli, evaluated.demo, *options, "--out", str(tmp_path / "small"))
    assert finished.code == 0, finished.err
    # LightGCN comes along as the reference.
    assert (finished.result["cells"], finished.result["reused"]) == (4, 4)


@pytest.mark.slow
def test_after_a_kill_no_worker_runs_and_a_rerun_finishes_with_the_same_bytes(
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
    done, folder = cells_of(demo), demo / "runs" / "evaluation"
    assert 2 <= len(done) < CELLS
    assert not (folder / "results.parquet").exists()
    written = {x: os.stat(folder / "stages" / x / "manifest.json").st_ino for x in done}

    finished = evaluate(cli, demo)
    assert finished.code == 0, finished.err
    assert (finished.result["cells"], finished.result["reused"]) == (CELLS, len(done))
    assert written == {x: os.stat(folder / "stages" / x / "manifest.json").st_ino for x in done}
    assert not list((folder / "stages").glob(".tmp-*"))
    for name in KEPT:
        assert (folder / name).read_bytes() == (evaluated.out / name).read_bytes()


def test_a_cell_that_fails_is_named_and_the_others_go_on(
    evaluated: Evaluated, cli: CommandLine, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sets = ("--set", "evaluation.training.vbpr.learning_rate=1e30", "--corruption", "0", "--out", str(out))
    finished = evaluate(cli, evaluated.demo, *sets)
    assert finished.code == 1
    assert finished.error.startswith("error: 3 of 4 cells failed, the first: vbpr, raw, seed 7: ")
    assert "learning_rate" in finished.error
    result = finished.result
    assert (result["cells"], result["reused"], result["failed"]) == (4, 1, 3)
    assert [row["cell"] for row in pq.read_table(out / "results.parquet").to_pylist()] == ["lightgcn, raw, seed 7"]
    failures = json.loads((out / "summary.json").read_text())["failures"]
    assert [x["cell"] for x in failures] == [f"vbpr, {x}, seed 7" for x in ("raw", "rectified", "anchors_appended")]
    assert Path(result["report"]).exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--backbones", "gpt"), "evaluation.backbones: 'gpt' is not one of lightgcn"),
        (("--backbones", ","), "--backbones: wanted at least 1 of them"),
        (("--modality", "audio"), "evaluation.corruption.modalities: 'audio' is not one of all, image, text"),
        (("--corruption", "0,lots"), "--corruption 0,lots: wanted shares such as 0,0.2,0.4"),
        (("--corruption", "1.5"), "--corruption: shares.0: wanted at most 1, got 1.5"),
        (("--seeds", "0"), "--seeds: wanted at least 1, got 0"),
        (("--set", "evaluation.corruption.kinds=['melt']"), "evaluation.corruption.kinds"),
        (("--set", "evaluation.sed=3"), "evaluation.sed: unknown key"),
        (("--as-of", "yesterday"), "--as-of yesterday: wanted a day as YYYY-MM-DD"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    evaluated: Evaluated, cli: CommandLine, options: tuple[str, ...], line: str
) -> None:
    finished = evaluate(cli, evaluated.demo, *options)
    assert finished.code == 2
    assert line in finished.error


def test_only_the_shadow_changes_the_identity_of_a_nightly_run(demo: Path) -> None:
    plain = RunConfig.from_toml(demo / "run.toml").shaping
    assert RunConfig.from_toml(with_grid(demo) / "run.toml").shaping == plain
    assert RunConfig.from_toml(demo / "run.toml", ["evaluation.shadow=vbpr"]).shaping != plain


def test_a_relative_out_is_relative_to_the_config(demo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunConfig.from_toml(demo / "run.toml", ["evaluation.out=proof"]).evaluation.out == str(demo / "proof")

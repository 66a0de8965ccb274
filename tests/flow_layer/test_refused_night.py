"""An incremental night that the quality gate refuses runs cold, and is then published or refused like any cold one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from tests.flow_layer.flow_support import CommandLine, rows_of, table_uri


def test_a_refused_incremental_night_runs_cold_and_is_published(tiny_demo: Path, cli: CommandLine, tmp_path: Path) -> None:
    demo = Path(shutil.copytree(tiny_demo, tmp_path / "demo"))
    with (demo / "run.toml").open("a") as stream:
        stream.write("\n[incremental]\nenabled = true\n")
    first = cli.published(demo, json.loads((demo / "truth" / "summary.json").read_text())["last_day"])
    day = str(cli("demo", demo, "--next-day", "--json").result["last_day"])
    # The base's outputs went bad after they were published: what nothing moved would be taken over from there.
    features = np.load(Path(first["stages"]["rectified"]["path"]) / "features-image.npy", mmap_mode="r+")
    features[:] = -features[:, ::-1]
    features.flush()
    finished = cli.rectify(demo, day)
    assert finished.code == 0, finished.err
    assert finished.err.count("image: mean cosine to the last published version: -") == finished.err.count("FAILED") == 1
    night = finished.result
    assert night["published"] and night["version"] == 1
    assert night["incremental"]["base"] is None and night["base"] is None and night["nights"] == 0
    assert night["incremental"]["reason"] == "the quality gate refused the incremental night"
    again = cli.published(demo, day)
    assert (again["published"], again["run_id"]) == (False, night["run_id"])
    cold = cli.published(demo, day, "--set", "incremental.enabled=false", "--set", f"publish.uri='{tmp_path}/cold/item_features'")
    assert cold["run_id"] == night["run_id"]
    assert rows_of(f"{tmp_path}/cold/item_features", day).equals(rows_of(table_uri(demo), day))

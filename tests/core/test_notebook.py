"""``from rectifier_core import audit, rectify``: what goes in, what comes out, and the page and the notebook of it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from rectifier_core import audit, rectify
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.config import PipelineConfig
from rectifier_core.notebook_inputs import as_ids, read_catalog, read_interactions
from rectifier_core.trust.config import TrustConfig

ROOT = Path(__file__).parents[2]
QUICK = PipelineConfig(anchors=AnchorsConfig(epochs=2, embedding_size=16), trust=TrustConfig(resamples=20))


def shop(items: int = 120, users: int = 200) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(3)
    taste = rng.normal(size=(items, 4))
    image = (taste @ rng.normal(size=(4, 8))).astype(np.float32)
    likes = rng.normal(size=(users, 4)) @ taste.T + rng.gumbel(size=(users, items))
    rows, columns = np.nonzero(likes > np.quantile(likes, 0.9, axis=1, keepdims=True))
    frame = pl.DataFrame({"item_id": [f"i{x}" for x in range(items)], "image": image.tolist(), "tags": [["a"]] * items})
    return frame, pl.DataFrame({"user_id": rows, "item_id": [f"i{x}" for x in columns]})


def test_every_kind_of_input_gives_the_same(tmp_path: Path) -> None:
    items, clicks = shop()
    image = np.array(items["image"].to_list())
    pair = (clicks["user_id"].to_list(), clicks["item_id"].to_list())
    given: list[tuple[Any, Any, dict[str, Any]]] = [
        (items, clicks, {}),
        (items.to_pandas(), clicks.to_pandas(), {}),
        ({"image": image}, pair, {"item_ids": items["item_id"].to_list()}),
        (
            {"image": image.tolist()},
            (np.array(pair[0], float), np.array(pair[1], object)),
            {"item_ids": items["item_id"].to_numpy()},
        ),
    ]
    results = [rectify(*x, config=QUICK, seed=1, **options) for *x, options in given]
    for found in results:
        assert list(found.trust) == ["image"] and found.left_out == 0
        np.testing.assert_array_equal(found.trust["image"], results[0].trust["image"])
        np.testing.assert_array_equal(found.features["image"], results[0].features["image"])
    table = results[0].to_polars()
    assert table.columns == ["item_id", "image", "image_trust", "image_status", "image_moved"]
    assert table["item_id"].to_list() == items["item_id"].to_list() and table.schema["image"] == pl.List(pl.Float32)
    found = audit(items, clicks, config=QUICK, seed=1)
    np.testing.assert_array_equal(found.trust["image"], results[0].trust["image"])
    assert found.to_polars().columns == ["item_id", "image_trust"]
    worst = found.suspects(top=5)
    assert [x.trust for x in worst] == sorted(x.trust for x in worst) and {x.modality for x in worst} <= {"image"}
    found.plot().savefig(tmp_path / "trust.png")
    assert str(found).startswith("120 items\n  image: ")


def test_what_is_absent_and_what_is_left_out() -> None:
    vectors = [[1, 2], None, [np.nan, 1.0], (0, 0), [1, 2, 3], np.array([3.0, 4.0])]
    catalog = read_catalog({"image": vectors}, None, "item_id", None)
    assert catalog.present["image"].tolist() == [True, False, False, False, False, True]
    assert not catalog.features["image"][~catalog.present["image"]].any()
    users, items = [7, None, 7, 7, 8], [0, 0, 0, 99, 5]
    log, left_out = read_interactions((users, items), catalog.item_ids, "user_id", "item_id")
    assert (log.users.tolist(), log.items.tolist(), left_out) == ([0, 1], [0, 5], 2)


def test_ids_of_any_type_keep_their_value() -> None:
    big = 2**60 + 1
    assert as_ids(pd.array([big, 2], dtype="Int64"), "x")[0].tolist() == [big, 2]
    ids, there = as_ids(np.array(["a", None, "bb"], object), "x")
    assert (ids.tolist(), there.tolist()) == (["a", "", "bb"], [True, False, True])
    frame = pl.DataFrame({"user_id": [big, None], "item_id": [0, 1]})
    assert read_interactions(frame, np.arange(2), "user_id", "item_id")[0].num_users == 1


@pytest.mark.parametrize(
    ("items", "interactions", "message"),
    [
        ({"image": np.eye(3)}, ([1], [9]), "do the ids agree"),
        ({"image": np.eye(3)}, ([1, 2], [0]), "2 users for 1 items"),
        ({"image": np.eye(3), "text": np.eye(2)}, ([1], [0]), "text: 2 vectors for 3 items"),
        ({}, ([1], [0]), "no modality"),
        (pl.DataFrame({"sku": [1]}), ([1], [0]), "no column 'item_id'; the frame has sku"),
        (pl.DataFrame({"item_id": [1, 1], "x": [[1.0], [2.0]]}), ([1], [1]), "comes twice"),
        ({"image": np.eye(3)}, ([0.5], [0]), "users: an id is a number that is not whole"),
    ],
)
def test_what_has_no_meaning_is_named(items: Any, interactions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit(items, interactions)


def test_importing_the_core_loads_nothing_heavy() -> None:
    code = "import sys; from rectifier_core import audit, rectify; assert callable(audit); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "polars", "pydantic"} & set(done.stdout.split())


def test_the_page_and_the_notebook_run(tiny_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = runpy.run_path(str(ROOT / "docs" / "build_notebook.py"))
    cells = build["cells_of"]((ROOT / "docs" / "notebook.md").read_text())
    (tmp_path / "shop").symlink_to(tiny_demo)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    outputs = [build["run"](cell, names) for cell in cells]
    assert pl.read_parquet("features.parquet")["item_id"].n_unique() == 400
    assert [x["output_type"] for x in (y for output in outputs for y in output)] == [
        "stream",
        "display_data",
        "display_data",
    ]
    kept = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
    assert ["".join(x["source"]) for x in kept["cells"][1:]] == cells, "make notebook writes it anew"
    assert kept == build["notebook"](cells, [x["outputs"] for x in kept["cells"][1:]])

"""The demo's sequence modalities: off by default, the same bytes, and exactly what the truth files say."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.demo.catalog import DemoConfig, write_demo
from tasks.demo.sequences import SEQUENCE_VIEWS, Sequences, plant_splices
from tasks.demo.world import build_world

SIZES: dict[str, Any] = {"items": 600, "users": 800, "interactions": 8000, "seed": 4, "days": 5}
CONFIG = DemoConfig(**SIZES, sequences=True, spliced=0.25, time_offset=2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "shop"
    write_demo(folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def catalog(demo: Path) -> pa.Table:
    return pq.read_table(demo / "catalog")


@pytest.fixture(scope="module")
def made() -> dict[str, Sequences]:
    taste = build_world(CONFIG).taste
    return {m: Sequences(CONFIG, m, taste) for m in SEQUENCE_VIEWS}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(x.relative_to(folder)): hashlib.sha256(x.read_bytes()).hexdigest() for x in folder.rglob("*") if x.is_file()
    }


def test_the_same_bytes_again_and_without_sequences_the_rest_is_as_it_was(demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "again", CONFIG)
    assert digests(tmp_path / "again") == digests(demo)
    write_demo(tmp_path / "plain", DemoConfig(**SIZES))
    plain, with_sequences = digests(tmp_path / "plain"), digests(demo)
    differing = {name for name in with_sequences if plain.get(name) != with_sequences[name]}
    assert differing == {"catalog/part-00000.parquet", "run.toml", "truth/summary.json", "truth/segments.parquet"}
    one, other = (pq.read_table(folder / "catalog") for folder in (tmp_path / "plain", demo))
    for name in one.column_names:
        left, right = one[name].combine_chunks(), other[name].combine_chunks()
        if name.endswith("_embedding"):
            # By bytes: the planted NaN equals nothing.
            assert left.value_lengths().equals(right.value_lengths())
            assert left.flatten().to_numpy().tobytes() == right.flatten().to_numpy().tobytes()
        else:
            assert left.equals(right)


def test_a_demo_without_sequences_leaves_no_truth_of_the_old_one(tmp_path: Path) -> None:
    write_demo(tmp_path / "shop", CONFIG)
    write_demo(tmp_path / "shop", DemoConfig(**SIZES))
    write_demo(tmp_path / "plain", DemoConfig(**SIZES))
    assert digests(tmp_path / "shop") == digests(tmp_path / "plain")


def test_the_config_lists_the_sequences(demo: Path) -> None:
    modalities = tomllib.loads((demo / "run.toml").read_text())["source"]["modalities"]
    assert modalities == {m: f"{m}_embedding" for m in ("image", "text", "video", "audio")}


def test_segments_are_those_of_their_owners(demo: Path, catalog: pa.Table, made: dict[str, Sequences]) -> None:
    truth = pq.read_table(demo / "truth" / "segments.parquet").to_pylist()
    for m, sequences in made.items():
        owners = {
            (int(x["item_id"][5:]), x["segment"]): (int(x["owner_item_id"][5:]), x["owner_segment"])
            for x in truth
            if x["modality"] == m
        }
        assert all(item != owner for (item, _), (owner, _) in owners.items())
        column = catalog[f"{m}_embedding"].combine_chunks()
        given = np.flatnonzero(np.asarray(column.is_valid())[: CONFIG.items])
        items = np.repeat(given, sequences.lengths(given))
        times = np.concatenate([np.arange(x) for x in sequences.lengths(given)])
        told = np.array([owners.get(x, x) for x in zip(items.tolist(), times.tolist(), strict=True)])
        assert (told[:, 1] < sequences.lengths(told[:, 0])).all()
        wanted = sequences.segments(told[:, 0], told[:, 1])
        found = column.slice(0, CONFIG.items).flatten()
        assert found.flatten().to_numpy().tobytes() == wanted.tobytes()


def test_counts_are_as_stated(demo: Path, catalog: pa.Table) -> None:
    stated = json.loads((demo / "truth" / "summary.json").read_text())["sequences"]
    truth = pq.read_table(demo / "truth" / "segments.parquet").to_pylist()
    assert stated["time_offset"] == {"first": "video", "second": "audio", "segments": 2}
    for m, view in SEQUENCE_VIEWS.items():
        column, own = catalog[f"{m}_embedding"].slice(0, CONFIG.items), [x for x in truth if x["modality"] == m]
        assert stated["modalities"][m] == {
            "width": view.width,
            "items_with_feature": 588,
            "missing": column.null_count,
            "segments": sum(len(x) for x in column.to_pylist() if x),
            "items_spliced": round(0.25 * 588),
            "segments_spliced": len(own),
        }
        per_item = Counter(x["item_id"] for x in own)
        assert len(per_item) == round(0.25 * 588)
        lengths = dict(zip(catalog["item_id"].to_pylist(), [len(x or []) for x in column.to_pylist()], strict=False))
        assert all(1 <= count <= max(1, 0.4 * lengths[item]) for item, count in per_item.items())


def test_both_modalities_show_one_course_the_offset_apart(made: dict[str, Sequences]) -> None:
    items = np.repeat(np.arange(400), 6)
    times = np.tile(np.arange(6), 400)
    for shift, related in ((2, True), (-2, False)):
        parts = []
        for m, later in (("video", 0), ("audio", shift)):
            rows = made[m].segments(items, times + 4 + later).reshape(400, 6, -1)
            parts.append((rows - rows.mean(axis=1, keepdims=True)).reshape(2400, -1))
        corr = np.linalg.norm(np.linalg.lstsq(parts[0][:1200], parts[1][:1200], rcond=None)[0])
        left = parts[0][1200:] @ np.linalg.lstsq(parts[0][:1200], parts[1][:1200], rcond=None)[0]
        held_out = float((left * parts[1][1200:]).sum() / np.linalg.norm(left) / np.linalg.norm(parts[1][1200:]))
        assert corr > 0
        assert (held_out > 0.15) == related


def test_no_share_is_planted_where_none_is_asked(made: dict[str, Sequences]) -> None:
    clean = DemoConfig(**SIZES, sequences=True, spliced=0.0)
    assert len(plant_splices(clean, "video", made["video"]).items) == 0


@pytest.mark.parametrize(
    ("key", "value"), [("spliced", 1.5), ("spliced", -0.1), ("time_offset", 17), ("time_offset", -17)]
)
def test_values_out_of_range_are_refused(key: str, value: float) -> None:
    given = SIZES | {key: value}
    with pytest.raises(ValueError, match=key):
        DemoConfig(**given, sequences=True)

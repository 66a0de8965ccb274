"""The affinity stage in shards: the rows of one search, and an index file that workers read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rectifier_core.affinity.affinity import find_affinity, index_features
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.index import IndexKind
from rectifier_core.base.numerics import silent
from rectifier_core.base.records import Affinity
from tasks.shards.affinity import read_index, write_affinity, write_index
from tasks.store.runner import LocalRunner, Shared
from tasks.store.saved_records import load_record
from tasks.store.store import StageStore
from tests.support.core_samples import places_of, random_units

ITEMS = 1200
CONFIG = AffinityConfig(num_neighbours=7, block_rows=50)
rng = np.random.default_rng(0)
PLACES = places_of(random_units(rng, ITEMS, 12), random_units(rng, ITEMS, 12))


@pytest.mark.parametrize("index", ["flat", "ivf"])
@pytest.mark.parametrize("shard_rows", [60, 500, 10_000])
def test_shards_find_the_rows_of_one_search(tmp_path: Path, index: IndexKind, shard_rows: int) -> None:
    config, runner = replace(CONFIG, index=index), LocalRunner(shard_rows)
    ref = StageStore(tmp_path).once(
        "affinity/image",
        (index, shard_rows),
        lambda writer: write_affinity(writer, PLACES, config, runner, seed=3, progress=silent),
    )
    found, whole = load_record(ref, Affinity), find_affinity(PLACES, config, seed=3)
    assert (found.index, found.recall) == (whole.index, whole.recall)
    np.testing.assert_array_equal(found.neighbours, whole.neighbours)
    np.testing.assert_array_equal(found.scores, whole.scores)
    np.testing.assert_array_equal(found.spare, whole.spare)


@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_an_index_read_from_its_file_finds_the_same(tmp_path: Path, index: IndexKind) -> None:
    made = index_features(PLACES, replace(CONFIG, index=index), np.arange(ITEMS), seed=3)
    assert made is not None
    write_index(tmp_path / "index.faiss", made)
    read = read_index(tmp_path / "index.faiss", made.factor, Shared(arrays={"donors": PLACES.donors}))
    assert read.name == made.name
    here, there = made.search(PLACES.items[:50], 7), read.search(PLACES.items[:50], 7)
    assert [part.tobytes() for part in here] == [part.tobytes() for part in there]

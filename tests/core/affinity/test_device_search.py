"""Search on a torch device against brute force and against FAISS. Without CUDA the device is the CPU, by torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.affinity import device_search
from rectifier_core.affinity.affinity import find_affinity
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.device_search import DeviceRows
from rectifier_core.affinity.index import EXTRA
from tests.support.core_samples import places_of, random_units

DEVICE = "cuda" if torch.cuda.is_available() else "cpu:0"


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 300),
    count=st.integers(1, 30),
    columns=st.sampled_from([7, 64, 2**15]),
    free=st.sampled_from([2**30, 2**8]),
)
@settings(max_examples=30, deadline=None)
def test_the_candidates_are_the_best_of_the_named_rows(
    seed: int, rows: int, count: int, columns: int, free: int
) -> None:
    """Small blocks, and little free memory, with which the vectors stay on the host."""
    rng = np.random.default_rng(seed)
    vectors, queries = random_units(rng, 2 * rows, 8), random_units(rng, 9, 8)
    some = np.sort(rng.choice(2 * rows, rows, replace=False))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(device_search, "MOST_COLUMNS", columns)
        patched.setattr(device_search, "free_memory", lambda device: free)
        found = DeviceRows(vectors, some, DEVICE).candidates(queries, count)
    best = some[np.argsort(-(queries @ vectors[some].T), axis=1)[:, : count + EXTRA]]
    assert np.sort(found).tolist() == np.sort(best).tolist()


@pytest.mark.parametrize("threads", [1, 3])
def test_neighbours_are_those_of_the_cpu(threads: int, tmp_path: object) -> None:
    rng = np.random.default_rng(3)
    np.save(f"{tmp_path}/projected.npy", random_units(rng, 900, 16))
    projected, target = np.load(f"{tmp_path}/projected.npy", mmap_mode="r"), random_units(rng, 900, 16)
    target[::13] = 0
    places, config = places_of(projected, target), AffinityConfig(num_neighbours=30, block_rows=100)
    here = find_affinity(places, config, seed=0)
    there = find_affinity(places, config, seed=0, threads=threads, device=DEVICE)
    assert (there.index, there.recall) == ("flat", 1.0)
    assert there.scores.tobytes() == here.scores.tobytes()
    assert there.neighbours.tobytes() == here.neighbours.tobytes()


def test_an_inverted_file_stays_on_the_cpu_and_no_feature_is_no_error() -> None:
    rng = np.random.default_rng(4)
    places, config = (
        places_of(random_units(rng, 2000, 8), random_units(rng, 2000, 8)),
        AffinityConfig(index="ivf"),
    )
    here, there = (find_affinity(places, config, seed=0, device=device) for device in ("cpu", DEVICE))
    assert there.index.startswith("ivf") and there.neighbours.tobytes() == here.neighbours.tobytes()
    nothing = places_of(np.zeros((5, 3), np.float32), random_units(rng, 5, 3))
    assert (find_affinity(nothing, AffinityConfig(), seed=0, device=DEVICE).neighbours == -1).all()

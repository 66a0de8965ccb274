"""Search by torch against brute force and against the kernels.

Where there is no CUDA, the device is the CPU, named so that torch's path is taken.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.affinity import device_search
from rectifier_core.affinity.affinity import find_neighbours
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.device_search import DeviceSearch
from rectifier_core.affinity.top_k import largest_products
from rectifier_core.base.arrays import Float32, Int32
from rectifier_core.base.devices import full_float32, to_device
from tests.support.core_samples import projection_of, random_units

DEVICE = "cuda" if torch.cuda.is_available() else "cpu:0"


def brute_force(vectors: Float32, queries: Float32, count: int) -> Int32:
    """Exact, for small whole numbers; ties by row."""
    found = np.full((len(queries), count), -1, np.int32)
    order = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :count]
    found[:, : order.shape[1]] = order
    return found


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 700),
    queries=st.integers(1, 20),
    count=st.integers(1, 30),
    columns=st.sampled_from([64, 128, 2**17]),
)
@settings(max_examples=60, deadline=None)
def test_equals_brute_force_ties_and_all(seed: int, rows: int, queries: int, count: int, columns: int) -> None:
    """Whole numbers are multiplied without rounding, and most of the scores are tied, many at zero."""
    rng = np.random.default_rng(seed)
    vectors, asked = (rng.integers(-1, 2, (n, 3)).astype(np.float32) for n in (rows, queries))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(device_search, "MOST_COLUMNS", columns)
        found = DeviceSearch(vectors, np.arange(rows), DEVICE)(asked, count)
    assert found.tolist() == brute_force(vectors, asked, count).tolist()


def test_minus_zero_is_zero() -> None:
    vectors = np.array([[-0.0], [0.0], [-1.0], [0.0]], np.float32)
    found = DeviceSearch(vectors, np.arange(4), DEVICE)(np.ones((1, 1), np.float32), 4)
    assert found.tolist() == [[0, 1, 3, 2]]


@pytest.mark.parametrize("columns", [64, 192, 2**17])
@pytest.mark.parametrize("free", [2**30, 2**14])
def test_only_the_named_rows_are_found_wherever_they_are_held(
    columns: int, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little free memory the vectors stay on the host, and blocks are small."""
    monkeypatch.setattr(device_search, "MOST_COLUMNS", columns)
    monkeypatch.setattr(device_search, "free_memory", lambda device: free)
    rng = np.random.default_rng(0)
    vectors, asked = random_units(rng, 1000, 16), random_units(rng, 40, 16)
    items = np.flatnonzero(rng.random(1000) < 0.7)
    found = DeviceSearch(vectors, items, DEVICE)(asked, 20)
    assert (found == items[largest_products(vectors[items], asked, 20)[0]]).all()


def test_a_memory_map_is_searched(tmp_path: object) -> None:
    rng = np.random.default_rng(1)
    np.save(f"{tmp_path}/vectors.npy", random_units(rng, 300, 8))
    mapped, asked = np.load(f"{tmp_path}/vectors.npy", mmap_mode="r"), random_units(rng, 10, 8)
    assert (
        DeviceSearch(mapped, np.arange(300), DEVICE)(asked, 5) == largest_products(np.array(mapped), asked, 5)[0]
    ).all()
    assert to_device(mapped, "cpu").sum().item() == pytest.approx(float(mapped.sum()), abs=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_neighbours_are_those_of_the_kernels(threads: int) -> None:
    """Candidates are scored by the kernels in the end, so that even the scores' bits agree; half the catalog is one placeholder."""
    rng = np.random.default_rng(3)
    projected, target = random_units(rng, 900, 16), random_units(rng, 900, 16)
    projected[rng.random(900) < 0.5] = projected[0]
    projected[::17], target[::13] = 0, 0
    projection, config = projection_of(projected, target), AffinityConfig(num_neighbours=30, block_rows=100)
    here = find_neighbours(projection, config, seed=0)
    there = find_neighbours(projection, config, seed=0, threads=threads, device=DEVICE)
    assert (there.index, there.recall) == ("flat", 1.0)
    assert there.scores.tobytes() == here.scores.tobytes()
    assert (there.neighbours == here.neighbours).mean() > 0.999


def test_lists_stay_on_the_cpu_and_a_catalog_without_features_is_no_error() -> None:
    rng = np.random.default_rng(4)
    projection = projection_of(random_units(rng, 2000, 8), random_units(rng, 2000, 8))
    config = AffinityConfig(index="ivf")
    here, there = (find_neighbours(projection, config, seed=0, device=device) for device in ("cpu", DEVICE))
    assert there.index.startswith("ivf") and there.neighbours.tobytes() == here.neighbours.tobytes()
    nothing = projection_of(np.zeros((5, 3), np.float32), random_units(rng, 5, 3))
    assert (find_neighbours(nothing, AffinityConfig(), seed=0, device=DEVICE).neighbours == -1).all()


def test_tf32_is_off_while_it_matters_and_as_it_was_afterwards() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    with full_float32():
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision(before)

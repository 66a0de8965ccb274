from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.store.mapped import _ROOM, Mapped, create_mapped, open_mapped, use_room

STREAM = """
import sys
from pathlib import Path
import numpy as np
from tasks.store.mapped import create_mapped, open_mapped

def resident(name):
    line = next(x for x in open("/proc/self/status") if x.startswith(name))
    return int(line.split()[1]) << 10

path, rows = Path(sys.argv[1]), 150_000
before = resident("VmHWM")
out = create_mapped(path, (rows, 512), np.float32)
for start in range(0, rows, 1000):
    out[start : start + 1000] = start
out.flush()
del out
read, total, rng = open_mapped(path), 0.0, np.random.default_rng(0)
for start in range(0, rows, 1000):
    total += float(read[start : start + 1000, 0].sum()) + float(read[rng.integers(rows, size=1000)].min())
print(resident("VmHWM") - before)
"""


def test_streaming_a_file_leaves_little_of_it_resident(tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    said = subprocess.run([sys.executable, "-c", STREAM, str(path)], capture_output=True, text=True, check=True)
    assert path.stat().st_size > 290 << 20
    assert int(said.stdout) < 160 << 20
    assert np.array_equal(np.load(path, mmap_mode="r")[::1000, 7], np.arange(0, 150_000, 1000))


@pytest.fixture
def rows(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    values = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    np.save(tmp_path / "rows.npy", values)
    return values, open_mapped(tmp_path / "rows.npy")


@pytest.mark.parametrize(
    "index",
    [slice(3, 9), np.array([4, 4, 0]), 7, (slice(None), 2), (5, 1), slice(0, 0), np.array([], int), np.zeros(50, bool)],
)
def test_what_is_taken_is_in_memory_and_equal(rows: tuple[np.ndarray, np.ndarray], index: object) -> None:
    values, mapped = rows
    taken = mapped[index]
    assert not isinstance(taken, Mapped)
    assert np.array_equal(taken, values[index])


def test_what_is_computed_is_no_map(rows: tuple[np.ndarray, np.ndarray]) -> None:
    values, mapped = rows
    for found, wanted in (
        (mapped * 2, values * 2),
        (mapped.any(axis=1), values.any(axis=1)),
        (mapped @ values.T, values @ values.T),
    ):
        assert not isinstance(found, Mapped)
        assert np.array_equal(found, wanted)
    assert isinstance(mapped.sum(), np.float32)


def test_a_map_that_is_read_cannot_be_written(rows: tuple[np.ndarray, np.ndarray]) -> None:
    for index in (0, slice(0, 3)):
        with pytest.raises(ValueError, match="read-only"):
            rows[1][index] = 1.0
    assert np.array_equal(rows[0], rows[1])


def test_a_run_is_written_as_numpy_would(tmp_path: Path) -> None:
    out, wanted = create_mapped(tmp_path / "out.npy", (10, 4), np.float32), np.zeros((10, 4), np.float32)
    for index, value in (
        (slice(0, 3), 7),
        (slice(2, 5), np.arange(4)),
        (slice(-2, None), np.ones((2, 8), np.int64)[:, ::2]),
        (slice(4, 4), 1),
    ):
        out[index] = wanted[index] = value
    assert np.array_equal(out, wanted) and np.array_equal(np.load(tmp_path / "out.npy"), wanted)
    with pytest.raises(ValueError, match="broadcast"):
        out[0:2] = np.zeros((3, 4))
    out[1:9:2] = wanted[1:9:2] = -1
    assert np.array_equal(open_mapped(tmp_path / "out.npy")[0:10], wanted)


def test_what_is_written_through_a_view_or_before_letting_go_is_kept(tmp_path: Path) -> None:
    out = create_mapped(tmp_path / "out.npy", (10, 4), np.float32)
    out[2:4] = 1.0
    out[np.array([7, 9])] = 2.0
    out.let_go()
    out[4:6][np.array([1])] = 3.0
    out.flush()
    wanted = np.zeros((10, 4), np.float32)
    wanted[2:4], wanted[[7, 9]], wanted[5] = 1, 2, 3
    assert np.array_equal(open_mapped(tmp_path / "out.npy"), wanted)


def test_a_file_without_rows_is_an_empty_array(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.zeros((0, 4), np.float32))
    assert open_mapped(tmp_path / "none.npy").shape == (0, 4)


@given(rows=st.lists(st.integers(-50, 49), max_size=30))
@settings(max_examples=30, deadline=None)
def test_rows_of_a_file_larger_than_the_room_are_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int]
) -> None:
    path, chosen = tmp_path_factory.getbasetemp() / "rows.npy", np.array(rows, np.int64)
    values = np.random.default_rng(1).normal(size=(50, 40_000)).astype(np.float32)
    if not path.exists():
        np.save(path, values)
    before = _ROOM.size
    try:
        use_room(0)
        large = open_mapped(path)
        assert large.nbytes > _ROOM.size // 2
        assert np.array_equal(large[chosen], values[chosen])
        assert np.array_equal(large.T[np.array([3, 1])], values.T[[3, 1]])
        with pytest.raises(IndexError):
            large[np.array([50])]
    finally:
        use_room(before)

"""Stage outputs on disk: built once, whole or not there, and told apart by what they are made of."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.errors import InputError, StorageError
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref, StageStore, StageWriter, plain, stage_key

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Config:
    size: int = 3
    share: float = 0.5


class Kind(Enum):
    ONE = "the first"


def build_rows(writer: StageWriter) -> None:
    """Two arrays and a scalar."""
    writer.array("rows", np.arange(12, dtype=np.float32).reshape(4, 3))
    mapped = writer.memmap("mapped", (2, 2), np.int32)
    mapped[:] = 7
    mapped.flush()
    writer.meta({"count": 4})


def never(writer: StageWriter) -> None:
    raise AssertionError("built although it was there")


def names(store: StageStore) -> list[str]:
    """The folders in a store."""
    return sorted(x.name for x in store.root.iterdir() if x.is_dir())


def test_an_output_is_built_once_and_found_after_that(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "a" / "stages")
    built = store.once("source", (Config(), 1), build_rows)
    found = store.once("source", (Config(), 1), never)
    assert (built.reused, found.reused) == (False, True)
    assert built == found
    assert found.meta == {"count": 4}
    np.testing.assert_array_equal(found.array("rows"), np.arange(12, dtype=np.float32).reshape(4, 3))
    np.testing.assert_array_equal(found.array("mapped"), np.full((2, 2), 7, np.int32))
    assert names(store) == [Path(built.path).name]
    assert Path(built.path).name.startswith("source-")


@pytest.mark.parametrize(
    "other",
    [
        ("rows", (Config(), 1)),
        ("source", (Config(size=4), 1)),
        ("source", (Config(), 2)),
        ("source", (Config(),)),
        ("source", (1, Config())),
    ],
)
def test_another_kind_config_or_input_is_another_output(tmp_path: Path, other: tuple[str, tuple[Any, ...]]) -> None:
    store = StageStore(tmp_path)
    built = store.once("source", (Config(), 1), build_rows)
    assert not store.once(*other, build_rows).reused
    assert store.once("source", (Config(), 1), never).path == built.path
    assert len(names(store)) == 2


def test_a_digest_is_the_contents_wherever_and_whenever_they_were_written(tmp_path: Path) -> None:
    here, there = StageStore(tmp_path / "here"), StageStore(tmp_path / "there")
    one, other = here.once("source", ("a",), build_rows), there.once("source", ("b",), build_rows)
    assert one.digest == other.digest

    def another_scalar(writer: StageWriter) -> None:
        build_rows(writer)
        writer.meta({"count": 5})

    def another_file(writer: StageWriter) -> None:
        build_rows(writer)
        writer.array("more", np.zeros(0))

    others = [here.once("source", (build.__name__,), build).digest for build in (another_scalar, another_file)]
    assert len({one.digest, *others}) == 3


def test_a_reference_counts_in_a_key_by_its_digest_alone(tmp_path: Path) -> None:
    ref = Ref(kind="source", path="/here", digest="d1")
    same = Ref(kind="other", path="/there", digest="d1", seconds=3.0, reused=True)
    refs, sames = (ModalityRefs(features=x, copies=x, projection=x, affinity=x, plan=x, trust=x) for x in (ref, same))
    assert stage_key("rectified", (ref, {"image": refs})) == stage_key("rectified", (same, {"image": sames}))
    other = replace(refs, trust=replace(ref, digest="d2"))
    assert stage_key("rectified", (ref, {"image": refs})) != stage_key("rectified", (ref, {"image": other}))
    assert stage_key("rectified", (ref, {"image": refs})) != stage_key("rectified", (ref, {"text": refs}))
    assert ref == replace(ref, seconds=3.0, reused=True)


def test_keys_do_not_depend_on_the_process_or_on_the_order_of_a_mapping() -> None:
    code = "from tasks.store.store import stage_key; print(stage_key('k', ({'b': 1, 'a': 2.5}, (1, None))))"
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert told == stage_key("k", ({"a": 2.5, "b": 1}, [1, None]))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (Config(), {"size": 3, "share": 0.5}),
        (Kind.ONE, "ONE"),
        ({1: (2, [3])}, {"1": [2, [3]]}),
        (float("nan"), None),
        (float("-inf"), None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (Path("/a"), "/a"),
        (None, None),
    ],
)
def test_plain_values(value: Any, wanted: Any) -> None:
    found = plain(value)
    assert found == wanted
    assert type(found) is type(wanted)
    json.dumps(found, allow_nan=False)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a file is shorter": lambda folder: os.truncate(folder / "rows.npy", 130),
    "a file is empty": lambda folder: os.truncate(folder / "mapped.npy", 0),
    "a file is longer": lambda folder: (folder / "meta.json").open("a").write(" "),
    "a file is gone": lambda folder: (folder / "rows.npy").unlink(),
    "the manifest is gone": lambda folder: (folder / "manifest.json").unlink(),
    "the manifest is half there": lambda folder: os.truncate(folder / "manifest.json", 40),
    "the manifest is something else": lambda folder: (folder / "manifest.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_whole_is_built_again(tmp_path: Path, damage: str) -> None:
    store = StageStore(tmp_path)
    built = store.once("source", (), build_rows)
    DAMAGE[damage](Path(built.path))
    again = store.once("source", (), build_rows)
    assert not again.reused
    assert again == built
    assert again.array("rows").shape == (4, 3)
    assert store.once("source", (), never).reused


@pytest.mark.parametrize("error", [ValueError("a bug"), InputError("bad input"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    store = StageStore(tmp_path)

    def fail(writer: StageWriter) -> None:
        build_rows(writer)
        raise error

    with pytest.raises(type(error)):
        store.once("source", (), fail)
    assert names(store) == []
    assert not store.once("source", (), build_rows).reused


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StorageError, match=rf"^stage source: writing {tmp_path}/file/.* failed: Not a directory; free or fix the disk"
    ):
        StageStore(tmp_path / "file" / "stages").once("source", (), build_rows)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes in the block, as on a disk with no more room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("how", ["array", "memmap"])
def test_no_room_is_an_error_and_not_a_dead_process(tmp_path: Path, how: str) -> None:
    store = StageStore(tmp_path)

    def build(writer: StageWriter) -> None:
        if how == "array":
            writer.array("rows", np.ones(100_000))
        else:
            writer.memmap("rows", (100_000,), np.float64)[:] = 1

    with (
        largest_file(64 * 1024),
        pytest.raises(StorageError, match=r"^stage source: writing .* failed: .*; free or fix the disk") as caught,
    ):
        store.once("source", (), build)
    assert "\n" not in str(caught.value)
    assert names(store) == []
    assert store.once("source", (), build).array("rows").sum() == 100_000


BUILD = """
import sys, time
from pathlib import Path
import numpy as np
from tasks.store.store import StageStore

def build(writer):
    for number in range(20):
        writer.array(f"rows-{number}", np.full((200, 50), number, np.float32))
    writer.meta({"count": 20})
    print("written", flush=True)
    if sys.argv[2] == "wait":
        time.sleep(300)

print("ready", flush=True)
sys.stdin.readline()
ref = StageStore(Path(sys.argv[1])).once("source", ("key",), build)
print(ref.digest, ref.array("rows-19")[0, 0], flush=True)
"""


def builder(root: Path, how: str) -> subprocess.Popen[str]:
    """A process that builds an output once it is told to."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(root), how],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_processes_that_build_the_same_at_once_all_get_it_whole(tmp_path: Path) -> None:
    processes = [builder(tmp_path, "go") for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [x.communicate(timeout=60)[0].splitlines()[-1] for x in processes]
    assert [x.returncode for x in processes] == [0, 0, 0]
    assert len(set(said)) == 1
    assert said[0].endswith(" 19.0")
    assert len(names(StageStore(tmp_path))) == 1


def test_the_sweep_spares_a_writer_at_work_and_drops_what_a_dead_one_left(tmp_path: Path) -> None:
    store, process = StageStore(tmp_path), builder(tmp_path, "wait")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "written\n"
    assert [x.startswith(".tmp-source-") for x in names(store)] == [True]
    assert store.sweep(keep_seconds=3600) == 0
    assert len(names(store)) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert store.sweep(keep_seconds=3600) == 1
    assert names(store) == []


def test_the_sweep_drops_what_no_run_used_for_long(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "stages")
    assert store.sweep(keep_seconds=0) == 0
    old, used, new = (store.once("source", (x,), build_rows) for x in ("old", "used", "new"))
    for ref in (old, used):
        os.utime(ref.path, (time.time() - 1000,) * 2)
    assert store.once("source", ("used",), never).reused
    assert store.sweep(keep_seconds=500) == 1
    assert names(store) == sorted(Path(x.path).name for x in (used, new))
    assert not store.once("source", ("old",), build_rows).reused


def test_the_sweep_waits_while_another_run_uses_the_store(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    kept, dropped = (store.once("source", (x,), build_rows) for x in ("kept", "dropped"))
    with store.in_use():
        assert store.sweep(keep_seconds=0) == 0
    assert store.sweep(keep_seconds=0, keep={kept.path}) == 1
    assert names(store) == [Path(kept.path).name]
    assert not Path(dropped.path).exists()

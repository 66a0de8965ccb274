"""Peak memory: of a block, of the blocks around it, of a stage, and none for mapped files."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tasks.store.peak_memory import INTERVAL, peak_memory_bytes, watch_memory
from tasks.store.store import StageStore, StageWriter

LARGE = 200 << 20


def fill() -> None:
    large = np.ones(LARGE, np.uint8)
    time.sleep(10 * INTERVAL)
    del large


def test_a_peak_is_that_of_its_block_and_of_the_blocks_around_it() -> None:
    with watch_memory() as outer:
        with watch_memory() as large:
            fill()
        with watch_memory() as small:
            pass
    assert large.size - small.size > LARGE // 2
    assert peak_memory_bytes() >= outer.size >= large.size


def test_mapped_files_do_not_count(tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.ones(LARGE, np.uint8))
    with watch_memory() as before:
        pass
    with watch_memory() as mapped:
        assert np.load(tmp_path / "large.npy", mmap_mode="r").min() == 1
    assert mapped.size - before.size < LARGE // 4


def test_a_stage_states_its_peak_and_a_reused_one_has_none(tmp_path: Path) -> None:
    def build(writer: StageWriter) -> None:
        fill()
        writer.meta({})

    built = StageStore(tmp_path).once("large", (), build)
    assert built.peak_memory > LARGE
    found = StageStore(tmp_path).once("large", (), build)
    assert found.peak_memory == 0 and found == built

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.store.peak_memory import CLEAR, peak_memory_bytes, watch_memory
from tasks.store.store import StageStore, StageWriter

LARGE = 200 << 20
CAN_CLEAR = pytest.mark.skipif(not CLEAR.exists(), reason="this kernel keeps one high-water mark for good")


def fill() -> None:
    np.ones(LARGE, np.uint8)


@CAN_CLEAR
def test_a_peak_is_its_own_blocks_and_the_whole_keeps_the_highest() -> None:
    with watch_memory() as large:
        fill()
    with watch_memory() as small:
        pass
    assert large.size - small.size > LARGE // 2
    assert peak_memory_bytes() >= large.size


@CAN_CLEAR
def test_a_peak_holds_those_inside_it() -> None:
    with watch_memory() as outer:
        with watch_memory() as inner:
            fill()
        with watch_memory() as after:
            pass
    assert outer.size >= inner.size > after.size


@CAN_CLEAR
def test_a_stage_says_what_it_held_and_one_found_says_nothing(tmp_path: Path) -> None:
    def build(writer: StageWriter) -> None:
        fill()
        writer.meta({})

    built = StageStore(tmp_path).once("large", (), build)
    assert built.peak_memory > LARGE
    found = StageStore(tmp_path).once("large", (), build)
    assert found.peak_memory == 0 and found == built

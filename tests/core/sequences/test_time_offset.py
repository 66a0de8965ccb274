"""Time offset: a planted lag is recovered, and none is returned where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rectifier_core.base.arrays import Float32, Int64
from rectifier_core.base.sequence_records import NO_LAG, TimeOffset
from rectifier_core.sequences.config import TimeOffsetConfig
from rectifier_core.sequences.time_offset import Track, recover_time_offset
from tests.support.core_samples import normals

CONFIG = TimeOffsetConfig(max_lag=5, sample=4000, resamples=50)


def tracks(
    seed: int, lag: int = 2, *, items: int = 250, shared: float = 1.0, gaps: float = 0.0, moved: int | None = None
) -> tuple[Track, Track]:
    """Two sequences of the same items: each its item's look, a time course of white noise seen ``lag`` later in the second, and noise.

    ``gaps`` is the share of segments left out; ``moved`` is the lag of the last quarter of the items instead.
    """
    rng = np.random.default_rng(seed)
    maps, looks = [normals(rng, 4, width) for width in (12, 9)], [normals(rng, items, width) for width in (12, 9)]
    parts: list[list[Float32]] = [[], []]
    times: list[list[Int64]] = [[], []]
    for item in range(items):
        course, own = normals(rng, 60, 4), lag if moved is None or item < 0.75 * items else moved
        for side, width in enumerate((12, 9)):
            count = int(rng.integers(6, 16))
            seen = shared * course[20 - side * own + np.arange(count)] @ maps[side]
            kept = rng.random(count) >= gaps
            parts[side].append((seen + 0.7 * normals(rng, count, width) + looks[side][item])[kept])
            times[side].append(np.flatnonzero(kept))
    found = []
    for side, name in enumerate(("video", "audio")):
        counts = [len(x) for x in parts[side]]
        found.append(
            Track(
                modality=name,
                segments=np.concatenate(parts[side]).astype(np.float32),
                offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                positions=np.concatenate(times[side]).astype(np.int32),
                trusted=np.ones(sum(counts), np.bool_),
            )
        )
    return found[0], found[1]


def recover(
    seed: int, config: TimeOffsetConfig = CONFIG, *, lag: int = 2, shared: float = 1.0, moved: int | None = None
) -> TimeOffset:
    first, second = tracks(seed, lag, shared=shared, moved=moved)
    return recover_time_offset(first, second, config, seed=seed)


@pytest.mark.parametrize(("seed", "lag"), [(0, 0), (1, 3), (2, -4), (3, 1)])
def test_the_planted_lag_is_recovered(seed: int, lag: int) -> None:
    found = recover(seed, lag=lag)
    assert (found.lag, found.identifiable, found.support) == (lag, True, 1.0)
    assert found.lags[found.correlation.argmax()] == lag
    assert found.correlation.max() > 0.3 > found.null_correlation.max()
    known = found.item_lags != NO_LAG
    assert known.mean() > 0.5
    assert (found.item_lags[known] == lag).mean() > 0.95


@pytest.mark.parametrize("seed", range(4))
def test_no_common_time_course_is_said(seed: int) -> None:
    found = recover(seed, shared=0.0)
    assert (found.lag, found.identifiable) == (None, False)
    assert "no common time course" in found.reason
    assert (found.item_lags == NO_LAG).all()


def test_what_items_share_outside_of_time_is_no_time_course() -> None:
    first, second = tracks(0, shared=0.0)
    item = np.repeat(np.arange(250), np.diff(second.offsets))
    look = normals(np.random.default_rng(9), 250, 9)
    louder = replace(second, segments=(second.segments + 5 * look[item]).astype(np.float32))
    assert not recover_time_offset(first, louder, CONFIG, seed=0).identifiable


def test_gaps_do_not_shift_the_rest() -> None:
    first, second = tracks(4, 2, gaps=0.3)
    assert recover_time_offset(first, second, CONFIG, seed=4).lag == 2
    counts = np.diff(first.offsets)
    closed = replace(
        first, positions=(np.arange(len(first.positions)) - np.repeat(first.offsets[:-1], counts)).astype(np.int32)
    )
    right, wrong = (recover_time_offset(x, second, CONFIG, seed=4).correlation.max() for x in (first, closed))
    assert right > 1.2 * wrong


def test_a_lag_at_the_end_of_the_range_is_not_named() -> None:
    found = recover(0, replace(CONFIG, max_lag=3), lag=3)
    assert (found.lag, found.identifiable) == (None, False)
    assert "raise max_lag = 3" in found.reason


def test_a_course_that_looks_alike_at_every_lag_names_none() -> None:
    rng, first_and_second = np.random.default_rng(3), []
    phase = rng.uniform(0, 2 * np.pi, 250)
    for track, width in zip(tracks(3, 0), (12, 9), strict=True):
        item = np.repeat(np.arange(250), np.diff(track.offsets))
        # Going round a circle at a steady pace: a lag is a rotation, which the map between the modalities undoes.
        angle = phase[item] + 2 * np.pi / 3 * track.positions
        seen = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ normals(rng, 2, width) + 0.5 * normals(
            rng, len(item), width
        )
        first_and_second.append(replace(track, segments=seen.astype(np.float32)))
    found = recover_time_offset(first_and_second[0], first_and_second[1], CONFIG, seed=3)
    assert (found.lag, found.identifiable) == (None, False)
    assert np.sort(found.correlation)[-3:].min() > 0.2


def test_items_with_another_lag_get_it() -> None:
    found = recover(5, lag=2, moved=-1)
    assert found.lag == 2
    known = found.item_lags != NO_LAG
    late = np.arange(250) >= 0.75 * 250
    assert (found.item_lags[known & late] == -1).mean() > 0.8
    assert (found.item_lags[known & ~late] == 2).mean() > 0.95


def test_segments_that_are_not_trusted_are_not_looked_at() -> None:
    first, second = tracks(6, 2)
    bad = np.random.default_rng(0).random(len(first.segments)) < 0.3
    spoilt = replace(first, segments=np.where(bad[:, None], np.float32(np.nan), first.segments), trusted=~bad)
    assert recover_time_offset(spoilt, second, CONFIG, seed=6).lag == 2


def test_block_size_and_repetition_do_not_matter() -> None:
    first, second = tracks(0, 2)
    whole, again, cut = (
        recover_time_offset(first, second, replace(CONFIG, block_rows=rows), seed=0) for rows in (8192, 8192, 7)
    )
    assert whole.correlation.tobytes() == again.correlation.tobytes()
    np.testing.assert_allclose(cut.correlation, whole.correlation, atol=1e-4)
    assert cut.lag == whole.lag


def test_too_few_items_and_tracks_of_other_items() -> None:
    first, second = tracks(0, items=40)
    assert "only 40 items" in recover_time_offset(first, second, CONFIG, seed=0).reason
    with pytest.raises(ValueError, match="same items"):
        recover_time_offset(first, tracks(0, items=41)[1], CONFIG, seed=0)
    with pytest.raises(ValueError, match="one value a segment"):
        replace(first, positions=first.positions[1:])

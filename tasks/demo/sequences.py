"""The demo's sequence modalities: each item as a video and a sound track see it, segment by segment, and whose segments were spliced in.

Both show one time course per item beside the item's taste, and the sound shows it ``time_offset`` segments later than the video. A segment
is a pure function of (seed, modality, item, time), so a spliced one is bit for bit what its owner carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import row_blocks
from tasks.demo.config import SEQUENCES, DemoConfig
from tasks.demo.counter_random import bits, normals, on_grid, shuffled, stream, uniforms
from tasks.demo.world import BLOCK_ROWS, ITEM_TASTE_LENGTH, TASTE_SIZE

SEQUENCE_TYPE: Final = pa.list_(pa.list_(pa.float32()))
LEAST_SEGMENTS: Final = 6
MOST_SEGMENTS: Final = 18

_COURSE_SIZE = 6
_COURSE_MEMORY = 0.6  # how much of one moment is still there in the next
_MAP_DEVIATION = 0.25
_MOMENTS = 4096  # room for the times of one item among the counters of a stream
_MISSING_SHARE = 0.02
_LONGEST_SPLICE = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceView:
    """One sequence modality's way of seeing; each strength is a deviation per dimension, where an item's own taste offset has about 0.14.

    ``blur`` (per item) and ``flicker`` (per segment) hide taste; ``course`` is the time course; ``looks`` factors of strength ``look`` are
    the item's own and have nothing to do with taste, ``grain`` is noise per coordinate and segment. ``rectified`` clips below zero, as a
    ReLU does. ``norm`` is the typical length of a segment.
    """

    width: int
    blur: float
    flicker: float
    course: float
    looks: int
    look: float
    grain: float
    rectified: bool
    norm: float


SEQUENCE_VIEWS: Final = {
    "video": SequenceView(
        width=64, blur=0.3, flicker=0.35, course=0.35, looks=8, look=0.2, grain=0.8, rectified=True, norm=12.0
    ),
    "audio": SequenceView(
        width=48, blur=0.2, flicker=0.4, course=0.4, looks=6, look=0.15, grain=0.6, rectified=False, norm=1.0
    ),
}


class Sequences:
    """Makes segments of one modality on demand. Holds the modality's map; ``taste`` [I, 16] is shared, not copied."""

    def __init__(self, config: DemoConfig, modality: str, taste: Float32) -> None:
        """Draw the map of ``modality``, one of ``SEQUENCE_VIEWS``."""
        self._view, self._taste, seed = SEQUENCE_VIEWS[modality], taste, config.seed
        self._delay = config.time_offset if modality == "audio" else 0
        self._course = stream(seed, "course")
        self._keys = {
            name: stream(seed, modality, name) for name in ("length", "blur", "flicker", "look", "grain", "map")
        }
        columns = np.arange(TASTE_SIZE + _COURSE_SIZE + self._view.looks)
        self._map = on_grid(normals(self._keys["map"], columns, self._view.width) * np.float32(_MAP_DEVIATION))

    def lengths(self, items: Int64) -> Int64:
        """How many segments each item has, [N] int64."""
        spread = np.uint64(MOST_SEGMENTS - LEAST_SEGMENTS + 1)
        return LEAST_SEGMENTS + (bits(self._keys["length"], items) % spread).astype(np.int64)

    def segments(self, items: Int64, times: Int64) -> Float32:
        """The segment of ``items`` [N] at ``times`` [N] -> [N, width] float32."""
        made = np.empty((len(items), self._view.width), np.float32)
        for block in row_blocks(len(items), BLOCK_ROWS):
            made[block] = self._see(items[block], times[block])
        return made

    def _see(self, items: Int64, times: Int64) -> Float32:
        view, keys, moments = self._view, self._keys, items * _MOMENTS + times
        taste = self._taste[items] + np.float32(view.blur) * normals(keys["blur"], items, TASTE_SIZE)
        taste += np.float32(view.flicker) * normals(keys["flicker"], moments, TASTE_SIZE)
        course = np.float32(view.course) * self._time_course(moments - self._delay)
        look = np.float32(view.look) * normals(keys["look"], items, view.looks)
        # On the grid the product is exact, so it cannot depend on the block; see demo_random.on_grid.
        seen = on_grid(np.concatenate([taste, course, look], axis=1)) @ self._map
        seen += np.float32(view.grain * _MAP_DEVIATION) * normals(keys["grain"], moments, view.width)
        if view.rectified:
            np.maximum(seen, 0, out=seen)
        seen *= np.float32(view.norm / self._usual_norm())
        return seen

    def _time_course(self, moments: Int64) -> Float32:
        # Moments before an item's first are the stream's under the item before it: they are drawn apart by this shift.
        now = moments + _MOMENTS // 2
        fresh, before = normals(self._course, now, _COURSE_SIZE), normals(self._course, now - 1, _COURSE_SIZE)
        course: Float32 = (fresh + np.float32(_COURSE_MEMORY) * before) * np.float32((1 + _COURSE_MEMORY**2) ** -0.5)
        return course

    def _usual_norm(self) -> float:
        view = self._view
        length = ITEM_TASTE_LENGTH**2 + TASTE_SIZE * (view.blur**2 + view.flicker**2)
        length += _COURSE_SIZE * view.course**2 + view.looks * view.look**2
        energy = length * _MAP_DEVIATION**2 + (view.grain * _MAP_DEVIATION) ** 2
        return float((view.width * energy * (0.5 if view.rectified else 1.0)) ** 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splices:
    """Runs of segments that belong to another item: segment ``first[k] <= t < stop[k]`` of ``items[k]`` is ``owners[k]``'s segment t.

    ``items`` ascend and are distinct; ``present`` [I] says which items have the modality at all. Where t is beyond the owner's end its
    sequence starts over.
    """

    items: Int64
    owners: Int64
    first: Int64
    stop: Int64
    present: Bool


def plant_splices(config: DemoConfig, modality: str, sequences: Sequences) -> Splices:
    """Draw who has the modality and whose segments were spliced into whose: every count exactly as the config states."""
    order = shuffled(stream(config.seed, "missing", modality), config.items)
    present = np.ones(config.items, np.bool_)
    present[order[: round(_MISSING_SHARE * config.items)]] = False
    having = order[present[order]]
    chosen = having[: round(config.spliced * len(having))]
    owners = np.roll(chosen, 1)
    chosen, owners = chosen[np.argsort(chosen)], owners[np.argsort(chosen)]
    lengths = sequences.lengths(chosen)
    longest = np.maximum(1, (_LONGEST_SPLICE * lengths).astype(np.int64))
    run = 1 + np.minimum(
        (uniforms(stream(config.seed, "splice", modality), chosen) * longest).astype(np.int64), longest - 1
    )
    first = (uniforms(stream(config.seed, "splice-start", modality), chosen) * (lengths - run + 1)).astype(np.int64)
    return Splices(items=chosen, owners=owners, first=first, stop=first + run, present=present)


def sequence_column(rows: Int64, sequences: Sequences, splices: Splices) -> pa.Array:
    """The catalog column of these items: a list of segments each, null where the item lacks the modality."""
    present = splices.present[rows]
    lengths = np.where(present, sequences.lengths(rows), 0)
    places = np.repeat(np.arange(len(rows)), lengths)
    starts = np.cumsum(lengths) - lengths
    owner, time = rows[places], np.arange(len(places)) - starts[places]
    at = np.minimum(np.searchsorted(splices.items, owner), max(0, len(splices.items) - 1))
    if len(splices.items):
        foreign = (splices.items[at] == owner) & (splices.first[at] <= time) & (time < splices.stop[at])
        owner = np.where(foreign, splices.owners[at], owner)
        time = np.where(foreign, time % sequences.lengths(owner), time)
    made = sequences.segments(owner, time)
    inner = pa.ListArray.from_arrays(
        pa.array(np.arange(len(made) + 1, dtype=np.int32) * made.shape[1]), pa.array(made.ravel())
    )
    outer = pa.array(np.concatenate([starts, [len(made)]]).astype(np.int32))
    return pa.ListArray.from_arrays(outer, inner, mask=pa.array(~present))


def write_segment_truth(
    folder: Path, splices: Mapping[str, Splices], names: pa.Array, sequences: Mapping[str, Sequences]
) -> None:
    """Write ``segments.parquet``: item_id, modality, segment, owner_item_id, owner_segment; ``names`` are the item ids in order."""
    parts = []
    for modality, found in splices.items():
        run = found.stop - found.first
        at = np.repeat(np.arange(len(run)), run)
        time = found.first[at] + np.arange(len(at)) - (np.cumsum(run) - run)[at]
        owners = found.owners[at]
        parts.append(
            pa.table(
                {
                    "item_id": names.take(pa.array(found.items[at])),
                    "modality": pa.repeat(modality, len(at)),
                    "segment": time.astype(np.int32),
                    "owner_item_id": names.take(pa.array(owners)),
                    "owner_segment": (time % sequences[modality].lengths(owners)).astype(np.int32),
                }
            )
        )
    pq.write_table(pa.concat_tables(parts), folder / "segments.parquet")


def sequence_summary(
    config: DemoConfig, splices: Mapping[str, Splices], sequences: Mapping[str, Sequences]
) -> dict[str, Any]:
    """What was planted, counted, as it stands in ``summary.json``."""
    modalities = {}
    for m in SEQUENCES:
        having = np.flatnonzero(splices[m].present)
        modalities[m] = {
            "width": SEQUENCE_VIEWS[m].width,
            "items_with_feature": len(having),
            "missing": config.items - len(having),
            "segments": int(sequences[m].lengths(having).sum()),
            "items_spliced": len(splices[m].items),
            "segments_spliced": int((splices[m].stop - splices[m].first).sum()),
        }
    return {
        "time_offset": {"first": "video", "second": "audio", "segments": config.time_offset},
        "modalities": modalities,
    }

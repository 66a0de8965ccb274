"""The demo's features: text shows an item's taste plainly, images through a nonlinear map with much unrelated detail.

Video and audio are sequences: one vector a moment. Both show the time course of the item, and the audio shows it ``time_offset`` moments
later than the video. A vector depends only on (seed, modality, item, moment), so a swapped feature equals the owner's bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from rectifier_core.base.arrays import Float32, Int64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.seeding import derive_seed
from tasks.demo.config import LARGEST_OFFSET, SEQUENCES, DemoConfig
from tasks.demo.world import ITEM_TASTE_LENGTH, TASTE_SIZE

MOST_MOMENTS: Final = 18

_COURSE_SIZE = 6
_COURSE_MEMORY = 0.6  # the weight of the previous moment in the next one
_MAP_DEVIATION = 0.25
_BLOCK_ITEMS = 2048
_GRID = np.float32(256.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a modality shows an item. Strengths are standard deviations per dimension; an item's own taste offset has about 0.14.

    ``blur`` (per item) and ``flicker`` (per moment) hide taste. ``course`` scales the time course. ``nuisances`` factors of strength
    ``nuisance`` belong to the item and not to its taste. ``grain`` is noise per coordinate. ``clipped`` sets negative values to zero, as
    a ReLU does. ``norm`` is the typical length of a vector, ``gain`` the relative deviation of that length.
    """

    blur: float
    nuisances: int
    nuisance: float
    grain: float
    clipped: bool
    norm: float
    gain: float = 0.0
    flicker: float = 0.0
    course: float = 0.0
    moments: int = 1


VIEWS: Final = {
    "image": View(blur=0.42, nuisances=24, nuisance=0.5, grain=0.6, clipped=True, norm=18.0, gain=0.2),
    "text": View(blur=0.15, nuisances=12, nuisance=0.2, grain=0.3, clipped=False, norm=1.0),
    "video": View(
        blur=0.3, flicker=0.35, course=0.35, nuisances=8, nuisance=0.2, grain=0.8, clipped=True, norm=12.0,
        moments=MOST_MOMENTS,
    ),
    "audio": View(
        blur=0.2, flicker=0.4, course=0.4, nuisances=6, nuisance=0.15, grain=0.6, clipped=False, norm=1.0,
        moments=MOST_MOMENTS,
    ),
}  # fmt: skip


class Features:
    """Makes the features of one modality for any items. Shares ``taste`` [I, 16], does not copy it."""

    def __init__(self, config: DemoConfig, modality: str, taste: Float32) -> None:
        """Draw the map from what the modality shows to vectors of the modality's width."""
        self.view, self._taste = VIEWS[modality], taste
        self.width = SEQUENCES[modality] if modality in SEQUENCES else config.widths[modality]
        self._key, self._course_key = (derive_seed(config.seed, "demo", name) for name in (modality, "course"))
        self._delay = config.time_offset if modality == "audio" else 0
        rng = np.random.default_rng(derive_seed(config.seed, "demo", modality, "map"))
        shape = (TASTE_SIZE + _COURSE_SIZE + self.view.nuisances, self.width)
        self._map = _on_grid(_MAP_DEVIATION * rng.standard_normal(shape, dtype=np.float32))

    def rows(self, items: Int64, takes: Int64 | None = None) -> Float32:
        """Features of ``items`` [N] -> [N, width]; ``takes`` [N] numbers the picture taken of each, 0 the first."""
        takes = np.zeros(len(items), np.int64) if takes is None else takes
        return self.moments(items, self._taste[items], takes)[:, 0]

    def segments(self, items: Int64, moments: Int64) -> Float32:
        """The segments of ``items`` [N] at ``moments`` [N] -> [N, width]."""
        distinct, places = np.unique(items, return_inverse=True)
        made = self.moments(distinct, self._taste[distinct], np.zeros(len(distinct), np.int64))
        segments: Float32 = made[places, moments]
        return segments

    def placeholder(self) -> Float32:
        """A feature that belongs to no item, [width]."""
        nobody, zero = np.array([len(self._taste)]), np.zeros(1, np.int64)
        vector: Float32 = self.moments(nobody, np.zeros((1, TASTE_SIZE), np.float32), zero)[0, 0]
        return vector

    def moments(self, items: Int64, taste: Float32, takes: Int64) -> Float32:
        """Every moment of ``items`` [N] whose tastes are ``taste`` [N, 16] -> [N, moments, width]."""
        made = np.empty((len(items), self.view.moments, self.width), np.float32)
        for block in row_blocks(len(items), _BLOCK_ITEMS):
            made[block] = self._block(items[block], taste[block], takes[block])
        return made

    def _block(self, items: Int64, taste: Float32, takes: Int64) -> Float32:
        view, count, moments = self.view, len(items), self.view.moments
        sizes = (1, TASTE_SIZE, view.nuisances, moments * TASTE_SIZE, moments * self.width)
        draws = _item_normals(self._key, items, takes, sum(sizes))
        gain, blur, nuisance, flicker, grain = np.split(draws, np.cumsum(sizes)[:-1], axis=1)
        shown = np.empty((count, moments, len(self._map)), np.float32)
        shown[:, :, :TASTE_SIZE] = (taste + view.blur * blur)[:, None]
        shown[:, :, :TASTE_SIZE] += view.flicker * flicker.reshape(count, moments, TASTE_SIZE)
        shown[:, :, TASTE_SIZE : -view.nuisances] = view.course * self._time_course(items) if view.course else 0
        shown[:, :, -view.nuisances :] = view.nuisance * nuisance[:, None]
        vectors = _on_grid(shown) @ self._map
        vectors += view.grain * _MAP_DEVIATION * grain.reshape(vectors.shape)
        if view.clipped:
            np.maximum(vectors, 0, out=vectors)
        vectors *= ((1 + view.gain * gain) * (view.norm / self._usual_norm()))[:, None]
        return vectors

    def _time_course(self, items: Int64) -> Float32:
        """The course of each item as this modality shows it, [N, moments, 6]: a moving average of order 1."""
        length = self.view.moments + 2 * LARGEST_OFFSET + 1
        fresh = _item_normals(self._course_key, items, np.zeros(len(items), np.int64), length * _COURSE_SIZE)
        fresh = fresh.reshape(len(items), length, _COURSE_SIZE)
        course = (fresh[:, 1:] + _COURSE_MEMORY * fresh[:, :-1]) / (1 + _COURSE_MEMORY**2) ** 0.5
        start = LARGEST_OFFSET - self._delay
        shown: Float32 = course[:, start : start + self.view.moments]
        return shown

    def _usual_norm(self) -> float:
        view = self.view
        energy = ITEM_TASTE_LENGTH**2 + TASTE_SIZE * (view.blur**2 + view.flicker**2)
        energy += _COURSE_SIZE * view.course**2 + view.nuisances * view.nuisance**2 + view.grain**2
        return float(_MAP_DEVIATION * (self.width * energy * (0.5 if view.clipped else 1.0)) ** 0.5)


def _item_normals(key: int, items: Int64, takes: Int64, size: int) -> Float32:
    """Normal draws [N, size] float32 in which a row depends on (key, item, take) alone: Philox counts from there."""
    bits = np.random.Philox(key=key)
    rng, state = np.random.Generator(bits), bits.state
    draws = np.empty((len(items), size), np.float32)
    for row, item, take in zip(draws, items.tolist(), takes.tolist(), strict=True):
        state["state"]["counter"][2:] = item, take
        bits.state = state
        rng.standard_normal(out=row, dtype=np.float32)
    return draws


def _on_grid(values: Float32) -> Float32:
    """Round to multiples of 1/256. Sums of products of such numbers are exact in float32 while they stay below 256.

    So a product gives the same bits whatever the block, and the features that did not change keep their bytes the next day.
    """
    rounded: Float32 = np.rint(values * _GRID) / _GRID
    return rounded

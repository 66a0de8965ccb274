"""How the demo's modalities see an item: text plainly, images through a nonlinear map and more that has nothing to do with taste.

A vector is a pure function of (seed, modality, item), bit for bit, in whatever block it is computed, so a swapped feature is exactly
what its owner would have carried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from rectifier_core.base.arrays import Float32, Int64
from rectifier_core.base.numerics import row_blocks
from tasks.demo.counter_random import normals, on_grid, stream
from tasks.demo.world import BLOCK_ROWS, ITEM_TASTE_LENGTH, TASTE_SIZE

_MAP_DEVIATION = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One modality's way of seeing.

    ``blur`` is noise on each taste dimension, where an item's own offset has about 0.14: what it hides no method can find again.
    ``nuisances`` factors of strength ``nuisance`` and noise of strength ``grain`` per coordinate are mixed in. ``rectified`` clips below
    zero, as a ReLU does. ``norm`` is the typical length of a vector and ``gain`` how much it varies (relative deviation).
    """

    blur: float
    nuisances: int
    nuisance: float
    grain: float
    rectified: bool
    norm: float
    gain: float


VIEWS: Final = {
    "image": View(blur=0.42, nuisances=24, nuisance=0.5, grain=0.6, rectified=True, norm=18.0, gain=0.2),
    "text": View(blur=0.15, nuisances=12, nuisance=0.2, grain=0.3, rectified=False, norm=1.0, gain=0.0),
}


class Features:
    """Makes feature rows of one modality on demand. Holds the modality's map; ``taste`` [I, 16] is shared, not copied."""

    def __init__(self, seed: int, modality: str, width: int, taste: Float32) -> None:
        """Draw the map of ``modality``, one of ``VIEWS``, to vectors of length ``width``."""
        self._view, self._taste, self._width = VIEWS[modality], taste, width
        self._keys = {name: stream(seed, modality, name) for name in ("blur", "nuisance", "grain", "gain", "map")}
        columns = np.arange(TASTE_SIZE + self._view.nuisances)
        self._map = on_grid(normals(self._keys["map"], columns, self._width) * np.float32(_MAP_DEVIATION))

    def rows(self, items: Int64, takes: Int64 | None = None) -> Float32:
        """Features of ``items`` [N] int64 -> [N, width] float32; ``takes`` [N] int64 numbers the picture taken of each, 0 the first."""
        made = np.empty((len(items), self._width), np.float32)
        draws = items if takes is None else items + takes * (len(self._taste) + 1)
        for block in row_blocks(len(items), BLOCK_ROWS):
            made[block] = self._see(draws[block], self._taste[items[block]])
        return made

    def placeholder(self) -> Float32:
        """What stands in for a feature nobody took: one that belongs to no item. [width] float32."""
        nobody = np.array([len(self._taste)])
        vector: Float32 = self._see(nobody, np.zeros((1, TASTE_SIZE), np.float32))[0]
        return vector

    def _see(self, draws: Int64, taste: Float32) -> Float32:
        view, keys = self._view, self._keys
        blurred = taste + np.float32(view.blur) * normals(keys["blur"], draws, TASTE_SIZE)
        nuisance = np.float32(view.nuisance) * normals(keys["nuisance"], draws, view.nuisances)
        # On the grid the product is exact, so it cannot depend on the block; see demo_random.on_grid.
        seen = on_grid(np.concatenate([blurred, nuisance], axis=1)) @ self._map
        seen += np.float32(view.grain * _MAP_DEVIATION) * normals(keys["grain"], draws, self._width)
        if view.rectified:
            np.maximum(seen, 0, out=seen)
        gain = 1 + np.float32(view.gain) * normals(keys["gain"], draws, 1)
        seen *= gain * np.float32(view.norm / self._usual_norm())
        return seen

    def _usual_norm(self) -> float:
        view = self._view
        length = ITEM_TASTE_LENGTH**2 + TASTE_SIZE * view.blur**2 + view.nuisances * view.nuisance**2
        energy = length * _MAP_DEVIATION**2 + (view.grain * _MAP_DEVIATION) ** 2
        return float((self._width * energy * (0.5 if view.rectified else 1.0)) ** 0.5)

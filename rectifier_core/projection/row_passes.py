"""What a ridge fit asks of a feature matrix, as passes over its rows that may be cut into parts; a leaf of the projection stage.

A sum over rows is made part by part, ``PART_BLOCKS`` blocks each, and the parts are added in order: wherever a part was summed, the total
has the same bits. A projected row depends on its block alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rectifier_core.base.arrays import Float32, Float64, Int32, Int64
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.projection.crossfit import FoldMaps, NormalEquations, out_of_fold, project

PART_BLOCKS = 16
"""A part's Gram matrices weigh, at 8192 rows a block and five folds, at most a tenth of the rows that they stand for."""


class RowPasses(Protocol):
    """Passes over the unit rows of features [I, D]. ``rows`` int64 [R] are item indices; ``folds`` int32 [R] name each row's fold."""

    def sums(self, rows: Int64) -> Iterator[Float64]:
        """Sums of the unit rows [D], a part each, in order."""

    def moments(
        self, rows: Int64, targets: Float32, folds: Int32, origin: Float32, num_folds: int
    ) -> Iterator[NormalEquations]:
        """Sums that a fit of the rows to ``targets`` [R, A] needs, a part each, in order."""

    def out_of_fold(self, rows: Int64, folds: Int32, maps: FoldMaps) -> Float32:
        """Each row by the map of its fold, at its own length: [R, A] float32."""

    def project(self, rows: Int64, weight: Float32, feature_mean: Float32) -> Float32:
        """Each row by one map, at its own length: [R, A] float32."""


@dataclass(frozen=True, slots=True)
class HeldRows:
    """The passes over ``features`` [I, D] float32, which may be a memory map, read ``block_rows`` rows at a time in this process.

    ``device`` multiplies the rows of ``moments``.
    """

    features: Float32
    block_rows: int
    device: str = CPU

    def sums(self, rows: Int64) -> Iterator[Float64]:
        """Sums of the unit rows, part by part."""
        for part in row_blocks(len(rows), PART_BLOCKS * self.block_rows):
            yield unit_sum(self.features, rows[part], self.block_rows)

    def moments(
        self, rows: Int64, targets: Float32, folds: Int32, origin: Float32, num_folds: int
    ) -> Iterator[NormalEquations]:
        """Sums for a fit, part by part."""
        for part in row_blocks(len(rows), PART_BLOCKS * self.block_rows):
            yield moments(
                self.features, rows[part], targets[part], folds[part], origin, num_folds, self.block_rows, self.device
            )

    def out_of_fold(self, rows: Int64, folds: Int32, maps: FoldMaps) -> Float32:
        """Each row by the map of its fold."""
        return out_of_fold(self.features, rows, folds, maps, self.block_rows)

    def project(self, rows: Int64, weight: Float32, feature_mean: Float32) -> Float32:
        """Each row by one map."""
        return project(self.features, rows, weight, feature_mean, self.block_rows)


def unit_sum(features: Float32, rows: Int64, block_rows: int) -> Float64:
    """The sum of the unit rows of ``features[rows]``: [D] float64."""
    total = np.zeros(features.shape[1])
    for block in row_blocks(len(rows), block_rows):
        total += unit_rows(np.asarray(features[rows[block]])).sum(axis=0, dtype=np.float64)
    return total


def moments(
    features: Float32,
    rows: Int64,
    targets: Float32,
    folds: Int32,
    origin: Float32,
    num_folds: int,
    block_rows: int,
    device: str = CPU,
) -> NormalEquations:
    """What a fit of the unit rows of ``features[rows]`` to ``targets`` [R, A] needs to know of them."""
    sums = NormalEquations(num_folds=num_folds, origin=origin, target_width=targets.shape[1], device=device)
    for block in row_blocks(len(rows), block_rows):
        sums.add(unit_rows(np.asarray(features[rows[block]])), targets[block], folds[block])
    return sums

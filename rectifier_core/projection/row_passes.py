"""Passes over the rows of a feature matrix for a ridge fit, which can be cut into parts.

A sum over rows is computed in parts of ``PART_BLOCKS`` blocks, and the parts are added in order. So the total has the same bits wherever a
part was computed. A projected row depends on its block alone.
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
"""Blocks a part. At 8192 rows a block and five folds, the Gram matrices of a part take at most a tenth of its rows' bytes."""


class RowPasses(Protocol):
    """Passes over the unit rows of features [I, D]. ``rows`` [R] are item indices, ``folds`` [R] their folds."""

    def sums(self, rows: Int64) -> Iterator[Float64]:
        """Yield the sum of the unit rows [D] of every part, in order."""

    def moments(
        self, rows: Int64, targets: Float32, folds: Int32, origin: Float32, num_folds: int
    ) -> Iterator[NormalEquations]:
        """Yield the normal equations for ``targets`` [R, A] of every part, in order."""

    def out_of_fold(self, rows: Int64, folds: Int32, maps: FoldMaps) -> Float32:
        """Return each row projected by the map of its fold: [R, A] float32, not normalised."""

    def project(self, rows: Int64, weight: Float32, feature_mean: Float32) -> Float32:
        """Return each row projected by one map: [R, A] float32, not normalised."""


@dataclass(frozen=True, slots=True)
class HeldRows:
    """Passes in this process over ``features`` [I, D] float32, read ``block_rows`` at a time. ``device`` computes ``moments``."""

    features: Float32
    block_rows: int
    device: str = CPU

    def sums(self, rows: Int64) -> Iterator[Float64]:
        """Yield the sum of the unit rows, part by part."""
        for part in row_blocks(len(rows), PART_BLOCKS * self.block_rows):
            yield unit_sum(self.features, rows[part], self.block_rows)

    def moments(
        self, rows: Int64, targets: Float32, folds: Int32, origin: Float32, num_folds: int
    ) -> Iterator[NormalEquations]:
        """Yield the normal equations, part by part."""
        for part in row_blocks(len(rows), PART_BLOCKS * self.block_rows):
            yield moments(
                self.features, rows[part], targets[part], folds[part], origin, num_folds, self.block_rows, self.device
            )

    def out_of_fold(self, rows: Int64, folds: Int32, maps: FoldMaps) -> Float32:
        """Project each row by the map of its fold."""
        return out_of_fold(self.features, rows, folds, maps, self.block_rows)

    def project(self, rows: Int64, weight: Float32, feature_mean: Float32) -> Float32:
        """Project each row by one map."""
        return project(self.features, rows, weight, feature_mean, self.block_rows)


def unit_sum(features: Float32, rows: Int64, block_rows: int) -> Float64:
    """Return the sum of the unit rows of ``features[rows]``: [D] float64."""
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
    """Return the normal equations of the unit rows of ``features[rows]`` for ``targets`` [R, A]."""
    sums = NormalEquations(num_folds=num_folds, origin=origin, target_width=targets.shape[1], device=device)
    for block in row_blocks(len(rows), block_rows):
        sums.add(unit_rows(np.asarray(features[rows[block]])), targets[block], folds[block])
    return sums

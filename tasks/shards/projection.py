"""The projection's passes over the rows of a feature matrix, as shards. Sums come back part by part, projected rows block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Float32, Float64, Int32, Int64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.projection.crossfit import FoldMaps, NormalEquations, out_of_fold, project
from rectifier_core.projection.row_passes import PART_BLOCKS, moments, unit_sum
from tasks.store.runner import Arrays, ShardWork, Shared, row_shards
from tasks.store.store import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class PassShard:
    """Positions ``first`` to ``last`` of the rows of a pass, read ``block_rows`` at a time.

    ``by_row`` holds the ``rows`` and the other values of each row, ``constant`` the values for all rows.
    """

    features: Ref
    name: str
    by_row: Shared
    constant: Shared
    first: int
    last: int
    block_rows: int
    device: str

    def part(self, name: str) -> np.ndarray[Any, Any]:
        """Return the values ``name`` of this shard's rows."""
        return self.by_row[name][self.first : self.last]

    @property
    def matrix(self) -> Float32:
        """Return all features [I, D], mapped."""
        return self.features.array(self.name)


def sum_shard(shard: PassShard) -> Arrays:
    """Return the sum of the shard's unit rows."""
    return {"sum": unit_sum(shard.matrix, shard.part("rows"), shard.block_rows)}


def moments_shard(shard: PassShard) -> Arrays:
    """Return the normal equations of the shard's rows."""
    origin, num_folds = shard.constant["origin"], int(shard.constant["num_folds"])
    rows, targets, folds = (shard.part(name) for name in ("rows", "targets", "folds"))
    return moments(shard.matrix, rows, targets, folds, origin, num_folds, shard.block_rows, shard.device).arrays


def out_of_fold_shard(shard: PassShard) -> Arrays:
    """Project the shard's rows, each by the map of its fold."""
    maps = FoldMaps(**{name: shard.constant[name] for name in FoldMaps.__slots__})
    return {"projected": out_of_fold(shard.matrix, shard.part("rows"), shard.part("folds"), maps, shard.block_rows)}


def project_shard(shard: PassShard) -> Arrays:
    """Project the shard's rows by one map."""
    weight, mean = shard.constant["weight"], shard.constant["feature_mean"]
    return {"projected": project(shard.matrix, shard.part("rows"), weight, mean, shard.block_rows)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedRows:
    """``row_passes.RowPasses`` over the array ``name`` of ``features``, computed by ``work`` on ``device``."""

    features: Ref
    name: str
    work: ShardWork
    block_rows: int
    shard_rows: int
    device: str

    def sums(self, rows: Int64) -> Iterator[Float64]:
        """Yield sums of the unit rows, part by part."""
        for arrays in self._parts(sum_shard, self.work.share(rows=rows), Shared()):
            yield arrays["sum"]

    def moments(
        self, rows: Int64, targets: Float32, folds: Int32, origin: Float32, num_folds: int
    ) -> Iterator[NormalEquations]:
        """Yield the sums of a fit, part by part."""
        if not len(rows):
            return
        by_row = self.work.share(rows=rows, targets=targets, folds=folds)
        for arrays in self._parts(moments_shard, by_row, self.work.share(origin=origin, num_folds=np.array(num_folds))):
            part = NormalEquations(num_folds=num_folds, origin=origin, target_width=targets.shape[1])
            for name, sums in part.arrays.items():
                sums[...] = arrays[name]
            yield part

    def out_of_fold(self, rows: Int64, folds: Int32, maps: FoldMaps) -> Float32:
        """Project each row by the map of its fold."""
        constant = self.work.share(**{name: getattr(maps, name) for name in FoldMaps.__slots__})
        return self._rows(out_of_fold_shard, self.work.share(rows=rows, folds=folds), constant, maps.weights.shape[2])

    def project(self, rows: Int64, weight: Float32, feature_mean: Float32) -> Float32:
        """Project each row by one map."""
        constant = self.work.share(weight=weight, feature_mean=feature_mean)
        return self._rows(project_shard, self.work.share(rows=rows), constant, weight.shape[1])

    def _parts(self, function: Callable[[PassShard], Arrays], by_row: Shared, constant: Shared) -> Iterator[Arrays]:
        spans = row_blocks(len(by_row["rows"]), PART_BLOCKS * self.block_rows)
        yield from self.work.map(function, [self._shard(span, by_row, constant) for span in spans])

    def _rows(self, function: Callable[[PassShard], Arrays], by_row: Shared, constant: Shared, width: int) -> Float32:
        spans = row_shards(len(by_row["rows"]), self.shard_rows, self.block_rows)
        projected = np.zeros((len(by_row["rows"]), width), np.float32)
        results = self.work.map(function, [self._shard(span, by_row, constant) for span in spans])
        for span, arrays in zip(spans, results, strict=True):
            projected[span] = arrays["projected"]
        return projected

    def _shard(self, span: slice, by_row: Shared, constant: Shared) -> PassShard:
        return PassShard(
            features=self.features,
            name=self.name,
            by_row=by_row,
            constant=constant,
            first=span.start,
            last=span.stop,
            block_rows=self.block_rows,
            device=self.device,
        )

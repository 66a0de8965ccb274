"""Ridge regression out of fold, by blocked normal equations.

Source: ridge regression (Hoerl and Kennard, 1970) with K-fold cross-fitting. The Gram matrices of the folds are summed once. A fold's map
is solved from the total minus the fold's own, so one pass over the rows serves every fold and every strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch

from rectifier_core.base.arrays import Float32, Float64, Int32, Int64
from rectifier_core.base.devices import CPU, full_float32, to_device
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.seeding import generator
from rectifier_core.base.threads import on_row_blocks

GRAM_ROUNDING = 4e-6
"""Largest error of a float32 Gram product as a share of its trace (equal rows). The ridge penalty is never smaller."""

Solved = tuple[Float32, Float32, Float32]
"""A centred linear map: weight [D, A], feature mean [D], target mean [A]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldMaps:
    """One centred linear map per fold, fitted without the fold: ``unit((x - feature_means[f]) @ weights[f])``."""

    weights: Float32
    feature_means: Float32
    target_means: Float32

    @classmethod
    def of(cls, parts: Sequence[Solved]) -> FoldMaps:
        """Stack the maps of folds 0, 1, ..."""
        weights, feature_means, target_means = (np.stack(x) for x in zip(*parts, strict=True))
        return cls(weights=weights, feature_means=feature_means, target_means=target_means)


class NormalEquations:
    """Sums over rows for a ridge fit, per fold: counts, first moments, Gram and cross moments, all float64.

    ``origin`` [D] is subtracted from every feature first, so that a large common mean costs no precision. Products run on ``device``.
    ``penalty_width`` is the number of columns whose mean eigenvalue is the unit of the penalty: D by default.
    """

    def __init__(
        self,
        *,
        num_folds: int,
        origin: Float32,
        target_width: int,
        device: str = CPU,
        penalty_width: int | None = None,
    ) -> None:
        width = len(origin)
        self.origin, self.device, self.penalty_width = origin, device, penalty_width or width
        self.counts = np.zeros(num_folds)
        self.feature_sums = np.zeros((num_folds, width))
        self.target_sums = np.zeros((num_folds, target_width))
        self.grams = np.zeros((num_folds, width, width))
        self.crosses = np.zeros((num_folds, width, target_width))

    def add(self, features: Float32, targets: Float32, folds: Int32, *, sign: float = 1.0) -> None:
        """Add rows, or remove them with ``sign = -1``: features [N, D], targets [N, A], folds [N]."""
        shifted = features - self.origin
        for fold in np.unique(folds):
            x, y = shifted[folds == fold], targets[folds == fold]
            self.counts[fold] += sign * len(x)
            self.feature_sums[fold] += sign * x.sum(axis=0, dtype=np.float64)
            self.target_sums[fold] += sign * y.sum(axis=0, dtype=np.float64)
            gram, cross = _moments(x, y, self.device)
            self.grams[fold] += sign * gram
            self.crosses[fold] += sign * cross

    def merge(self, other: NormalEquations, *, sign: float = 1.0) -> None:
        """Add the sums of another set with the same origin, or remove them with ``sign = -1``."""
        for mine, its in zip(self.arrays.values(), other.arrays.values(), strict=True):
            mine += sign * its

    @property
    def arrays(self) -> dict[str, Float64]:
        """The sums by name, float64, not copied."""
        return {name: getattr(self, name) for name in ("counts", "feature_sums", "target_sums", "grams", "crosses")}

    def copy(self) -> NormalEquations:
        """Return an independent copy of the sums."""
        width = self.target_sums.shape[1]
        other = NormalEquations(
            num_folds=len(self.counts),
            origin=self.origin,
            target_width=width,
            device=self.device,
            penalty_width=self.penalty_width,
        )
        other.merge(self)
        return other

    def solve(self, strength: float, *left_out: int) -> Solved:
        """Return (weight [D, A], feature mean [D], target mean [A]), fitted on every row outside the folds ``left_out``.

        ``strength`` is in units of the mean eigenvalue of the centred Gram matrix.
        """
        others = np.setdiff1d(np.arange(len(self.counts)), left_out)
        count = max(float(self.counts[others].sum()), 1.0)
        x_mean, y_mean = self.feature_sums[others].sum(axis=0) / count, self.target_sums[others].sum(axis=0) / count
        centred = np.zeros_like(self.grams[0])
        for fold in others:
            centred += self.grams[fold]
        rounding = GRAM_ROUNDING * float(np.trace(centred)) + np.finfo(np.float64).eps * count
        centred -= count * np.outer(x_mean, x_mean)
        cross = self.crosses[others].sum(axis=0) - count * np.outer(x_mean, y_mean)
        # Nearly equal rows leave only rounding after centring. The floor keeps the matrix positive definite.
        penalty = max(strength * float(np.trace(centred)) / self.penalty_width, rounding)
        centred[np.diag_indices_from(centred)] += penalty
        # NumPy's factorisation lets go of the interpreter's lock, SciPy's does not.
        weight = scipy.linalg.cho_solve((np.linalg.cholesky(centred), True), cross, check_finite=False)
        return (
            weight.astype(np.float32, order="C"),
            (self.origin + x_mean).astype(np.float32),
            y_mean.astype(np.float32),
        )

    def solve_folds(self, strength: float, *left_out: int) -> FoldMaps:
        """Return the map of every fold at one strength. The folds ``left_out`` are in none of them."""
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return FoldMaps.of(
                list(pool.map(lambda fold: self.solve(strength, fold, *left_out), range(len(self.counts))))
            )


def _moments(x: Float32, y: Float32, device: str) -> tuple[Float32, Float32]:
    """Return ``x.T @ x`` and ``x.T @ y``."""
    if device == CPU:
        return x.T @ x, x.T @ y
    with full_float32():
        rows, targets = to_device(x, device), to_device(y, device)
        return (rows.T @ rows).cpu().numpy(), (rows.T @ targets).cpu().numpy()


def item_folds(num_items: int, num_folds: int, seed: int) -> Int32:
    """Return the fold of every item [I] int32. All maps of a run share them, so a map saw neither of two items of its fold."""
    return (generator(seed, "folds").permutation(num_items) % num_folds).astype(np.int32)


def out_of_fold(features: Float32, rows: Int64, folds: Int32, maps: FoldMaps, block_rows: int) -> Float32:
    """Project each row by the map that was fitted without it: [len(rows), A] float32, not normalised.

    ``features`` [I, D] is read by blocks of ``rows`` (item indices). ``folds`` [len(rows)] selects each row's map.
    """
    projected = np.zeros((len(rows), maps.weights.shape[2]), np.float32)

    def work(block: slice) -> None:
        x, fold = unit_rows(np.asarray(features[rows[block]])), folds[block]
        for f in np.unique(fold):
            inside = fold == f
            projected[block][inside] = (x[inside] - maps.feature_means[f]) @ maps.weights[f]

    on_row_blocks(work, len(rows), block_rows, torch.get_num_threads())
    return projected


def project(features: Float32, rows: Int64, weight: Float32, feature_mean: Float32, block_rows: int) -> Float32:
    """Project ``features[rows]`` by one centred map: [len(rows), A] float32, not normalised. ``features`` is read by blocks."""
    projected = np.zeros((len(rows), weight.shape[1]), np.float32)

    def work(block: slice) -> None:
        centred: Float32 = unit_rows(np.asarray(features[rows[block]])) - feature_mean
        projected[block] = centred @ weight

    on_row_blocks(work, len(rows), block_rows, torch.get_num_threads())
    return projected

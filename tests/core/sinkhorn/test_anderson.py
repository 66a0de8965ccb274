"""Anderson mixing against its definition."""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Float64
from rectifier_core.sinkhorn.anderson import Anderson


def test_mixing_solves_a_linear_fixed_point_in_few_steps() -> None:
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((500, 3)))
    factors, wanted = np.array([0.9, 0.5, -0.5]), rng.standard_normal(500)

    def residual(point: Float64) -> Float64:
        moved: Float64 = basis @ (factors * (basis.T @ (point - wanted))) - (point - wanted)
        return moved

    mixing, point = Anderson(5), np.zeros(500)
    for _ in range(9):
        point = mixing.next_point(point, residual(point))
    np.testing.assert_allclose(point, wanted, atol=1e-4)
    mixing.restart()
    np.testing.assert_array_equal(mixing.next_point(point, residual(point)), point + residual(point))


def test_mixing_uses_the_last_iterates_only() -> None:
    rng = np.random.default_rng(2)
    points, residuals = rng.standard_normal((8, 40)), rng.standard_normal((8, 40))
    mixing = Anderson(3)
    for point, residual in zip(points, residuals, strict=True):
        mixed = mixing.next_point(point, residual)
    changes, moves = np.diff(residuals[-4:], axis=0), np.diff(points[-4:], axis=0)
    mixture = np.linalg.lstsq(changes.T, residuals[-1], rcond=None)[0]
    np.testing.assert_allclose(mixed, points[-1] + residuals[-1] - mixture @ (moves + changes), atol=1e-7)

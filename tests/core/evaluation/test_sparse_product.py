"""The differentiable sparse product, against dense algebra and against itself by finite differences."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from rectifier_core.evaluation.backbones.sparse_product import SparseOperator, mean_of_layers


def matrix(rows: int, columns: int, seed: int = 0) -> sp.csr_array:
    rng = np.random.Generator(np.random.PCG64(seed))
    dense = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < 0.3)
    return sp.csr_array(dense.astype(np.float32))


def test_product_and_gradient_are_the_dense_ones() -> None:
    sparse = matrix(7, 5)
    dense, operator = torch.from_numpy(sparse.toarray()), SparseOperator(sparse)
    rows = torch.linspace(-1, 1, 15).reshape(5, 3).requires_grad_()
    weight = torch.linspace(0, 2, 21).reshape(7, 3)
    (operator(rows).sin() * weight).sum().backward()
    mine = rows.grad.clone()
    rows.grad = None
    ((dense @ rows).sin() * weight).sum().backward()
    assert torch.allclose(operator(rows), dense @ rows, atol=1e-6)
    assert torch.allclose(mine, rows.grad, atol=1e-6)


def test_the_mean_of_layers_passes_gradients_through_every_layer() -> None:
    square = matrix(6, 6, seed=1)
    dense, operator = torch.from_numpy(square.toarray()), SparseOperator(square)
    ego = torch.linspace(-1, 1, 12).reshape(6, 2).requires_grad_()
    mean_of_layers(operator, ego, 2).square().sum().backward()
    mine = ego.grad.clone()
    ego.grad = None
    wanted = (ego + dense @ ego + dense @ dense @ ego) / 3
    wanted.square().sum().backward()
    assert torch.allclose(mean_of_layers(operator, ego, 2), wanted, atol=1e-6)
    assert torch.allclose(mine, ego.grad, atol=1e-5)


def test_a_symmetric_matrix_is_not_copied() -> None:
    square = matrix(6, 6)
    both = sp.csr_array(square + square.T)
    operator = SparseOperator(both, symmetric=True)
    assert operator.transposed is operator.matrix
    assert SparseOperator(both).transposed is not operator.matrix
    rows = torch.eye(6, requires_grad=True)
    operator(rows)[0].sum().backward()
    assert torch.allclose(rows.grad[:, 0], torch.from_numpy(both.toarray()[0]))

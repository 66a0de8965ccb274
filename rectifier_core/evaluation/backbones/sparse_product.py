"""The product of a fixed sparse matrix with dense rows, differentiable in the rows: ``row_products`` on the CPU, torch's own on CUDA."""

from __future__ import annotations

from typing import Any

import scipy.sparse as sp
import torch

from rectifier_core.anchors.row_products import multiply, product_matrix
from rectifier_core.base.arrays import Float32
from rectifier_core.base.devices import sparse_to_device


class SparseOperator:
    """``x -> matrix @ x`` for tensors [M, A] float32; the matrix takes no gradient."""

    def __init__(self, matrix: sp.csr_array, *, symmetric: bool = False) -> None:
        self.matrix = product_matrix(matrix)
        self._transposed = self.matrix if symmetric else None
        self._on_device: dict[tuple[str, bool], torch.Tensor] = {}

    @property
    def transposed(self) -> sp.csr_array:
        """The transpose, made when a gradient first asks for it."""
        if self._transposed is None:
            self._transposed = product_matrix(self.matrix.T)
        return self._transposed

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """``matrix @ rows``: [M, A] -> [N, A], with the gradient to ``rows``."""
        product: torch.Tensor = _Product.apply(rows, self)  # type: ignore[no-untyped-call]
        return product

    def multiply(self, rows: torch.Tensor, *, transposed: bool) -> torch.Tensor:
        """The product, or the transposed one, without a gradient."""
        matrix = self.transposed if transposed else self.matrix
        if rows.device.type == "cpu":
            return torch.from_numpy(multiply(matrix, _plain(rows)))
        key = (str(rows.device), transposed)
        if key not in self._on_device:
            self._on_device[key] = sparse_to_device(matrix, key[0])
        return self._on_device[key] @ rows.detach()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, operator: SparseOperator) -> torch.Tensor:
        ctx.operator = operator
        return operator.multiply(rows, transposed=False)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.operator.multiply(gradients[0], transposed=True), None


class _LayerMean(torch.autograd.Function):
    """The mean of a square operator's powers on the CPU, by Horner's rule: nothing but the products touches the rows."""

    @staticmethod
    def forward(ctx: Any, ego: torch.Tensor, operator: SparseOperator, num_layers: int) -> torch.Tensor:
        ctx.operator, ctx.num_layers = operator, num_layers
        return _horner(operator.matrix, ego, num_layers)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _horner(ctx.operator.transposed, gradients[0], ctx.num_layers), None, None


def _horner(matrix: sp.csr_array, rows: torch.Tensor, num_layers: int) -> torch.Tensor:
    partial = base = _plain(rows)
    for layer in range(num_layers):
        partial = multiply(matrix, partial, base=base, scale=1 / (num_layers + 1) if layer == num_layers - 1 else 1.0)
    return torch.from_numpy(partial)


def _plain(rows: torch.Tensor) -> Float32:
    plain: Float32 = rows.detach().contiguous().numpy()
    return plain


def mean_of_layers(operator: SparseOperator, ego: torch.Tensor, num_layers: int) -> torch.Tensor:
    """LightGCN's readout, the mean of ``ego``, ``A ego``, ..., ``A^L ego``: [N, A] -> [N, A] (He et al. 2020, equation 8)."""
    if num_layers and ego.device.type == "cpu":
        mean: torch.Tensor = _LayerMean.apply(ego, operator, num_layers)  # type: ignore[no-untyped-call]
        return mean
    layer, total = ego, ego
    for _ in range(num_layers):
        layer = operator(layer)
        total = total + layer
    return total / (num_layers + 1)

"""The product of a fixed sparse matrix with dense rows, differentiable in the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from rectifier_core.base.devices import sparse_to_device
from rectifier_core.base.weighted_sums import sparse_product


class SparseOperator:
    """``x -> matrix @ x`` for tensors [M, A] float32; the matrix takes no gradient."""

    def __init__(self, matrix: sp.csr_array, *, symmetric: bool = False) -> None:
        self.matrix = sp.csr_array(matrix).astype(np.float32, copy=False)
        self._symmetric = symmetric
        self._on_device: dict[tuple[str, bool], torch.Tensor] = {}

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """``matrix @ rows``: [M, A] -> [N, A], with the gradient to ``rows``."""
        product: torch.Tensor = _Product.apply(rows, self)  # type: ignore[no-untyped-call]
        return product

    def at(self, rows: torch.Tensor | None, dense: torch.Tensor) -> torch.Tensor:
        """``(matrix @ dense)[rows]`` with the gradient to ``dense``; all rows where ``rows`` is None."""
        if rows is None:
            return self(dense)
        if dense.device.type != "cpu":
            return self(dense).index_select(0, rows)
        return SparseOperator(self.matrix[rows.numpy()])(dense)

    def multiply(self, rows: torch.Tensor, *, transposed: bool) -> torch.Tensor:
        """The product, or the transposed one, without a gradient."""
        key = (str(rows.device), transposed and not self._symmetric)
        if key not in self._on_device:
            matrix = self.matrix.T.tocsr() if key[1] else self.matrix
            self._on_device[key] = sparse_to_device(matrix, key[0])
        return sparse_product(self._on_device[key], rows.detach())


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, operator: SparseOperator) -> torch.Tensor:
        ctx.operator = operator
        return operator.multiply(rows, transposed=False)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.operator.multiply(gradients[0], transposed=True), None


def layer_mean(
    operator: SparseOperator, ego: torch.Tensor, num_layers: int, rows: torch.Tensor | None = None
) -> torch.Tensor:
    """LightGCN's readout, the mean of ``ego``, ``A ego``, ..., ``A^L ego``: [N, A] -> [len(rows), A] (He et al. 2020, equation 8).

    Horner's rule, E + A (E + A (E + ...)), lets the last product be computed at ``rows`` alone.
    """
    partial = ego
    for _ in range(num_layers - 1):
        partial = ego + operator(partial)
    own = ego if rows is None else ego.index_select(0, rows)
    return (own + operator.at(rows, partial)) / (num_layers + 1) if num_layers else own

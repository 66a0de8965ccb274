"""The fast product of a fixed sparse matrix with dense rows, differentiable in the rows, on CPU and CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch


class SparseOperator:
    """``x -> matrix @ x`` for tensors [M, A]: SciPy's CSR product on the CPU, torch's on CUDA; the matrix takes no gradient.

    SciPy's product is several times faster than torch.sparse's on a CPU and gives the same bits whatever the number of threads.
    """

    def __init__(self, matrix: sp.csr_array, *, symmetric: bool = False) -> None:
        self.matrix = sp.csr_array(matrix.astype(np.float32))
        self.transposed = self.matrix if symmetric else sp.csr_array(self.matrix.T)
        self._on_device: dict[tuple[str, bool], torch.Tensor] = {}

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """``matrix @ rows``: [M, A] -> [N, A], with the gradient to ``rows``."""
        product: torch.Tensor = _Product.apply(rows, self)  # type: ignore[no-untyped-call]
        return product

    def multiply(self, rows: torch.Tensor, *, transposed: bool) -> torch.Tensor:
        """The product, or the transposed one, without a gradient."""
        if rows.device.type == "cpu":
            matrix = self.transposed if transposed else self.matrix
            return torch.from_numpy(matrix @ np.ascontiguousarray(rows.detach().numpy()))
        key = (str(rows.device), transposed)
        if key not in self._on_device:
            matrix = self.transposed if transposed else self.matrix
            pointers, columns = (torch.from_numpy(x.astype(np.int64)) for x in (matrix.indptr, matrix.indices))
            moved = torch.sparse_csr_tensor(pointers, columns, torch.from_numpy(matrix.data), size=list(matrix.shape))
            self._on_device[key] = moved.to(rows.device)
        return self._on_device[key] @ rows.detach()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, operator: SparseOperator) -> torch.Tensor:
        ctx.operator = operator
        return operator.multiply(rows, transposed=False)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.operator.multiply(gradients[0], transposed=True), None


def mean_of_layers(operator: SparseOperator, ego: torch.Tensor, num_layers: int) -> torch.Tensor:
    """LightGCN's readout, the mean of ``ego``, ``A ego``, ..., ``A^L ego``: [N, A] -> [N, A] (He et al. 2020, equation 8)."""
    layer, total = ego, ego
    for _ in range(num_layers):
        layer = operator(layer)
        total = total + layer
    return total / (num_layers + 1)

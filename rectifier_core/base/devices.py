"""Copies to a torch device, its free memory and its precision. ``device`` is torch's name, such as "cpu" or "cuda:0".

A device's results equal the CPU's up to rounding, not to the byte, because its libraries choose the order of sums.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

CPU = "cpu"
ASSUMED_FREE = 2**30


def to_device(array: NDArray[Any], device: str) -> torch.Tensor:
    """A copy of ``array`` on ``device`` (on the CPU it may be the array itself). Memory maps are read."""
    plain = np.ascontiguousarray(array)
    return torch.from_numpy(plain if plain.flags.writeable else plain.copy()).to(device)


def sparse_to_device(matrix: sp.csr_array, device: str) -> torch.Tensor:
    """A CSR matrix as ``product_matrix`` makes it, on ``device``: eight bytes an entry."""
    starts, columns, weights = (to_device(x, device) for x in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        # Torch calls its CSR tensors a beta, once a process; what is used of them is the product with dense rows.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")
        return torch.sparse_csr_tensor(starts, columns, weights, size=list(matrix.shape), check_invariants=False)


def free_memory(device: str) -> int:
    """Bytes of the device that are free, or held by torch and unused. 1 GiB for the CPU."""
    if torch.device(device).type != "cuda":
        return ASSUMED_FREE
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


@contextmanager
def full_float32() -> Iterator[None]:
    """Full float32 matrix products in the block. Some containers switch TF32 on, which rounds to 11 bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

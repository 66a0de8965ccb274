"""Weighted sums of a table's rows.

A product with a sparse matrix gives the same. Torch's ``embedding_bag`` is several times faster, lets go of the interpreter's lock, and
adds the terms of a sum in the order in which they are given, so the sum does not depend on the others.
"""

from __future__ import annotations

import warnings

import torch
from torch.nn.functional import embedding_bag

from rectifier_core.base.arrays import Float32, Int32, Int64


def weighted_sums(table: Float32, indptr: Int64, indices: Int32, weights: Float32) -> Float32:
    """Return the sum of ``weights[e] * table[indices[e]]``, e from ``indptr[n]`` to ``indptr[n + 1]``, for every n.

    ``table`` [I, D] float32 may be a memory map, and is only read. Returns [N, D] float32, zeros where there is nothing to sum.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        rows = torch.from_numpy(table)
    sums = embedding_bag(
        torch.from_numpy(indices),
        rows,
        torch.from_numpy(indptr.astype(indices.dtype)),
        mode="sum",
        per_sample_weights=torch.from_numpy(weights),
        include_last_offset=True,
    )
    result: Float32 = sums.numpy()
    return result

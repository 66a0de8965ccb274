"""Array types, and the checks of record fields. A mismatch raises ``ValueError`` with the field, the expected and the actual value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike, NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Bool = NDArray[np.bool_]
Features = Mapping[str, Float32]

CHECKED = 1 << 20


def check_array(field: str, array: NDArray[np.generic], shape: tuple[int | None, ...], dtype: DTypeLike) -> None:
    """Raise ValueError, naming the field, unless the array has this dtype and shape (None: any length) and is C-contiguous."""
    wanted = np.dtype(dtype)
    if array.dtype != wanted:
        raise ValueError(f"{field}: wanted dtype {wanted}, got {array.dtype}")
    if array.ndim != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, array.shape, strict=True)
    ):
        raise ValueError(f"{field}: wanted shape {shape}, got {array.shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{field}: wanted a C-contiguous array, got strides {array.strides} for shape {array.shape}")


def check_range(field: str, array: Int32, stop: int, *, start: int = 0) -> None:
    """Raise ValueError, naming the field, unless all values lie in [start, stop)."""
    ends: list[int] = []
    # By blocks: a memory map may be larger than memory.
    for first in range(0, len(array), CHECKED):
        block = array[first : first + CHECKED]
        if block.size:
            ends += [int(block.min()), int(block.max())]
    if ends and (min(ends) < start or max(ends) >= stop):
        raise ValueError(f"{field}: wanted values in [{start}, {stop}), got [{min(ends)}, {max(ends)}]")


def check_modalities(field: str, features: Features, given: Mapping[str, object]) -> None:
    """Raise ValueError, naming the field, unless its modalities are those of ``features``."""
    if set(features) != set(given):
        raise ValueError(f"{field}: wanted the modalities {sorted(features)}, got {sorted(given)}")

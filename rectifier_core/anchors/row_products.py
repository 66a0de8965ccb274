"""The product of a CSR matrix with dense rows, float32, and what goes with it; a leaf, and the only sparse product on the CPU.

A row is summed by one thread, in the order of its entries, in registers: the same bytes whatever the number of threads. SciPy's product
spends half its time on a fresh zeroed output and adds every entry to it in memory; torch's CSR product spins for the cores. What is left
is waiting for gathered rows, so the rows of entries to come are prefetched. See ``benchmarks/speed/propagation.py``.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import scipy.sparse as sp
import torch
from llvmlite import ir
from numba.extending import intrinsic, models, register_model

from rectifier_core.base.arrays import Float32, Float64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.threads import balanced_bounds, even_bounds, in_shards, kernel, num_shards, read_only

AHEAD = 8
"""How many entries ahead rows are prefetched; 4 to 16 do as well on random graphs of 26,000 and of 800,000 nodes."""

GRAM_BLOCK = 4096

_I32 = ir.IntType(32)
_BYTES = ir.IntType(8).as_pointer()
_VECTORS = {width: ir.VectorType(ir.FloatType(), width) for width in (16, 64)}


class _Lanes(numba.types.Type):  # type: ignore[misc]
    """``width`` floats that the compiler keeps in vector registers."""

    def __init__(self, width: int) -> None:
        super().__init__(name=f"Lanes{width}")
        self.width = width


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: _Lanes) -> None:
        super().__init__(manager, lanes, _VECTORS[lanes.width])


def _at(context: Any, builder: Any, array_type: Any, array: Any, index: Any, target: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), target)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _load(typing_context: Any, width: Any, array: Any, at: Any) -> Any:
    """``array[at : at + width]`` of a flat array; ``width`` is a constant."""
    lanes = _Lanes(width.literal_value)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        loaded = builder.load(
            _at(context, builder, signature.args[1], values[1], values[2], _VECTORS[lanes.width].as_pointer())
        )
        loaded.align = 4
        return loaded

    return lanes(width, array, numba.types.intp), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _zeros(typing_context: Any, width: Any) -> Any:
    lanes = _Lanes(width.literal_value)
    return lanes(width), lambda context, builder, signature, values: ir.Constant(
        _VECTORS[lanes.width], [0.0] * lanes.width
    )


@intrinsic  # type: ignore[untyped-decorator]
def _multiply_add(typing_context: Any, factor: Any, lanes: Any, total: Any) -> Any:
    """``factor * lanes + total``, rounded once where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        undefined = ir.Constant(_VECTORS[lanes.width], ir.Undefined)
        every = ir.Constant(ir.VectorType(_I32, lanes.width), [0] * lanes.width)
        factors = builder.shuffle_vector(
            builder.insert_element(undefined, values[0], ir.Constant(_I32, 0)), undefined, every
        )
        product = builder.fmul(factors, values[1], flags=["contract"])
        return builder.fadd(product, values[2], flags=["contract"])

    return lanes(numba.types.float32, lanes, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def _store(typing_context: Any, lanes: Any, array: Any, at: Any) -> Any:
    """Write to ``array[at : at + width]`` of a flat array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = _at(context, builder, signature.args[1], values[1], values[2], _VECTORS[lanes.width].as_pointer())
        builder.store(values[0], pointer).align = 4
        return context.get_dummy_value()

    return numba.types.void(lanes, array, numba.types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(typing_context: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        shape = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
        function = builder.module.declare_intrinsic("llvm.prefetch", (_BYTES,), shape)
        # For reading (0), into every level of the cache (3), data (1).
        how = [ir.Constant(_I32, number) for number in (0, 3, 1)]
        builder.call(function, [_at(context, builder, signature.args[0], values[0], values[1], _BYTES), *how])
        return context.get_dummy_value()

    return numba.types.void(array, numba.types.intp), generate


_ENTRIES, _ROWS = read_only(numba.int32, 1), read_only(numba.float32, 1)
_SIGNATURE = numba.void(
    _ENTRIES, _ENTRIES, _ROWS, _ROWS, _ROWS, numba.float32, numba.float32[::1], numba.intp, numba.intp, numba.intp
)
_NOTHING = np.empty(0, np.float32)


@kernel(_SIGNATURE)
def _products(
    indptr: Any, indices: Any, data: Any, dense: Any, base: Any, scale: Any, out: Any, width: Any, first: Any, last: Any
) -> None:
    """``out`` and ``base`` hold the rows from ``first`` to ``last`` alone; ``base`` may be empty. All arrays are flat."""
    end = len(indices) - 1
    for row in range(first, last):
        begin, stop = indptr[row], indptr[row + 1]
        at = (row - first) * width
        column = 0
        while column + 64 <= width:
            total = _load(64, base, at + column) if len(base) else _zeros(64)
            for entry in range(begin, stop):
                ahead = np.intp(indices[min(entry + AHEAD, end)]) * width + column
                for line in range(0, 64, 16):
                    _prefetch(dense, ahead + line)
                total = _multiply_add(data[entry], _load(64, dense, np.intp(indices[entry]) * width + column), total)
            _store(_multiply_add(scale, total, _zeros(64)), out, at + column)
            column += 64
        while column + 16 <= width:
            part = _load(16, base, at + column) if len(base) else _zeros(16)
            for entry in range(begin, stop):
                _prefetch(dense, np.intp(indices[min(entry + AHEAD, end)]) * width + column)
                part = _multiply_add(data[entry], _load(16, dense, np.intp(indices[entry]) * width + column), part)
            _store(_multiply_add(scale, part, _zeros(16)), out, at + column)
            column += 16
        for single in range(column, width):
            value = base[at + single] if len(base) else numba.float32(0)
            for entry in range(begin, stop):
                value += data[entry] * dense[np.intp(indices[entry]) * width + single]
            out[at + single] = value * scale


_STEPS = (numba.intp,) * 3


@kernel(numba.void(_ROWS, *_STEPS, _ROWS, numba.intp, numba.float32[::1], numba.intp, numba.intp))
def _dense_products(
    left: Any, row_step: Any, term_step: Any, terms: Any, right: Any, width: Any, out: Any, first: Any, last: Any
) -> None:
    """``out[row] = sum over t of left[row * row_step + t * term_step] * right[t]`` for rows from ``first`` to ``last``; flat arrays."""
    column = 0
    while column + 16 <= width:
        row = first
        while row + 4 <= last:
            one = two = three = four = _zeros(16)
            for term in range(terms):
                lanes, at = _load(16, right, term * width + column), row * row_step + term * term_step
                one = _multiply_add(left[at], lanes, one)
                two = _multiply_add(left[at + row_step], lanes, two)
                three = _multiply_add(left[at + 2 * row_step], lanes, three)
                four = _multiply_add(left[at + 3 * row_step], lanes, four)
            to = row * width + column
            _store(one, out, to)
            _store(two, out, to + width)
            _store(three, out, to + 2 * width)
            _store(four, out, to + 3 * width)
            row += 4
        while row < last:
            one = _zeros(16)
            for term in range(terms):
                one = _multiply_add(
                    left[row * row_step + term * term_step], _load(16, right, term * width + column), one
                )
            _store(one, out, row * width + column)
            row += 1
        column += 16
    for single in range(column, width):
        for row in range(first, last):
            total = numba.float32(0)
            for term in range(terms):
                total += left[row * row_step + term * term_step] * right[term * width + single]
            out[row * width + single] = total


def empty_rows(rows: int, width: int) -> Float32:
    """Uninitialised [rows, width], rows on cache lines: a large array of NumPy's lies 16 bytes off, and each row then touches one more."""
    made: Float32 = torch.empty(rows, width, dtype=torch.float32).numpy()
    return made


def multiply(
    matrix: sp.csr_array, dense: Float32, *, base: Float32 | None = None, scale: float = 1.0, out: Float32 | None = None
) -> Float32:
    """``scale * (base + matrix @ dense)``: [M, A] float32 -> [N, A], in ``out`` or a new array.

    ``out`` may be ``base``, never ``dense``. The matrix must be as ``product_matrix`` makes it. Raises ValueError where shapes or dtypes
    do not fit.
    """
    shape = (matrix.shape[0], dense.shape[1])
    out = empty_rows(*shape) if out is None else out
    _check(matrix, dense, shape, out=out, base=base)
    bounds = balanced_bounds(matrix.indptr, num_shards((matrix.nnz + shape[0]) * shape[1]))
    in_shards(
        lambda first, last: multiply_some(matrix, first, last, dense, base=base, scale=scale, out=out[first:last]),
        bounds,
    )
    return out


def multiply_some(
    matrix: sp.csr_array, first: int, last: int, dense: Float32, *, base: Float32 | None, scale: float, out: Float32
) -> None:
    """Rows ``first`` to ``last`` of ``multiply``, written to ``out`` [last - first, A] by the calling thread; nothing is checked."""
    added = _NOTHING if base is None else base[first:last].reshape(-1)
    _products(
        matrix.indptr,
        matrix.indices,
        matrix.data,
        dense.reshape(-1),
        added,
        scale,
        out.reshape(-1),
        dense.shape[1],
        first,
        last,
    )


def _check(matrix: sp.csr_array, dense: Float32, shape: tuple[int, int], **rows: Float32 | None) -> None:
    if matrix.dtype != np.float32 or matrix.indices.dtype != np.int32 or matrix.indptr.dtype != np.int32:
        raise ValueError(
            f"matrix: wanted float32 and int32 indices, got {matrix.dtype} and {matrix.indices.dtype}, {matrix.indptr.dtype}"
        )
    for name, array, wanted in (
        ("dense", dense, (matrix.shape[1], shape[1])),
        *((n, x, shape) for n, x in rows.items()),
    ):
        if array is not None and (array.shape != wanted or array.dtype != np.float32 or not array.flags.c_contiguous):
            raise ValueError(f"{name}: wanted contiguous float32 {wanted}, got {array.dtype} {array.shape}")


def product_matrix(matrix: sp.csr_array | sp.csc_array | sp.coo_array) -> sp.csr_array:
    """``matrix`` as ``multiply`` takes it: CSR, float32, int32 indices (so fewer than 2^31 entries); not copied if it is that already."""
    made: sp.csr_array = sp.csr_array(matrix).astype(np.float32, copy=False)
    if made.indices.dtype != np.int32 or made.indptr.dtype != np.int32:
        made = sp.csr_array((made.data, made.indices.astype(np.int32), made.indptr.astype(np.int32)), shape=made.shape)
    return made


def dense_product(left: Float32, right: Float32, out: Float32 | None = None) -> Float32:
    """``left @ right``: [N, K] by [K, A], contiguous float32, about as fast as a BLAS while A is small; in ``out`` or a new array.

    A BLAS may divide the work by the number of threads, and round by it. ``out`` must not overlap.
    """
    terms, width = right.shape
    out = empty_rows(len(left), width) if out is None else out
    flat = left.reshape(-1), terms, 1, terms, right.reshape(-1), width, out.reshape(-1)
    in_shards(
        lambda first, last: _dense_products(*flat, first, last), even_bounds(len(left), num_shards(left.size * width))
    )
    return out


def gram_matrix(left: Float32, right: Float32) -> Float64:
    """``left.T @ right`` of contiguous [N, K] and [N, A] float32: [K, A], in float32 over ``GRAM_BLOCK`` rows and in float64 over those."""
    (count, terms), width = left.shape, right.shape[1]
    blocks = list(row_blocks(count, GRAM_BLOCK))
    parts = np.zeros((len(blocks), terms, width), np.float32)

    def add(first: int, last: int) -> None:
        for at in range(first, last):
            rows, others = left[blocks[at]], right[blocks[at]]
            _dense_products(
                rows.reshape(-1), 1, terms, len(rows), others.reshape(-1), width, parts[at].reshape(-1), 0, terms
            )

    in_shards(add, even_bounds(len(blocks), num_shards(left.size * width)))
    gram: Float64 = parts.sum(axis=0, dtype=np.float64)
    return gram

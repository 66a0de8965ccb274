"""What lies in a Parquet file for a column of vectors, read off its pages as they are: plain, uncompressed, version 1.

Arrow decodes such a column value by value, at six times the cost of reading it: each number has a level that says whether its row begins
there and one that says whether it is null. Rows of one length have runs of equal levels, and a run is checked in one step. What the pages
hold besides is the numbers, side by side, ready to be compared.

Source: Apache Parquet's format, ``parquet.thrift`` (PageHeader, DataPageHeader) and "Encodings" (RLE and bit-packing hybrid).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from rectifier_core.base.arrays import Bool
from rectifier_core.base.threads import kernel, read_only

DATA_PAGE, PLAIN, RLE = 0, 0, 3
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _BINARY, _STRUCT = 1, 2, 3, 4, 5, 6, 8, 12
_SIZE, _BYTES = numba.intp, read_only(numba.uint8, 1)


class PageError(ValueError):
    """A page is not what a plain column of such rows looks like."""


@kernel(numba.void(_BYTES, _SIZE, _SIZE, read_only(numba.bool_, 1), _SIZE, _SIZE, numba.int64[::1]))
def _follow(levels: Any, bits: Any, count: Any, given: Any, width: Any, high: Any, state: Any) -> None:
    """Hold ``count`` levels of ``bits`` bits each against those of the rows from ``state[0]``, number ``state[1]``, on.

    ``high`` is the level of a number that is there; 0 asks for repetition levels instead: 0 where a row begins, else 1. ``state[2]`` is 1
    from the first level on that is another.
    """
    at, left, packed, bit, base = 0, count, 0, 0, 0
    row, place = state[0], state[1]
    while left > 0:
        if packed:
            first = base + (bit >> 3)
            value = np.int64(levels[first]) >> (bit & 7)
            if (bit & 7) + bits > 8:
                value |= np.int64(levels[first + 1]) << (8 - (bit & 7))
            value &= (1 << bits) - 1
            bit, packed, run = bit + bits, packed - 1, 1
        else:
            header: Any = np.int64(0)
            shift, more = 0, True
            while more:
                if at >= len(levels) or shift > 35:
                    state[2] = 1
                    return
                header |= np.int64(levels[at] & 127) << shift
                more, at, shift = levels[at] > 127, at + 1, shift + 7
            run = header >> 1
            if header & 1:
                packed, base, bit, at = 8 * run, at, 0, at + run * bits
                if run == 0 or at > len(levels):
                    state[2] = 1
                    return
                continue
            if run == 0 or at >= len(levels):
                state[2] = 1
                return
            value, at = np.int64(levels[at]), at + 1
        run = min(run, left)
        left -= run
        while run > 0:
            if row >= len(given):
                state[2] = 1
                return
            there, steps = given[row], 1
            if high:
                wanted = high if there else 0
                steps = min(run, width - place) if there else 1
            else:
                wanted = 1 if place else 0
                steps = min(run, width - place) if place else 1
            if value != wanted:
                state[2] = 1
                return
            place, run = place + steps, run - steps
            if not there or place == width:
                row, place = row + 1, 0
    state[0], state[1] = row, place


def vector_pages(chunk: pa.Buffer, given: Bool, width: int, high: int) -> Iterator[pa.Buffer]:
    """The numbers of one column chunk, page by page, as little-endian float32.

    The chunk must hold ``given`` [R] rows, null where False, else of ``width`` numbers (at least 1) whose definition level is ``high``.
    Raises PageError where it does not, or is laid out in another way.
    """
    data = np.frombuffer(chunk, np.uint8)
    states = np.zeros((2, 3), np.int64)
    at = 0
    while at < len(data):
        header, at = _struct(data, at)
        size = header.get(3, -1)
        page = header.get(5)
        if (
            header.get(1) != DATA_PAGE
            or not isinstance(page, dict)
            or size != header.get(2)
            or not 0 <= size <= len(data) - at
        ):
            raise PageError("a page that is no plain data page")
        count, start = page.get(1, -1), at
        if (page.get(2), page.get(3), page.get(4)) != (PLAIN, RLE, RLE) or count < 0:
            raise PageError("a page of another encoding")
        for state, bits, level in ((states[0], 1, 0), (states[1], high.bit_length(), high)):
            length = int.from_bytes(data[at : at + 4].tobytes(), "little")
            _follow(data[at + 4 : at + 4 + length], bits, count, given, width, level, state)
            at += 4 + length
            if state[2] or at > start + size:
                raise PageError("rows of another length, or null elsewhere")
        yield chunk.slice(at, start + size - at)
        at = start + size
    if (states[:, :2] != (len(given), 0)).any():
        raise PageError("fewer rows")


def _struct(data: np.ndarray[Any, Any], at: int) -> tuple[dict[int, Any], int]:
    """A struct in Thrift's compact protocol, field number -> value, as far as page headers go; and where it ends."""
    found: dict[int, Any] = {}
    field = 0
    while True:
        head, at = _byte(data, at)
        if not head:
            return found, at
        kind = head & 15
        if head >> 4:
            field += head >> 4
        else:
            field, at = _zigzag(data, at)
        if kind in (_TRUE, _FALSE):
            found[field] = kind == _TRUE
        elif kind == _BYTE:
            found[field], at = _byte(data, at)
        elif kind in (_I16, _I32, _I64):
            found[field], at = _zigzag(data, at)
        elif kind == _BINARY:
            length, at = _varint(data, at)
            found[field], at = None, at + length
        elif kind == _STRUCT:
            found[field], at = _struct(data, at)
        else:
            raise PageError("a page header of another kind")


def _byte(data: np.ndarray[Any, Any], at: int) -> tuple[int, int]:
    if at >= len(data):
        raise PageError("a page header that is cut off")
    return int(data[at]), at + 1


def _varint(data: np.ndarray[Any, Any], at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte, at = _byte(data, at)
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _zigzag(data: np.ndarray[Any, Any], at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at

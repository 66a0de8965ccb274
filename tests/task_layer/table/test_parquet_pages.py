"""Vectors read off a file's pages: what Arrow decodes, whatever the lengths, the nulls and the pages; and damage anywhere is seen."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.table.parquet_pages import PageError, vector_pages

SHAPES = [(1, 1, 0.0), (50, 1, 0.5), (40, 7, 0.3), (64, 8, 0.0), (300, 129, 0.1), (20, 3000, 0.2), (9, 5, 1.0)]


def sample(rows: int, width: int, missing: float) -> tuple[Any, np.ndarray[Any, Any]]:
    rng = np.random.default_rng([rows, width])
    given = rng.random(rows) >= missing
    values = rng.standard_normal((rows, width), dtype=np.float32)
    lists = [row.tolist() if there else None for row, there in zip(values, given, strict=True)]
    return pa.array(lists, pa.list_(pa.field("element", pa.float32()))), values[given]


def chunk(column: Any, page_bytes: int, *, by_polars: bool = True) -> tuple[bytes, int]:
    sink = io.BytesIO()
    table = pa.table({"image": column})
    if by_polars:
        frame = pl.DataFrame(table)
        frame.write_parquet(sink, compression="uncompressed", data_page_size=page_bytes)
    else:
        pq.write_table(
            table, sink, compression="none", use_dictionary=False, data_page_size=page_bytes, write_batch_size=16
        )
    file = pq.ParquetFile(io.BytesIO(sink.getvalue()))
    found = file.metadata.row_group(0).column(0)
    at = found.data_page_offset
    return sink.getvalue()[at : at + found.total_compressed_size], file.schema.column(0).max_definition_level


def read(data: bytes, given: Any, width: int, high: int) -> tuple[bytes, int]:
    pages = [page.to_pybytes() for page in vector_pages(pa.py_buffer(data), given, width, high)]
    return b"".join(pages), len(pages)


@pytest.mark.parametrize("by_polars", [True, False])
@pytest.mark.parametrize("page_bytes", [200, 1 << 20])
@pytest.mark.parametrize(("rows", "width", "missing"), SHAPES)
def test_the_pages_hold_the_numbers(rows: int, width: int, missing: float, page_bytes: int, by_polars: bool) -> None:
    column, values = sample(rows, width, missing)
    data, high = chunk(column, page_bytes, by_polars=by_polars)
    found, pages = read(data, column.is_valid().to_numpy(zero_copy_only=False), width, high)
    assert found == values.tobytes()
    assert page_bytes > 200 or width * rows < 200 or not len(values) or pages > 1


@pytest.mark.parametrize("by_polars", [True, False])
def test_rows_of_another_length_or_null_elsewhere_are_seen(by_polars: bool) -> None:
    column, _ = sample(40, 7, 0.3)
    data, high = chunk(column, 400, by_polars=by_polars)
    given = column.is_valid().to_numpy(zero_copy_only=False)
    for other, width in (
        (given, 6),
        (given, 8),
        (~given, 7),
        (given[:-1], 7),
        (np.append(given, True), 7),
        (np.roll(given, 1), 7),
    ):
        with pytest.raises(PageError):
            read(data, other, width, high)
    with pytest.raises(PageError):
        read(data, given, 7, high + 1)


def test_a_number_that_is_null_is_seen() -> None:
    column = pa.array([[1.0, 2.0], [3.0, None]], pa.list_(pa.float32()))
    data, high = chunk(column, 1 << 20)
    with pytest.raises(PageError):
        read(data, np.ones(2, np.bool_), 2, high)


def test_no_changed_byte_goes_unseen() -> None:
    column, values = sample(12, 5, 0.25)
    data, high = chunk(column, 1 << 20)
    given, rng = column.is_valid().to_numpy(zero_copy_only=False), np.random.default_rng(0)
    assert read(data, given, 5, high)[0] == values.tobytes()
    unseen = []
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.integers(8)
        try:
            same = read(bytes(changed), given, 5, high)[0] == values.tobytes()
        except PageError:
            continue
        if same:
            unseen.append(at)
    # Bytes that say nothing of the rows: bounds in the page's header, the padding of the last group of levels.
    assert all(at < data.index(values[0].tobytes()) for at in unseen)
    for cut in range(len(data)):
        with pytest.raises(PageError):
            read(data[:cut], given, 5, high)


def test_another_encoding_is_refused() -> None:
    column, _ = sample(40, 7, 0.3)
    sink = io.BytesIO()
    for options in ({"data_page_version": "2.0"}, {"use_byte_stream_split": True, "use_dictionary": False}):
        sink = io.BytesIO()
        pq.write_table(pa.table({"image": column}), sink, compression="none", **({"use_dictionary": False} | options))
        found = pq.ParquetFile(io.BytesIO(sink.getvalue())).metadata.row_group(0).column(0)
        data = sink.getvalue()[found.data_page_offset :][: found.total_compressed_size]
        with pytest.raises(PageError):
            read(data, column.is_valid().to_numpy(zero_copy_only=False), 7, 3)

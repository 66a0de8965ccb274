"""CSV without formulas, pictures that a page may fetch, and files that are complete or absent."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.audit.csv_guard import FORMULA, guarded, unguarded
from tasks.audit.page import safe_picture
from tasks.audit.tables import write_csv, write_parquet
from tasks.errors import StorageError


@given(st.text())
@example("=1+1")
@example("'=1")
@example("''-1")
@example("\tx")
def test_a_guarded_text_is_no_formula_and_comes_back_as_it_was(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert not guarded(text).startswith(FORMULA)


def test_csv_joins_lists_and_guards_text(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"title": ["=cmd()", 'a "b", c'], "ids": [["-x", "y"], []], "p": [[0.123456, 0.5], None], "n": [-3, None]},
        schema={"title": pl.String, "ids": pl.List(pl.String), "p": pl.List(pl.Float32), "n": pl.Int64},
    )
    write_csv(tmp_path / "a.csv", table)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [x["title"] for x in rows] == ["'=cmd()", 'a "b", c']
    assert rows[0]["ids"] == "'-x | y"
    assert rows[0]["p"].split(" | ") == ["0.1235", "0.5"]
    assert (rows[0]["n"], rows[1]["n"]) == ("-3", "")


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"x\.parquet: cannot be written: .*another --out"):
        write_parquet(tmp_path / "file" / "x.parquet", pl.DataFrame())


GOOD = [
    "https://a.example/b.jpg?x=1&y=<z>",
    "http://a.example:80/b",
    "data:image/png;base64,AAAA",
    " data:image/jpeg;base64,AA== ",
]
BAD = [
    None,
    "",
    "pictures/1.jpg",
    "/etc/passwd",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "JAVASCRIPT:alert(1)",
    "data:image/svg+xml;base64,AAAA",
    "data:text/html;base64,AAAA",
    'data:image/png;base64,AAAA" onerror="x',
    "https://user:secret@a.example/b",
    "https:///b",
    "http://[a",
    "https://a.example/b c",
    "https://a.example/b\nc",
    "https://a.example/" + "x" * 3000,
    "data:image/png;base64," + "A" * 30_000,
]


@pytest.mark.parametrize("value", [*GOOD, *BAD])
def test_pictures_a_page_may_show(value: str | None) -> None:
    assert safe_picture(value) == (value.strip() if value in GOOD and value else None)

"""An audit's tables on disk: Parquet for programs, and CSV that a spreadsheet can open without running anything in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from tasks.store.atomic_files import write_whole

# A cell that starts so is a formula to a spreadsheet; an apostrophe before it makes it text.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def guarded(text: str) -> str:
    """``text`` as a spreadsheet shows it without taking it for a formula; what ``unguarded`` could mistake for that is guarded too."""
    return (
        f"'{text}"
        if text.startswith(FORMULA) or (text.startswith("'") and text[1:].startswith((*FORMULA, "'")))
        else text
    )


def unguarded(text: str) -> str:
    """The text that ``guarded`` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith((*FORMULA, "'")) else text


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write ``table`` atomically. Raises StorageError."""
    whole(path, lambda place: table.write_parquet(place, compression="zstd"))


def write_csv(path: Path, table: pl.DataFrame) -> None:
    """Write ``table`` atomically, lists joined by `` | ``, text guarded against formulas. Raises StorageError."""
    flat = table.with_columns(
        _joined(name, kind) if isinstance(kind, pl.List) else pl.col(name)
        for name, kind in table.schema.items()
        if kind != pl.Null
    )
    text = [name for name, kind in flat.schema.items() if kind == pl.String]
    safe = flat.with_columns(pl.col(name).map_elements(guarded, return_dtype=pl.String) for name in text)
    # The mark tells a spreadsheet that the text is UTF-8.
    whole(path, lambda place: safe.write_csv(place, include_bom=True))


def _joined(name: str, kind: pl.List) -> pl.Expr:
    parts = pl.element().round(4).cast(pl.String) if kind.inner.is_float() else pl.element().cast(pl.String)
    return pl.col(name).list.eval(parts.fill_null("")).list.join(" | ")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically. Raises StorageError."""
    whole(path, lambda place: place.write_text(text, encoding="utf-8"))


def whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file, which appears only when it is complete. Raises StorageError naming the file."""
    write_whole(
        path,
        write,
        failed="audit: writing {path} failed: {why}; free or fix the disk, or choose another --out, then run again",
    )

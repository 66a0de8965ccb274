"""Which log rows are positive feedback: the SQL predicate of ``source.positive``, parsed and evaluated by polars."""

from __future__ import annotations

import re

import polars as pl
import polars.selectors as cs
import pyarrow as pa
from polars.exceptions import PolarsError

from rectifier_core.base.arrays import Bool
from tasks.errors import InputError
from tasks.object_store import StoredFile

KEY = "source.positive"
# These depend on the clock, so reading the same day again would give other pairs.
CLOCK = re.compile(r"\b(CURRENT_(DATE|TIME|TIMESTAMP)|LOCALTIME(STAMP)?)\b|\bNOW\s*\(", re.IGNORECASE)
# A query in the predicate could read any file that this process can: polars opens it when it parses the text.
QUERY = re.compile(r"\b(SELECT|VALUES)\b|\(\s*FROM\b|--|/\*", re.IGNORECASE)
# With these quotes and escapes we cannot see where a string ends, so the whole text is searched.
ODD_QUOTES = re.compile(r"[\\$`]")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
# Aggregates and windows would see one batch at a time, so the result would depend on how the log is cut into files.
ACROSS_ROWS = re.compile(r'"(Agg|Over)":|(?<!"Column")(?<!"String"):"Len"')


class Predicate:
    """A parsed predicate; ``columns`` are the log columns it reads."""

    def __init__(self, text: str) -> None:
        """Raises InputError if ``text`` is not a predicate over columns that judges each row by itself."""
        self.text = text
        if CLOCK.search(QUOTED.sub("", text)):
            raise InputError(
                f"{KEY}: {text!r} depends on the current time, so another run would give other pairs; write a fixed date, or use lookback_days"
            )
        if QUERY.search(text if ODD_QUOTES.search(text) else QUOTED.sub("", text)):
            raise InputError(
                f"{KEY}: {text!r} holds a query or a comment; a predicate judges the columns of a row, and reads nothing else"
            )
        try:
            self._expression = pl.sql_expr(text)
            self.columns = sorted(set(self._expression.meta.root_names()))
            across = ACROSS_ROWS.search(self._expression.meta.serialize(format="json"))
        except PolarsError as error:
            raise InputError(f"{KEY}: cannot understand {text!r} ({_line(error)})") from error
        if not self.columns:
            raise InputError(f"{KEY}: {text!r} names no column of the interactions")
        if across:
            raise InputError(
                f"{KEY}: {text!r} compares rows with one another; a predicate must judge each row by itself"
            )

    def mask(self, batch: pa.RecordBatch, file: StoredFile) -> Bool:
        """Which rows satisfy the predicate [N] bool; null and NaN never do. Raises InputError if the columns' types do not fit it."""
        try:
            frame = pl.DataFrame({name: pl.from_arrow(_comparable(batch.column(name))) for name in self.columns})
            # To polars NaN is the largest number, so "rating >= 4" would hold for it.
            found = frame.with_columns(cs.float().fill_nan(None)).select(positive=self._expression)["positive"]
        except PolarsError as error:
            raise InputError(f"{KEY}: {self.text!r} cannot be applied to {file.uri} ({_line(error)})") from error
        if found.dtype != pl.Boolean or len(found) != batch.num_rows:
            raise InputError(f"{KEY}: {self.text!r} gives {found.dtype}, not true or false; compare it with something")
        mask: Bool = found.fill_null(False).to_numpy()
        return mask


def _comparable(column: pa.Array) -> pa.Array:
    # Polars panics where it compares decimals of 256 bits.
    return column.cast(pa.float64()) if pa.types.is_decimal256(column.type) else column


def _line(error: PolarsError) -> str:
    return str(error).split("\n")[0]

"""Ids, titles, categories, texts and pictures of the catalog's items by row, for the report and the audit."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from rectifier_core.base.arrays import Int64
from tasks.store.store import Ref

LABELS = ("title", "category", "text", "picture")
LONGEST_ID = 80
LONGEST_TITLE = 100
_SEPARATORS = re.compile(r"\s*[|,;]\s*")
# A reason names a category only if so many of the nearest items have it.
_FEWEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Majority:
    """``count`` of the ``of`` nearest items are of this category."""

    category: str
    count: int
    of: int


class Catalog:
    """Labels of all items by row. A column is read when it is first asked for."""

    def __init__(self, source: Ref) -> None:
        self._path = source.file("labels.parquet")
        self._known = pl.read_parquet_schema(self._path) if self._path.exists() else {}
        self._columns = {"item_id": pl.Series("item_id", np.asarray(source.array("item_ids")))}

    def has(self, name: str) -> bool:
        """Return whether the config names a column for this label."""
        return name in self._known

    def column(self, name: str, rows: Int64) -> pl.Series:
        """Return ``item_id`` or one of ``LABELS`` of the rows, null for row -1."""
        return self._whole(name).gather(pl.Series(rows).replace(-1, None))

    def _whole(self, name: str) -> pl.Series:
        if name not in self._columns:
            empty = pl.Series(name, [None], pl.String).new_from_index(0, len(self._columns["item_id"]))
            self._columns[name] = pl.read_parquet(self._path, columns=[name])[name] if self.has(name) else empty
        return self._columns[name]

    def card(self, row: int) -> dict[str, Any]:
        """Return the id, title and category of an item, short enough for a page; None where the catalog gives none."""
        item_id, title, category = (self._whole(name)[row] for name in ("item_id", "title", "category"))
        return {"item_id": shorten(item_id, LONGEST_ID), "title": shorten(title), "category": shorten(category)}

    def text(self, name: str, row: int) -> str | None:
        """Return one label of an item as the catalog has it."""
        found: str | None = self._whole(name)[row]
        return found

    def names(self, rows: Int64) -> list[str]:
        """Return the titles of the rows, or ids where there is none, without rows of -1."""
        kept = rows[rows >= 0]
        pairs = zip(self.column("title", kept), self.column("item_id", kept), strict=True)
        return [shorten(title, 60) or str(item) for title, item in pairs]

    @cached_property
    def _tag_counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for value, count in self._whole("category").value_counts().iter_rows():
            counts.update(dict.fromkeys(_tags(value), count))
        return counts

    def majority(self, rows: Int64) -> Majority | None:
        """Return the category that is most over-represented among the rows, None if there is none."""
        kept = rows[rows >= 0]
        counts: Counter[str] = Counter()
        for value in self.column("category", kept):
            counts.update(_tags(value))
        # The log-likelihood ratio of the category's share here against its share of the catalog.
        items = len(self._whole("item_id"))
        scores = {
            tag: count * math.log(count / len(kept) * items / self._tag_counts[tag])
            for tag, count in counts.items()
            if count >= _FEWEST
        }
        best = max(sorted(scores), key=lambda tag: scores[tag], default=None)
        return Majority(category=best, count=counts[best], of=len(kept)) if best and scores[best] > 0 else None


def _tags(value: str | None) -> set[str]:
    """Return the single categories of a text that may list several."""
    return {part for part in _SEPARATORS.split(value.strip()) if part} if value else set()


def shorten(value: Any, longest: int = LONGEST_TITLE) -> str | None:
    """``value`` as one line of at most ``longest`` characters. Control characters become spaces; None and blanks become None."""
    if value is None:
        return None
    text = str(value)[: 20 * longest]
    line = " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).split())
    return (line if len(line) <= longest else line[: longest - 1] + "…") or None

"""Ids, titles, categories, texts and pictures of the catalog's items by row."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl

from rectifier_core.base.arrays import Int64
from tasks.report.suspects import shorten
from tasks.store.store import Ref

LABELS = ("title", "category", "text", "picture")
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
    """Labels of all items by row."""

    def __init__(self, source: Ref) -> None:
        path = source.file("labels.parquet")
        known = pl.read_parquet_schema(path) if path.exists() else {}
        names = [name for name in LABELS if name in known]
        table = pl.DataFrame({"item_id": np.asarray(source.array("item_ids"))})
        if names:
            table = table.hstack(pl.read_parquet(path, columns=names))
        self._table = table.with_columns(pl.lit(None, pl.String).alias(x) for x in LABELS if x not in names)
        self.has_texts, self.has_pictures = "text" in names, "picture" in names
        self._tag_counts: Counter[str] = Counter()
        for value, count in self._table["category"].value_counts().iter_rows():
            self._tag_counts.update(dict.fromkeys(_tags(value), count))

    def column(self, name: str, rows: Int64) -> pl.Series:
        """Return ``item_id`` or one of ``LABELS`` of the rows, null for row -1."""
        return self._table[name].gather(pl.Series(rows).replace(-1, None))

    def names(self, rows: Int64) -> list[str]:
        """Return the titles of the rows, or ids where there is none, without rows of -1."""
        kept = rows[rows >= 0]
        pairs = zip(self.column("title", kept), self.column("item_id", kept), strict=True)
        return [shorten(title, 60) or str(item) for title, item in pairs]

    def majority(self, rows: Int64) -> Majority | None:
        """Return the category that is most over-represented among the rows, None if there is none."""
        kept = rows[rows >= 0]
        counts: Counter[str] = Counter()
        for value in self.column("category", kept):
            counts.update(_tags(value))
        # The log-likelihood ratio of the category's share here against its share of the catalog.
        scores = {
            tag: count * math.log(count / len(kept) * len(self._table) / self._tag_counts[tag])
            for tag, count in counts.items()
            if count >= _FEWEST
        }
        best = max(sorted(scores), key=lambda tag: scores[tag], default=None)
        return Majority(category=best, count=counts[best], of=len(kept)) if best and scores[best] > 0 else None


def _tags(value: str | None) -> set[str]:
    """Return the single categories of a text that may list several."""
    return {part for part in _SEPARATORS.split(value.strip()) if part} if value else set()

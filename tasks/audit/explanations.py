"""Why an item is suspect: which items its feature resembles, and which items its buyers and its other modalities resemble."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rectifier_core.base.arrays import Int64
from tasks.audit.findings import Findings
from tasks.report.phrases import number, percent, rate_phrase, stretch_phrase
from tasks.report.suspects import shorten
from tasks.store.store import Ref

SEPARATORS = re.compile(r"\s*[|,;]\s*")
# A category needs so many of the nearest items before a reason names it.
LEAST_COMPANY = 3
SURE = 0.5


class Catalog:
    """Ids, titles, categories and pictures of all items by row, None where the catalog gives none."""

    def __init__(self, source: Ref) -> None:
        self.ids = source.array("item_ids")
        path = source.file("labels.parquet")
        names = pl.scan_parquet(path).collect_schema().names() if path.exists() else []
        wanted: list[str] = [name for name in ("title", "category", "picture") if name in names]
        table = pl.read_parquet(path, columns=wanted) if wanted else pl.DataFrame()
        self._columns = {name: table[name] for name in wanted}
        self.has_categories, self.has_pictures = "category" in wanted, "picture" in wanted
        self._held = self._count_tags()

    def _count_tags(self) -> Counter[str]:
        held: Counter[str] = Counter()
        if self.has_categories:
            for value, count in self._columns["category"].value_counts().iter_rows():
                held.update(dict.fromkeys(tags(value), count))
        return held

    def column(self, name: str, rows: Int64) -> list[Any]:
        """``title``, ``category`` or ``picture`` of the rows; None for row -1."""
        if name not in self._columns:
            return [None] * len(rows)
        found = self._columns[name].gather(np.maximum(rows, 0)).to_list()
        return [value if row >= 0 else None for value, row in zip(found, rows.tolist(), strict=True)]

    def names(self, rows: Int64) -> list[str]:
        """Titles of the rows, or ids where there is none; rows of -1 are left out."""
        kept = rows[rows >= 0]
        titles = [shorten(x, 60) for x in self.column("title", kept)]
        return [title or str(item) for title, item in zip(titles, self.ids[kept].tolist(), strict=True)]

    def company(self, rows: Int64) -> Company | None:
        """The category that stands out most among the rows, against its share of the catalog; None where none does."""
        kept = rows[rows >= 0]
        held: Counter[str] = Counter()
        for value in self.column("category", kept):
            held.update(tags(value))
        shares = {tag: self._held[tag] / len(self.ids) for tag in held}
        standing = {
            tag: count * math.log(count / len(kept) / shares[tag])
            for tag, count in held.items()
            if count >= LEAST_COMPANY and count / len(kept) > shares[tag]
        }
        if not standing:
            return None
        best = max(sorted(standing), key=lambda tag: standing[tag])
        return Company(category=best, count=held[best], of=len(kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """``count`` of the ``of`` nearest items are of this category."""

    category: str
    count: int
    of: int

    def __str__(self) -> str:
        return f"{self.category} ({self.count} of the {self.of} nearest items)"


def tags(value: str | None) -> set[str]:
    """The single categories in a category's text, which may list several with commas, semicolons or bars."""
    return {part for part in SEPARATORS.split(value.strip()) if part} if value else set()


def reasons(name: str, found: Findings, catalog: Catalog) -> list[str]:
    """One line a detailed suspect of a modality."""
    searched, buyers = found.searched[name], found.buyers[name]
    rows = found.judged[name].listed.rows[: len(buyers)]
    lines = []
    for at, row in enumerate(rows.tolist()):
        others = {
            other: places[at]
            for other, places in found.says[name].items()
            if found.judged[other].current[row] >= SURE and (places[at] >= 0).any()
        }
        lines.append(reason(name, searched.looks_like[at], buyers[at], others, catalog))
    return lines


def reason(name: str, looks_like: Int64, buyers: Int64, others: dict[str, Int64], catalog: Catalog) -> str:
    """Where the feature belongs, then where buyers and other modalities place the item: by category where these differ, else by title."""
    places = [("its buyers", buyers), *((f"its {other}", at) for other, at in others.items())]
    told = [(who, at) for who, at in places if (at >= 0).any()]
    own, companies = catalog.company(looks_like), [catalog.company(at) for _, at in told]
    differing = own is not None and any(x is not None and x.category != own.category for x in companies)
    if differing:
        said = f"its {name} sits with {own}"
        parts = _grouped([(who, x) for (who, _), x in zip(told, companies, strict=True)])
    else:
        said = (
            f"its {name} sits with {_listed(catalog.names(looks_like))}"
            if (looks_like >= 0).any()
            else f"its {name} fits no item well"
        )
        parts = [f"{who} {_place(who)} it with {_listed(catalog.names(at))}" for who, at in told]
    if not (buyers >= 0).any():
        parts.insert(0, "it has no interactions to place it by")
    return "; ".join([said, *parts])


def _grouped(told: Sequence[tuple[str, Company | None]]) -> list[str]:
    """One clause a category, for all sources that name it; a source without a category is left out."""
    by_category: dict[str, list[tuple[str, Company]]] = {}
    for who, company in told:
        if company is not None:
            by_category.setdefault(company.category, []).append((who, company))
    clauses = []
    for category, sources in by_category.items():
        who = " and ".join(x for x, _ in sources)
        counts = " and ".join(f"{x.count} of {x.of}" for _, x in sources)
        clauses.append(f"{who} {'place' if len(sources) > 1 else _place(sources[0][0])} it with {category} ({counts})")
    return clauses


def _place(who: str) -> str:
    return "place" if who == "its buyers" else "places"


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(f"“{name}”" for name in names[:most])


def describe_audit(found: dict[str, Any]) -> str:
    """The lines that the command prints."""
    lines = [f"{found['as_of']}: audited, nothing published"]
    for name, x in found["modalities"].items():
        if x["identifiable"]:
            stretch = f", {stretch_phrase(x)}" if stretch_phrase(x) else ""
            lines.append(f"  {name}: {rate_phrase(x)} of {x['judged']:,} judged items look mismatched{stretch}")
            at_most = f" (at most {number(x['expected_false_at_most'], 2)})"
            lines.append(
                f"    {x['suspects']:,} listed, about {number(x['expected_false'], 2)} of them expected to be false alarms{at_most}"
            )
        else:
            lines.append(f"  {name}: mismatches cannot be detected: {x['reason']}")
        left = x["items"] - x["judged"]
        whys = "; ".join(f"{count:,} {why}" for why, count in x["unjudged"].items())
        lines.append(f"    {left:,} of {x['items']:,} items could not be judged" + (f": {whys}" if whys else ""))
        if check := x["hand_check"]:
            expected = number(check["expected"], 3)
            lines.append(
                f"    of {check['n']:,} drawn for a hand check expect about {expected} mismatches, {check['low']} to {check['high']}"
            )
        by_hand = found["labels"]["modalities"][name]["agreement"] if found["labels"] else None
        if by_hand:
            mended = found["labels"]["modalities"][name]["recalibration"]
            after = f"{percent(mended['rate'])} ({percent(mended['rate_low'])} to {percent(mended['rate_high'])})"
            said = f"{by_hand['mismatches']:,} of {by_hand['labelled']:,} labelled items are mismatched"
            lines.append(
                f"    {said}; rate after recalibration {after}"
                + ("" if by_hand["like_random"] else " (the labelled items are not a random sample)")
            )
    return "\n".join([*lines, f"page: {found['page']}"])

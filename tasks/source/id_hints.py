"""Why ids of the log are not in the catalog: examples of both sides, and which change of spelling would make them match."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from tasks.source.columns.ids import TEXT, common_family, in_family, positions, read_ids
from tasks.source.config import SourceConfig
from tasks.source.files import stream
from tasks.source.inspect import Inspection
from tasks.source.schema import ITEM_KEY

SHOWN = 3
# Each with what it would do. Most ids that a spelling makes match are worth naming from this share on.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "trimming blanks": str.strip,
    "ignoring case": str.casefold,
    "dropping leading zeros": lambda x: x.lstrip("0") or "0",
    'dropping ".0" at the end': lambda x: x.removesuffix(".0"),
    "dropping dashes": lambda x: x.replace("-", ""),
    "dropping what stands before the digits": lambda x: re.sub(r"^\D+(?=\d+$)", "", x),
}
WORTH_NAMING = 0.1
CHECKED_ROWS = 100_000
MOST_KNOWN, MOST_UNKNOWN = 500_000, 5_000


def no_match_remedy(unknown: pa.Array, known: pa.Array, config: SourceConfig) -> str:
    """What to say where many ids of the log (``unknown``, distinct) are none of the catalog's ``known``."""
    missing, there = _words(unknown)[:MOST_UNKNOWN], _words(known)
    log, catalog = (", ".join(map(repr, x[:SHOWN])) for x in (missing, there))
    examples = f"the log has {log} and the catalog {catalog}"
    way = matching_spelling(missing, there[:MOST_KNOWN])
    if way is not None:
        return f"{examples}: {way}; write the ids of source.item_column {config.item_column!r} alike in both"
    return (
        f"{examples}: no simple spelling makes them match; check that source.item_column {config.item_column!r} is the same id in both,"
        " and that the catalog's snapshot holds all items"
    )


@dataclass(frozen=True, slots=True)
class IdCheck:
    """How many distinct item ids at the end of the log were looked at, how many the catalog has, and the way out for the others."""

    looked_at: int
    known: int
    remedy: str | None


def all_ids(found: Inspection, config: SourceConfig) -> pa.Array:
    """The ids of all rows of the catalog, as int64 or large_string. Raises InputError for ids that cannot be read."""
    key, column = f"{ITEM_KEY} {config.item_column!r}", config.item_column
    chunks = [
        read_ids(batch.column(0), found.catalog_schema.items.uuid, file, key)
        for file, batch in stream(found.catalog, {column: ITEM_KEY}, CHECKED_ROWS)
    ]
    return pa.chunked_array([in_family(x, common_family(chunks)) for x in chunks]).combine_chunks().drop_null()


def check_ids(found: Inspection, config: SourceConfig) -> IdCheck:
    """Look up the item ids of the log's last file in the catalog. Raises InputError for ids that cannot be read."""
    key, column = f"{ITEM_KEY} {config.item_column!r}", config.item_column
    catalog = all_ids(found, config)
    last = replace(found.log, files=found.log.files[-1:])
    batches = stream(last, {column: ITEM_KEY}, CHECKED_ROWS)
    file, batch = next(batches, (None, None))
    if file is None or batch is None:
        return IdCheck(0, 0, None)
    ids = read_ids(batch.column(0), found.log_schema.items.uuid, file, key).drop_null().unique()
    missing = ids.filter(positions(ids, catalog).is_null())
    known = len(ids) - len(missing)
    enough = len(missing) <= config.max_quarantined * len(ids)
    return IdCheck(len(ids), known, None if enough else no_match_remedy(missing, catalog, config))


def matching_spelling(missing: list[str], there: list[str]) -> str | None:
    """Which change of spelling makes the most of the ids match, in words; None where none does. One change alone is tried first."""
    best: tuple[int, str] | None = None
    *names, prefix = SPELLINGS
    pairs = [[a, b] for i, a in enumerate(names) for b in names[i + 1 :]]
    tries = [*([name] for name in names), *pairs, [prefix], [*names, prefix]]
    for chosen in tries:
        catalog = {_spelt(x, chosen) for x in there}
        found = sum(_spelt(x, chosen) in catalog for x in missing)
        if found > (best[0] * 1.05 if best else WORTH_NAMING * len(missing)):
            best = found, " and ".join(chosen)
        if best is not None and best[0] == len(missing):
            break
    return None if best is None else f"{best[1]} would match {best[0]:,} of {len(missing):,} ids"


def _spelt(word: str, chosen: list[str]) -> str:
    for name in chosen:
        word = SPELLINGS[name](word)
    return word


def _words(ids: pa.Array) -> list[str]:
    words: list[str] = in_family(ids.drop_null().unique(), TEXT).to_pylist()
    return words

"""Which key each column of a catalog and a log is for: by what its values are, and by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import InputError
from tasks.first_config.columns import SAMPLE, TIME_NAME, Columns, find_embeddings
from tasks.source.columns.arrow import is_list, is_text, plain_type

_ITEM = re.compile(
    r"(item|product|article|movie|track|book|video|song|game|news|sku|asin|isbn|gtin)s?_?(id|no|nr|key|code)?", re.I
)
_USER = re.compile(
    r"(user|customer|client|member|visitor|account|session|buyer|reviewer|profile)s?_?(id|no|nr|key|code)?", re.I
)
_RATING = re.compile(r"(rating|score|stars?|weight|value)", re.I)
_AMOUNT = re.compile(r"(quantity|price|amount|count|duration|position|rank)", re.I)
_EVENT = re.compile(r"(event|action|type|event_type|interaction)", re.I)
_TITLE = re.compile(r"(title|name|headline|label)", re.I)
_CATEGORY = re.compile(r"(categor(y|ies)|genres?|brand|department|class)", re.I)
_TEXT = re.compile(r"(description|desc|text|summary|abstract|plot|body)", re.I)
_PICTURE = re.compile(r"((image|img|picture|photo|thumbnail|cover)(_?(url|uri|link))?|url)", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What ``init`` found for one key: the one column, or several to choose from, or none; and what its values are, if that is worth a word."""

    key: str
    candidates: tuple[str, ...]
    taken_for: str = ""

    @property
    def column(self) -> str | None:
        """The column, None unless there is exactly one."""
        return self.candidates[0] if len(self.candidates) == 1 else None


def guess_columns(catalog: Columns, log: Columns) -> dict[str, Guess]:
    """The columns of each key of ``[source]``. Raises InputError if no column of ids is in both files."""
    catalog_ids, log_ids = catalog.ids(), log.ids()
    shared = [x for x in catalog_ids if x in log_ids]
    if not shared:
        raise InputError(
            f"{log.uri}: no column of ids has the name of one of {catalog.uri}: {', '.join(log_ids) or 'none'}, and"
            f" {', '.join(catalog_ids) or 'none'}; the item's id must have one name in both, so rename it in one of them"
        )
    item = _named(_ITEM, shared) or [x for x in shared if catalog.distinct(x)] or shared
    named_users = [x for x in _named(_USER, log_ids) if x not in item]
    times = _times(log, [*item, *named_users])
    other = [x for pattern in (_RATING, _AMOUNT, _EVENT, TIME_NAME) for x in _named(pattern, log_ids)]
    users = named_users or [x for x in log_ids if x not in (*item, *times, *other)]
    vectors = [x.column for x in find_embeddings(catalog)]
    labels = [x for x, kind in catalog.types.items() if is_text(kind) and x not in (*item, *vectors)]
    listed = [x for x, kind in catalog.types.items() if is_list(kind) and is_text(plain_type(kind.value_type))]
    found: dict[str, Sequence[str]] = {
        "item_column": item,
        "user_column": users,
        "time_column": list(times),
        "title_column": _named(_TITLE, labels),
        "category_column": _named(_CATEGORY, [*labels, *listed]),
        "text_column": _named(_TEXT, labels),
        "picture_column": _named(_PICTURE, labels),
    }
    guesses = {key: Guess(key=key, candidates=tuple(columns)) for key, columns in found.items()}
    only = guesses["time_column"].column
    return (
        guesses if only is None else guesses | {"time_column": replace(guesses["time_column"], taken_for=times[only])}
    )


def _times(log: Columns, taken: Sequence[str]) -> dict[str, str]:
    """The columns that may be the time of an interaction, and what their values are.

    Numbers without a name of a time, which may be hashes, count only where there is no other column.
    """
    flat = [x for x, kind in log.types.items() if x not in taken and not pa.types.is_nested(kind)]
    found = {x: unit for x in flat if (unit := log.time_unit(x)) is not None}
    clear = {
        x: y
        for x, y in found.items()
        if pa.types.is_temporal(log.types[x]) or is_text(log.types[x]) or TIME_NAME.fullmatch(x)
    }
    return clear or found


def feedback_examples(log: Columns) -> list[str]:
    """Lines that could say which rows are positive, with the values that were seen."""
    examples = []
    for column in _named(_RATING, [x for x, kind in log.types.items() if _is_number(kind)]):
        ends = pc.min_max(log.sample(column, SAMPLE)).as_py()
        low, high = ends["min"], ends["max"]
        if low is not None and low < high:
            bound = round(low + 0.75 * (high - low), 1)
            examples.append((f"{_sql(column)} >= {bound:g}", f"{column} is {low:g} to {high:g}"))
    for column in _named(_EVENT, [x for x, kind in log.types.items() if is_text(kind)]):
        counts = sorted(pc.value_counts(log.sample(column, SAMPLE).drop_null()).to_pylist(), key=lambda x: -x["counts"])
        values = [" ".join(x["values"].split())[:40] for x in counts[:6]]
        if values:
            first = values[0].replace("'", "''")
            examples.append((f"{_sql(column)} IN ('{first}')", f"{column} is {', '.join(values)}"))
    return [f"positive = {quoted(predicate)}   # {' '.join(seen.split())}" for predicate, seen in examples]


def which_is_which(folder: str, uris: Iterable[str]) -> tuple[str, str]:
    """The catalog and the log among the inputs of a folder: only a catalog has embeddings. Raises InputError if that does not tell."""
    seen = {uri: Columns.of(uri) for uri in uris}
    found = {uri: find_embeddings(x) for uri, x in seen.items()}
    catalogs = [uri for uri, x in found.items() if any(not y.doubt for y in x)] or [
        uri for uri, x in found.items() if x
    ]
    logs = [uri for uri, x in seen.items() if uri not in catalogs and len(x.ids()) > 1]
    if len(catalogs) != 1 or len(logs) != 1:
        raise InputError(
            f"{folder}: wanted one input with embeddings, found {', '.join(catalogs) or 'none'}, and one with ids alone, found"
            f" {', '.join(logs) or 'none'}; name the catalog and the log: --catalog PATH --interactions PATH"
        )
    return catalogs[0], logs[0]


def quoted(text: str) -> str:
    """A string as TOML has it."""
    return json.dumps(text, ensure_ascii=False)


def _named(pattern: re.Pattern[str], columns: Iterable[str]) -> list[str]:
    """The columns of such a name; if none has it, those whose name ends with one, as app_user_id does."""
    words = {x: re.sub(r"\W+", "_", x).strip("_") for x in columns}
    whole = [x for x, word in words.items() if pattern.fullmatch(word)]
    return whole or [x for x, word in words.items() if re.search(rf"_({pattern.pattern})$", word, re.I)]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _sql(column: str) -> str:
    return column if re.fullmatch(r"[A-Za-z_]\w*", column, re.ASCII) else '"' + column.replace('"', '""') + '"'

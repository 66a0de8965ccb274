"""What the columns of a catalog and a log may be, by their types, their names and a sample of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import InputError
from tasks.object_store import reading
from tasks.source.columns.arrow import is_text, plain_type, plain_values
from tasks.source.config import PUBLISHED
from tasks.source.files import list_files_of, open_parquet

_ITEM = re.compile(
    r"(item|product|article|movie|track|book|video|song|game|news|sku|asin|isbn|gtin)s?_?(id|no|nr|key|code)?", re.I
)
_USER = re.compile(
    r"(user|customer|client|member|visitor|account|session|buyer|reviewer|profile)s?_?(id|no|nr|key|code)?", re.I
)
_TIME = re.compile(r".*(time|date|timestamp|_at|_ts)|ts", re.I)
_RATING = re.compile(r"(.*_)?(rating|score|stars?|weight|value)", re.I)
_EVENT = re.compile(r"(.*_)?(event|action|type|event_type|interaction)", re.I)
_TITLE = re.compile(r"(.*_)?(title|name|headline|label)", re.I)
_CATEGORY = re.compile(r"(.*_)?(categor(y|ies)|genres?|brand|department|class)", re.I)
_PICTURE = re.compile(r"(.*_)?((image|img|picture|photo|thumbnail|cover)(_?(url|uri|link))?|url)", re.I)
_EMBEDDING = re.compile(r"_?(embeddings?|emb|vectors?|vec|features?|feats?)$", re.I)
SAMPLE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The types of an input's columns by name, a sample of its rows, and its ``dt=`` days."""

    uri: str
    types: dict[str, pa.DataType]
    sample: pa.Table
    days: tuple[str, ...]

    @classmethod
    def of(cls, uri: str) -> Columns:
        """Those of the newest file of an input. Raises InputError if it cannot be read."""
        listing = list_files_of(uri)
        files = listing.everything
        file = files.files[-1]
        with open_parquet(files.filesystem, file, {}) as parquet, reading(file.uri):
            types = {field.name: plain_type(field.type) for field in parquet.schema_arrow}
            flat = [name for name, kind in types.items() if not pa.types.is_nested(kind)]
            batch = next(parquet.iter_batches(SAMPLE, columns=flat), None)
        rows = [] if batch is None else [plain_values(x) for x in batch.columns]
        sample = pa.table(dict(zip(flat, rows, strict=True))) if rows else pa.table({})
        return cls(uri=uri, types=types, sample=sample, days=tuple(str(day) for day in listing.by_day))

    @property
    def embeddings(self) -> dict[str, str]:
        """The embedding columns by the name of their modality: lists of floats, or lists of those for sequences."""
        names: dict[str, str] = {}
        for column, kind in self.types.items():
            while kind is not None and _is_list(kind):
                kind = kind.value_type
                if pa.types.is_floating(kind):
                    names.setdefault(_modality(column), column)
        return names

    def ids(self) -> list[str]:
        """The columns that may hold ids."""
        return [x for x, kind in self.types.items() if pa.types.is_integer(kind) or is_text(kind)]

    def distinct(self, column: str) -> bool:
        """Whether no value of the sample comes twice."""
        values = self.sample.column(column)
        return len(values) > 0 and pc.count_distinct(values).as_py() == len(values)

    def values(self, column: str, most: int) -> list[str]:
        """The most frequent values of the sample."""
        counts = sorted(pc.value_counts(self.sample.column(column)).to_pylist(), key=lambda x: -x["counts"])
        return [str(x["values"]) for x in counts[:most] if x["values"] is not None]

    def span(self, column: str) -> tuple[float, float]:
        """The smallest and the largest value of the sample."""
        found = pc.min_max(self.sample.column(column)).as_py()
        return found["min"], found["max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What ``init`` found for one key: the one column, or several to choose from, or none."""

    key: str
    candidates: tuple[str, ...]

    @property
    def column(self) -> str | None:
        """The column, None unless there is exactly one."""
        return self.candidates[0] if len(self.candidates) == 1 else None


def guess_columns(catalog: Columns, log: Columns) -> dict[str, Guess]:
    """The columns of each key of ``[source]``. Raises InputError if the catalog has no embeddings, or no column is in both files."""
    if not catalog.embeddings:
        kinds = ", ".join(f"{name} {kind}" for name, kind in list(catalog.types.items())[:30])
        raise InputError(f"{catalog.uri}: no column holds embeddings, lists of floats; it has {kinds}")
    shared = [x for x in catalog.ids() if x in log.ids()]
    if not shared:
        raise InputError(
            f"{log.uri}: no column of ids has the name of one of {catalog.uri}: {', '.join(log.ids())}, and"
            f" {', '.join(catalog.ids())}; the item's id must have one name in both, so rename it in one of them"
        )
    item = _named(_ITEM, shared) or [x for x in shared if catalog.distinct(x)] or shared
    labels = [x for x, kind in catalog.types.items() if is_text(kind) and x not in item]
    listed = [x for x, kind in catalog.types.items() if _is_list(kind) and is_text(plain_type(kind.value_type))]
    users = _named(_USER, log.ids()) or [
        x for x in log.ids() if x not in item and not _TIME.fullmatch(x) and not _RATING.fullmatch(x)
    ]
    stamps = _of_type(log, pa.types.is_temporal) or _named(_TIME, _of_type(log, pa.types.is_integer))
    found = {
        "item_column": item,
        "user_column": users,
        "time_column": stamps,
        "title_column": _named(_TITLE, labels),
        "category_column": _named(_CATEGORY, [*labels, *listed]),
        "picture_column": _named(_PICTURE, labels),
    }
    return {key: Guess(key=key, candidates=tuple(columns)) for key, columns in found.items()}


def feedback_examples(log: Columns) -> list[str]:
    """Predicates that could say which rows are positive, with the values that were seen."""
    examples = []
    for column in _named(_RATING, _of_type(log, _is_number)):
        low, high = log.span(column)
        examples.append(
            f'positive = "{column} >= {round(low + 0.75 * (high - low), 1):g}"   # {column} is {low:g} to {high:g}'
        )
    for column in _named(_EVENT, _of_type(log, is_text)):
        values = log.values(column, 6)
        examples.append(f"positive = \"{column} IN ('{values[0]}')\"   # {column} is {', '.join(values)}")
    return examples


def which_is_which(folder: str, uris: Iterable[str]) -> tuple[str, str]:
    """The catalog and the log among the inputs of a folder: only a catalog has embeddings. Raises InputError if that does not tell."""
    seen = {uri: Columns.of(uri) for uri in uris}
    catalogs = [uri for uri, x in seen.items() if x.embeddings]
    logs = [uri for uri, x in seen.items() if not x.embeddings and len(x.ids()) > 1]
    if len(catalogs) != 1 or len(logs) != 1:
        what = f"{len(catalogs)} inputs with embeddings ({', '.join(catalogs) or 'none'}), {len(logs)} without ({', '.join(logs) or 'none'})"
        raise InputError(f"{folder}: holds {what}; name the catalog and the log: --catalog PATH --interactions PATH")
    return catalogs[0], logs[0]


def _named(pattern: re.Pattern[str], columns: Iterable[str]) -> list[str]:
    return [x for x in columns if pattern.fullmatch(x)]


def _of_type(columns: Columns, test: Callable[[pa.DataType], bool]) -> list[str]:
    return [x for x, kind in columns.types.items() if test(kind)]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _modality(column: str) -> str:
    name = re.sub(r"\W", "_", _EMBEDDING.sub("", column)).lower().strip("_")
    # The published table has columns of its own.
    return name if re.match(r"[a-z]", name) and name not in PUBLISHED else f"m_{name}" if name else "embedding"

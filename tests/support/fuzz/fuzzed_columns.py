"""Columns gone wrong: schemas, types, values, encodings and sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.fuzz.fuzzed_shop import DAY, NUM_ITEMS, WIDTHS, Rng, Shop
from tests.support.fuzz.fuzzed_types import EMBEDDING_TYPES, ID_TYPES, LABEL_TYPES, RATING_TYPES, TIME_TYPES

WORDS = (
    "a/b",
    "../../etc/passwd",
    "..",
    ".",
    "'",
    '"',
    "a\0b",
    "😀🛒",
    "line\nbreak",
    "\r\n",
    "%2e%2e%2f",
    "$(id)",
    "`id`",
    "=1+1",
    "",
)
WORDS += (
    " ",
    "NULL",
    "nan",
    "<script>alert(1)</script>",
    "\u202egnp",
    "e\u0301",
    "\ufeffbom",
    "\x7f",
    "C:\\CON",
    "a=b",
)
WORDS += ("x" * 500, "'; DROP TABLE x", "\x1b[2J\x1b[31m")


def drop_column(shop: Shop, rng: Rng) -> None:
    which = pick(
        rng,
        [("catalog", "item_id"), ("catalog", "image"), ("catalog", "title"), ("log", "user_id"), ("log", "item_id")],
    )
    change(shop, which[0], lambda table: table.drop_columns([which[1]]))


def rename_column(shop: Shop, rng: Rng) -> None:
    table, column = pick(
        rng, [("catalog", "item_id"), ("catalog", "text"), ("log", "rating"), ("log", "event_time"), ("log", "user_id")]
    )
    other = pick(rng, [column.upper(), f" {column}", f"{column}\n", column.title(), f"{column}\0"])
    change(shop, table, lambda found: found.rename_columns([other if x == column else x for x in found.schema.names]))


def double_column(shop: Shop, rng: Rng) -> None:
    table, column = pick(
        rng,
        [("catalog", "item_id"), ("catalog", "image"), ("log", "item_id"), ("log", "rating"), ("log", "event_time")],
    )
    change(shop, table, lambda found: found.append_column(column, found.column(column)))


def id_type(shop: Shop, rng: Rng) -> None:
    """Both sides in one type, or only one of them."""
    kind = pick(rng, list(ID_TYPES))
    make = ID_TYPES[kind]
    catalog = [int(x[1:]) for x in shop.catalog.column("item_id").to_pylist()]
    log = [int(x[1:]) for x in shop.log.column("item_id").to_pylist()]
    sides = pick(rng, ["both", "both", "both", "catalog", "log"])
    if sides != "log":
        shop.replace("catalog", "item_id", make(catalog))
    if sides != "catalog":
        shop.replace("log", "item_id", make(log))


def user_type(shop: Shop, rng: Rng) -> None:
    make = ID_TYPES[pick(rng, list(ID_TYPES))]
    shop.replace("log", "user_id", make([int(x[1:]) for x in shop.log.column("user_id").to_pylist()]))


def embedding_type(shop: Shop, rng: Rng) -> None:
    name = pick(rng, list(WIDTHS))
    rows = shop.catalog.column(name).to_pylist()
    shop.replace("catalog", name, EMBEDDING_TYPES[pick(rng, list(EMBEDDING_TYPES))](rows))


def time_type(shop: Shop, rng: Rng) -> None:
    seconds = np.asarray(shop.log.column("event_time").cast(pa.timestamp("s")).cast(pa.int64()))
    shop.replace("log", "event_time", TIME_TYPES[pick(rng, list(TIME_TYPES))](seconds))


def label_type(shop: Shop, rng: Rng) -> None:
    column = pick(rng, ["title", "category"])
    shop.replace("catalog", column, LABEL_TYPES[pick(rng, list(LABEL_TYPES))](NUM_ITEMS))


def rating_type(shop: Shop, rng: Rng) -> None:
    ratings = shop.log.column("rating").to_pylist()
    shop.replace("log", "rating", RATING_TYPES[pick(rng, list(RATING_TYPES))](ratings))


def feature_values(shop: Shop, rng: Rng) -> None:
    """Numbers that are none, or of no use, in some rows or in all."""
    name = pick(rng, list(WIDTHS))
    rows = np.array(shop.catalog.column(name).to_pylist(), np.float64)
    share = pick(rng, [1 / NUM_ITEMS, 0.1, 0.5, 1.0])
    chosen = rng.permutation(NUM_ITEMS)[: max(1, int(share * NUM_ITEMS))]
    value = pick(rng, [np.nan, np.inf, -np.inf, 0.0, 1e30, 3e38, 1e300, 1e-45, 1e-30, -0.0])
    if rng.random() < 0.5:
        rows[chosen] = value
    else:
        rows[chosen, rng.integers(rows.shape[1])] = value
    shop.replace("catalog", name, pa.array(rows.tolist(), pa.list_(pa.float64())))


def blank_features(shop: Shop, rng: Rng) -> None:
    """Features that say nothing, in a third of the rows: they are missing, not damaged."""
    name = pick(rng, list(WIDTHS))
    rows: list[Any] = shop.catalog.column(name).to_pylist()
    blanks: list[Any] = [None, [], [0.0] * WIDTHS[name], [float("nan")] * WIDTHS[name], [None] * WIDTHS[name]]
    for at in rng.permutation(NUM_ITEMS)[: NUM_ITEMS // 3]:
        rows[at] = pick(rng, blanks)
    shop.replace("catalog", name, pa.array(rows, pa.list_(pa.float32())))


def written_vectors(shop: Shop, rng: Rng) -> None:
    """Vectors in JSON or bytes, with a setting that fits, with another, or with none."""
    name, given = pick(rng, list(WIDTHS)), pick(rng, ["json", "float32", "float64", "float16"])
    rows = shop.catalog.column(name).to_pylist()
    kinds = {"float16": "<f2", "float32": "<f4", "float64": "<f8"}
    written = [str(row) if given == "json" else np.array(row, kinds[given]).tobytes() for row in rows]
    shop.replace("catalog", name, pa.array(written))
    said = pick(rng, [given, given, "json", "float32", None])
    if said is not None:
        shop.set(f'source.vector_formats.{name}="{said}"')


def anonymous_rows(shop: Shop, rng: Rng) -> None:
    """Half of the rows or more have no user."""
    share = pick(rng, [0.5, 0.9, 1.0])
    users = shop.log.column("user_id").to_pylist()
    shop.replace("log", "user_id", pa.array([None if rng.random() < share else x for x in users], pa.string()))


def spelt_otherwise(shop: Shop, rng: Rng) -> None:
    """Item ids of the log that are the catalog's but for their spelling or their type."""
    how = pick(rng, ["padded", "case", "zeros", "number"])
    ids = shop.log.column("item_id").to_pylist()
    if how in ("padded", "case"):
        shop.replace("log", "item_id", pa.array([f"{x} " if how == "padded" else x.upper() for x in ids]))
        return
    numbers = [int(x[1:]) for x in shop.catalog.column("item_id").to_pylist()]
    shop.replace("catalog", "item_id", pa.array([f"{x:04d}" if how == "zeros" else str(x) for x in numbers]))
    shop.replace("log", "item_id", pa.array([int(x[1:]) for x in ids]))


def feature_shapes(shop: Shop, rng: Rng) -> None:
    """Lists of other lengths, empty ones, nulls within, no two alike."""
    name = pick(rng, list(WIDTHS))
    rows: list[Any] = shop.catalog.column(name).to_pylist()
    how = pick(
        rng,
        [
            "empty",
            "all empty",
            "longer",
            "null numbers",
            "null rows",
            "all null",
            "ragged",
            "width 1",
            "wide",
            "half and half",
        ],
    )
    some = rng.permutation(NUM_ITEMS)[: int(rng.integers(1, 20))]
    for at in (
        range(NUM_ITEMS) if how in ("all empty", "all null", "ragged", "width 1", "wide", "half and half") else some
    ):
        rows[at] = {
            "empty": [],
            "all empty": [],
            "longer": [*rows[at], 1.0],
            "null numbers": [None, *rows[at][1:]],
            "null rows": None,
            "all null": None,
            "ragged": [1.0] * (at + 1),
            "width 1": rows[at][:1],
            "wide": rows[at] * 200,
            "half and half": rows[at][: 4 + at % 2],
        }[how]
    shop.replace("catalog", name, pa.array(rows, pa.list_(pa.float32())))


def alike_features(shop: Shop, rng: Rng) -> None:
    """Every item has one and the same feature, in one modality or in both, or they lie on one line."""
    how = pick(rng, ["same", "same", "line", "two"])
    for name in pick(rng, [["image"], ["text"], ["image", "text"]]):
        base = np.ones(WIDTHS[name], np.float32)
        scale = {
            "same": np.ones(NUM_ITEMS),
            "line": np.linspace(0.1, 9, NUM_ITEMS),
            "two": np.arange(NUM_ITEMS) % 2 * 2 - 1.0,
        }[how]
        shop.replace(
            "catalog", name, pa.array((scale[:, None] * base).astype(np.float32).tolist(), pa.list_(pa.float32()))
        )


def few_items(shop: Shop, rng: Rng) -> None:
    number = int(pick(rng, [0, 1, 1, 2, 3, 5]))
    shop.catalog = shop.catalog.slice(0, number)
    if rng.random() < 0.5:
        kept = set(shop.catalog.column("item_id").to_pylist())
        shop.log = shop.log.filter(pa.array([x in kept for x in shop.log.column("item_id").to_pylist()], pa.bool_()))


def few_rows(shop: Shop, rng: Rng) -> None:
    """No log, one row, one user, one item, one pair again and again, a user an item."""
    how = pick(rng, ["none", "one row", "one user", "one item", "one pair", "a user an item", "two rows"])
    size = len(shop.log)
    if how in ("none", "one row", "two rows"):
        shop.log = shop.log.slice(0, {"none": 0, "one row": 1, "two rows": 2}[how])
        shop.replace("log", "rating", pa.array([5.0] * len(shop.log), pa.float64()))
    if how in ("one user", "one pair"):
        shop.replace("log", "user_id", pa.array(["u"] * size))
    if how in ("one item", "one pair"):
        shop.replace("log", "item_id", pa.array(["i000"] * size))
    if how == "a user an item":
        shop.replace("log", "user_id", pa.array([f"u-{x}" for x in shop.log.column("item_id").to_pylist()]))


def null_values(shop: Shop, rng: Rng) -> None:
    """Nulls in a column: a few, half, all; or a column of the null type."""
    table, column = pick(
        rng, [*(("catalog", x) for x in ("item_id", "title", "image")), *(("log", x) for x in shop.log.schema.names)]
    )
    found = getattr(shop, table).column(column).combine_chunks()
    share = pick(rng, [0.02, 0.5, 1.0])
    null = pa.array(rng.random(len(found)) < share)
    shop.replace(
        table,
        column,
        pa.nulls(len(found)) if rng.random() < 0.25 else pa.compute.if_else(null, pa.scalar(None, found.type), found),
    )


def strange_ids(shop: Shop, rng: Rng) -> None:
    """Names that are paths, quotes, formulas, markup, control characters or emoji, of items and of users."""
    words = [WORDS[x] for x in rng.permutation(len(WORDS))[:12]]
    names = {f"i{at:03d}": word for at, word in enumerate(words)}
    for table in ("catalog", "log"):
        ids = getattr(shop, table).column("item_id").to_pylist()
        shop.replace(table, "item_id", pa.array([names.get(x, x) for x in ids]))
    shop.replace(
        "log", "user_id", pa.array([WORDS[int(x[1:]) % len(WORDS)] + x for x in shop.log.column("user_id").to_pylist()])
    )


def long_strings(shop: Shop, rng: Rng) -> None:
    """One string, or each, of a length nobody wanted."""
    table, column = pick(
        rng, [("catalog", "item_id"), ("catalog", "title"), ("catalog", "category"), ("log", "user_id")]
    )
    length = int(pick(rng, [1_000, 100_000, 400_000]))
    values = getattr(shop, table).column(column).to_pylist()
    values[3] = "é" * length
    if column == "item_id":
        shop.replace(
            "log",
            "item_id",
            pa.array([values[3] if x == "i003" else x for x in shop.log.column("item_id").to_pylist()]),
        )
    shop.replace(table, column, pa.array(values))


def bad_utf8(shop: Shop, rng: Rng) -> None:
    """Ids that are no text."""
    _spoil_text(shop, rng, *pick(rng, [("catalog", "item_id"), ("log", "user_id"), ("log", "item_id")]))


def bad_utf8_shown(shop: Shop, rng: Rng) -> None:
    """Titles and categories that are no text."""
    _spoil_text(shop, rng, "catalog", pick(rng, ["title", "category"]))


def _spoil_text(shop: Shop, rng: Rng, table: str, column: str) -> None:
    bad = pick(rng, [b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"ok\xf5", b"\x80"])
    values = [x.encode() for x in getattr(shop, table).column(column).to_pylist()]
    values[int(rng.integers(len(values)))] = bad
    kind = pick(rng, [pa.string(), pa.large_string()])
    raw = pa.array(values, pa.binary() if kind == pa.string() else pa.large_binary())
    shop.replace(table, column, pa.Array.from_buffers(kind, len(raw), raw.buffers()))


def absurd_times(shop: Shop, rng: Rng) -> None:
    values = np.asarray(shop.log.column("event_time").cast(pa.int64())).copy()
    chosen = rng.random(len(values)) < pick(rng, [0.01, 0.5, 1.0])
    values[chosen] = pick(rng, [2**63 - 1, -(2**63) + 1, 0, -1, 10**18, int((DAY.timestamp() + 5 * 86_400) * 1e6)])
    shop.replace("log", "event_time", pa.array(values).cast(pa.timestamp("us", tz="UTC")))


def repeated_rows(shop: Shop, rng: Rng) -> None:
    """Rows again: a few items twice, every item twice, or the log five times over."""
    how = pick(rng, ["some", "all", "log"])
    if how == "log":
        shop.log = pa.concat_tables([shop.log] * 5)
    else:
        shop.catalog = pa.concat_tables([shop.catalog, shop.catalog.slice(0, 5 if how == "some" else NUM_ITEMS)])


def sequences(shop: Shop, rng: Rng) -> None:
    """A modality of segments whose rows are odd."""
    rows: list[Any] = [[[float(x + at + 1) for x in range(6)]] * (1 + at % 3) for at in range(NUM_ITEMS)]
    for at in rng.permutation(NUM_ITEMS)[:8]:
        rows[at] = pick(
            rng, [[], None, [[]], [None], [[0.0] * 6], [[float("nan")] * 6], [[1.0] * 6, [-1.0] * 6], [[1.0]] * 40]
        )
    if rng.random() < 0.3:
        rows = [pick(rng, [[], None])] * NUM_ITEMS
    shop.replace("catalog", "image", pa.array(rows, pa.list_(pa.list_(pa.float32()))))


def pick(rng: Rng, choices: Any) -> Any:
    """One of ``choices``, as it is."""
    return choices[int(rng.integers(len(choices)))]


def change(shop: Shop, table: str, how: Callable[[pa.Table], pa.Table]) -> None:
    """Put ``how``'s table in the place of ``catalog`` or ``log``."""
    setattr(shop, table, how(getattr(shop, table)))

"""A small sound shop that the fuzzer spoils, and what a case of the fuzzer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUM_ITEMS, NUM_USERS, NUM_ROWS, GROUPS = 60, 90, 1_500, 4
DAY = datetime(2026, 3, 10, tzinfo=UTC)
WIDTHS = {"image": 12, "text": 8}
CONFIG = """
[source]
catalog = "catalog"
interactions = "log"
item_column = "item_id"
user_column = "user_id"
time_column = "event_time"
positive = "rating >= 3"
title_column = "title"
category_column = "category"

[source.modalities]
image = "image"
text = "text"

[publish]
uri = "table"

[anchors]
epochs = 1
embedding_size = 8

[trust]
resamples = 5
"""
Rng = np.random.Generator
Arguments = list[str]


@dataclass(slots=True)
class Shop:
    """A shop's data before it is written: ``catalog`` and ``log`` as tables, the config's text, and what to add on the command line."""

    folder: Path
    catalog: pa.Table
    log: pa.Table
    config: str = CONFIG
    arguments: Arguments = field(default_factory=list)
    after: list[Callable[[], object]] = field(default_factory=list)
    catalog_options: dict[str, Any] = field(default_factory=dict)
    # Rows of the catalog besides, in a partition without a day.
    undated_rows: int = 0

    @property
    def catalog_file(self) -> Path:
        """Where the catalog's only file lies."""
        return self.folder / "catalog" / "part-0.parquet"

    @property
    def log_file(self) -> Path:
        """Where the log's only file lies."""
        return self.folder / "log" / "part-0.parquet"

    def replace(self, table: str, column: str, values: Any) -> None:
        """Put other values into one column of ``catalog`` or ``log``."""
        found: pa.Table = getattr(self, table)
        setattr(self, table, found.set_column(found.schema.names.index(column), column, values))

    def set(self, *overrides: str) -> None:
        """Override keys of the config on the command line."""
        self.arguments += [x for override in overrides for x in ("--set", override)]

    def write(self) -> None:
        """Write it all, then do what spoils files."""
        for path, table, options in (
            (self.catalog_file, self.catalog, self.catalog_options),
            (self.log_file, self.log, {}),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path, **options)
        (self.folder / "run.toml").write_text(self.config)
        for spoil in self.after:
            spoil()


Spoil = Callable[[Shop, Rng], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One malformed input; ``allowed`` are the right exit statuses, ``names`` what an error must name one of."""

    name: str
    seed: int
    spoil: Spoil
    allowed: tuple[int, ...]
    names: tuple[str, ...]

    def build(self, folder: Path) -> Shop:
        """Write the case's shop under ``folder``."""
        shop = sound_shop(folder)
        self.spoil(shop, np.random.default_rng([self.seed, *self.name.encode()]))
        shop.write()
        return shop


def sound_shop(folder: Path) -> Shop:
    """Sixty items of four kinds, ninety users who each keep to one kind, two modalities that tell the kinds apart."""
    rng = np.random.default_rng(11)
    kinds = np.arange(NUM_ITEMS) % GROUPS
    ids = [f"i{x:03d}" for x in range(NUM_ITEMS)]
    columns: dict[str, Any] = {
        "item_id": ids,
        "title": [f"Kettle {x}" for x in range(NUM_ITEMS)],
        "category": [f"kind {x}" for x in kinds],
    }
    for name, width in WIDTHS.items():
        values = rng.normal(size=(GROUPS, width))[kinds] + 0.3 * rng.normal(size=(NUM_ITEMS, width))
        columns[name] = pa.array(values.astype(np.float32).tolist(), pa.list_(pa.float32()))
    users = rng.integers(0, NUM_USERS, NUM_ROWS)
    own = rng.random(NUM_ROWS) < 0.9
    items = np.where(
        own,
        users % GROUPS + GROUPS * rng.integers(0, NUM_ITEMS // GROUPS, NUM_ROWS),
        rng.integers(0, NUM_ITEMS, NUM_ROWS),
    )
    times = [DAY - timedelta(minutes=int(x)) for x in rng.integers(0, 12_000, NUM_ROWS)]
    log = {
        "user_id": [f"u{x:03d}" for x in users],
        "item_id": [ids[x] for x in items],
        "rating": rng.integers(1, 6, NUM_ROWS).astype(np.float64),
        "event_time": pa.array(times, pa.timestamp("us", tz="UTC")),
    }
    return Shop(folder, pa.table(columns), pa.table(log))

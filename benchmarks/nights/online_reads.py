"""From a published version to features that can be read online, and what a read costs, on SQLite and on a Redis of this machine.

Two days are published and served one after the other, then the table is rolled back; each is timed from the commit to the first read that
gets it. All rows are read back and held against the table. Reads are by one reader, over the whole feature service, of random items. Beside
them the same rows written by Feast's own ``write_to_online_store``, a view at a time, in blocks of as many rows: not whole at once, and
without looking back. Importing Feast, which a command pays once, is told apart.

    python -m benchmarks.nights.online_reads [--rows 100000] [--image 384] [--text 128] [--reads 2000] > benchmarks/results/online_reads.md
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from feast import FeatureStore

from benchmarks.shared.synthetic_log import machine
from rectifier_core.base.published_records import Status
from rectifier_core.base.seeding import generator
from tasks.feature_store.config import FeatureStoreConfig
from tasks.feature_store.refresh import WRITTEN_AT_ONCE, refresh_store
from tasks.store.store import StageStore, StageWriter
from tasks.table.config import PublishConfig, RunIdentity
from tasks.table.history import roll_back
from tasks.table.publish import publish_rectified
from tasks.table.snapshot import open_snapshot

DAYS = ("2026-06-29", "2026-06-30")
AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A table of two days, and the ids in it."""

    table: PublishConfig
    ids: np.ndarray[Any, Any]


def publish_day(folder: Path, day: int, ids: np.ndarray[Any, Any], widths: dict[str, int]) -> None:
    """Publish made-up features; one in fifty is missing."""
    store, rng = StageStore(folder / "stages"), generator(day, "benchmark", "online")

    def source(writer: StageWriter) -> None:
        writer.array("item_ids", ids)
        writer.meta({"id_type": "string"})

    def rectified(writer: StageWriter) -> None:
        for name, width in widths.items():
            missing = rng.random(len(ids)) < 0.02
            features = rng.standard_normal((len(ids), width), dtype=np.float32)
            features[missing] = 0
            writer.array(f"features-{name}", features)
            writer.array(
                f"status-{name}", np.where(missing, Status.MISSING.code, Status.RECTIFIED.code).astype(np.int8)
            )
            writer.array(f"trust-{name}", rng.random(len(ids), dtype=np.float32))
        writer.meta({"features": list(widths)})

    digest = f"{day:032x}"
    run = RunIdentity(
        run_id=f"run-{day}",
        as_of=date.fromisoformat(DAYS[day]),
        digest=digest,
        config_digest=digest,
        inputs_digest=digest,
        code_version="0",
    )
    refs = store.once("source", (len(ids),), source), store.once("rectified", (len(ids), day, widths), rectified)
    publish_rectified(PublishConfig(uri=str(folder / "table")), run, *refs, {})


class Reader:
    """Whoever serves from the store."""

    def __init__(self, config: FeatureStoreConfig) -> None:
        self._config, self._store = config, FeatureStore(config.folder)

    def read(self, ids: list[str]) -> dict[str, list[Any]]:
        """The feature service, of these items."""
        service = self._store.get_feature_service(self._config.service, allow_cache=True)
        return dict(self._store.get_online_features(service, [{"item_id": x} for x in ids]).to_dict())

    def seconds(self, ids: list[str]) -> float:
        """What that takes."""
        began = time.perf_counter()
        self.read(ids)
        return time.perf_counter() - began


def check_equal(reader: Reader, shop: Shop, version: int) -> int:
    """Read all rows back and hold them against the table; how many there were."""
    snapshot, rows = open_snapshot(shop.table), 0
    for block in snapshot.blocks(snapshot.schema.names):
        for start in range(0, len(block), AT_ONCE):
            part = block.slice(start, AT_ONCE).to_pydict()
            got = reader.read(part["item_id"])
            assert all(got[name] == part[name] for name in part if name != "run_id")
            assert got["image_run_id"] == part["run_id"]
            assert set(got["text_version"]) == {version}
            rows += len(part["item_id"])
    return rows


def write_by_feast(config: FeatureStoreConfig, shop: Shop) -> float:
    """The same rows by Feast's own way in, over those that are served; seconds."""
    store, snapshot = FeatureStore(config.folder), open_snapshot(shop.table)
    views = {x.name.rpartition("_v")[0]: x for x in store.get_feature_service(config.service).feature_view_projections}
    when = pa.scalar(int(time.time() * 1e6), pa.timestamp("us", "UTC"))
    began = time.perf_counter()
    for block in snapshot.blocks(snapshot.schema.names):
        for start in range(0, len(block), WRITTEN_AT_ONCE):
            rows = block.slice(start, WRITTEN_AT_ONCE)
            for m, view in views.items():
                columns = {"item_id": rows["item_id"]} | {x: rows[x] for x in (m, f"{m}_trust", f"{m}_status")}
                columns |= {
                    f"{m}_run_id": rows["run_id"],
                    f"{m}_version": pa.repeat(1, len(rows)),
                    f"{m}_as_of": pa.repeat(when, len(rows)),
                }
                store.write_to_online_store(
                    view.name, pa.table(columns | {"event_timestamp": pa.repeat(when, len(rows))}).to_pandas()
                )
    return time.perf_counter() - began


def measure(
    online: Literal["sqlite", "redis"], folder: Path, ids: np.ndarray[Any, Any], widths: dict[str, int], reads: int
) -> str:
    """One row of the table."""
    shop = Shop(table=PublishConfig(uri=str(folder / "table")), ids=ids)
    config = FeatureStoreConfig(folder=str(folder / "store"), online=online, grace=0)
    served = []
    for day in range(2):
        publish_day(folder, day, ids, widths)
        began = time.perf_counter()
        refresh_store(config, shop.table)
        reader = Reader(config)
        assert reader.read([str(ids[0])])["image_version"] == [day]
        served.append(time.perf_counter() - began)
    rows = check_equal(reader, shop, 1)
    rng = generator(0, "benchmark", "reads")
    one = [reader.seconds([str(rng.choice(ids))]) for _ in range(reads)]
    hundred = [reader.seconds(rng.choice(ids, 100).tolist()) for _ in range(reads // 10)]
    by_feast = write_by_feast(config, shop)
    began = time.perf_counter()
    roll_back(shop.table, 0)
    refresh_store(config, shop.table)
    assert reader.read([str(ids[0])])["image_version"] == [2]
    back = time.perf_counter() - began
    told = [f"{x * 1000:.2f}" for found in (one, hundred) for x in np.percentile(found, [50, 99])]
    return (
        f"| {online} | {rows:,} | {served[0]:.1f} | {served[1]:.1f} | {back:.1f} | {by_feast:.1f} | "
        + " | ".join(told)
        + " |"
    )


@contextmanager
def redis_server(folder: Path) -> Iterator[None]:
    """A Redis of our own for the block, in the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.05)
            os.environ["CATALOG_RECTIFIER_REDIS"] = f"127.0.0.1:{port}"
            yield
        finally:
            process.terminate()


def import_seconds() -> float:
    """What a process pays before it can refresh."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tasks.feature_store.refresh"], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 100_000), ("image", 384), ("text", 128), ("reads", 2000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    ids, widths = np.char.mod("item-%08d", np.arange(options.rows)), {"image": options.image, "text": options.text}
    lines = []
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "sqlite").mkdir()
        lines.append(measure("sqlite", Path(name) / "sqlite", ids, widths, options.reads))
        if shutil.which("redis-server"):
            (Path(name) / "redis").mkdir()
            with redis_server(Path(name) / "redis"):
                lines.append(measure("redis", Path(name) / "redis", ids, widths, options.reads))
    given = " ".join(f"--{x} {getattr(options, x)}" for x in ("rows", "image", "text", "reads"))
    print(f"# Online reads\n\n{machine()}\n\nCommand: `python -m benchmarks.nights.online_reads {given}`\n")
    print(
        f"Vectors of {options.image} and {options.text} numbers; importing Feast takes {import_seconds():.1f} s of a process.\n"
    )
    print(
        "| online | rows read back equal | served first, s | next day served, s | rolled back and served, s |", end=""
    )
    print(" Feast's own write, s | one item, p50 ms | p99 | 100 items, p50 ms | p99 |\n|" + "---|" * 10)
    print("\n".join(lines))


if __name__ == "__main__":
    main()

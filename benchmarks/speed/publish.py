"""What publishing costs beside a plain Parquet write of the same rows: two modalities of 1,280 and 384 numbers, 2 % of the second missing.

The product is ``tasks.table.publish`` as a run calls it: files written and flushed, read back and held against the rows, one commit. Its parts
are measured as well, called one after the other. The plain writes put the very same columns into files, nothing compressed, vectors without
dictionary and statistics: Arrow's writer a row group at a time, Polars' a file at a time and into smaller files. All read the rows from the
same memory maps, in turn, in one process; dirty pages are flushed between them, outside the clock. Memory is what was added to what was
resident.

    python -m benchmarks.speed.publish [--rows 200000] [--repeats 3] [--folder DIR] > benchmarks/results/publish.md
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.shared.synthetic_log import machine
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.published_records import Status
from rectifier_core.base.seeding import generator
from tasks.store.peak_memory import watch_memory
from tasks.store.store import Ref, StageStore, StageWriter
from tasks.table.config import PublishConfig, RunIdentity
from tasks.table.files import TableFiles
from tasks.table.publish import publish_rectified
from tasks.table.read_back import audit_files
from tasks.table.rows import PublishedRows, open_rows
from tasks.table.write import WrittenFile, write_files

WIDTHS = {"image": 1280, "text": 384}
PLAIN = "plain Arrow write"


def stage_outputs(folder: Path, rows: int) -> tuple[Ref, Ref]:
    """A source and a rectified output of so many rows."""
    store, rng = StageStore(folder), generator(0, "benchmark", "publish")

    def source(writer: StageWriter) -> None:
        writer.array("item_ids", np.char.mod("item-%08d", np.arange(rows)))
        writer.meta({"id_type": "string"})

    def rectified(writer: StageWriter) -> None:
        for name, width in WIDTHS.items():
            status = rng.integers(0, Status.MISSING.code, rows).astype(np.int8)
            features = writer.memmap(f"features-{name}", (rows, width), np.float32)
            for block in row_blocks(rows, 10_000):
                features[block] = rng.standard_normal((block.stop - block.start, width), dtype=np.float32)
            if name == "text":
                missing = np.flatnonzero(rng.random(rows) < 0.02)
                status[missing] = Status.MISSING.code
            features.flush()
            writer.array(f"status-{name}", status)
            writer.array(f"trust-{name}", rng.random(rows, dtype=np.float32))
        writer.meta({"features": list(WIDTHS)})

    return store.once("source", ("publish", rows), source), store.once("rectified", ("publish", rows), rectified)


def by_arrow(rows: PublishedRows, folder: Path, rows_per_file: int, *, flushed: bool = False) -> None:
    """Arrow's writer, a row group at a time."""
    small = [x.name for x in rows.schema if not pa.types.is_list(x.type)]
    for index, part in enumerate(row_blocks(len(rows), rows_per_file)):
        path = folder / f"{index}.parquet"
        options = {"compression": "none", "use_dictionary": small, "write_statistics": small}
        with pq.ParquetWriter(path, rows.schema, **options) as writer:
            for block in row_blocks(part.stop - part.start, rows.block_rows):
                writer.write_batch(rows.block(slice(part.start + block.start, part.start + block.stop)))
        if flushed:
            with path.open("rb") as written:
                os.fsync(written.fileno())


def by_polars(rows: PublishedRows, folder: Path, rows_per_file: int) -> None:
    """Polars' writer, a file at a time."""
    for index, part in enumerate(row_blocks(len(rows), rows_per_file)):
        blocks = row_blocks(part.stop - part.start, rows.block_rows)
        batches = [rows.block(slice(part.start + x.start, part.start + x.stop)) for x in blocks]
        frame = pl.from_arrow(pa.Table.from_batches(batches), rechunk=False)
        assert isinstance(frame, pl.DataFrame)
        frame.write_parquet(
            folder / f"{index}.parquet", compression="uncompressed", statistics=False, row_group_size=rows.block_rows
        )


class Costs:
    """Wall seconds, CPU seconds and MiB added of everything measured, by name."""

    def __init__(self) -> None:
        self.of: dict[str, list[tuple[float, float, float]]] = {}

    def measure(self, name: str, work: Callable[[], object]) -> None:
        """Do it once; what is dirty is flushed first."""
        os.sync()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        with watch_memory() as peak:
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            cost = time.perf_counter() - wall, time.process_time() - cpu
        self.of.setdefault(name, []).append((*cost, (peak.size - resident) / 2**20))

    def median(self, name: str) -> np.ndarray:
        """Of wall and CPU the median, of memory the most."""
        found = np.asarray(self.of[name])
        return np.array([*np.median(found[:, :2], axis=0), found[:, 2].max()])


def identity(repeat: int) -> RunIdentity:
    """A run of its own."""
    digest = hashlib.blake2b(str(repeat).encode(), digest_size=16).hexdigest()
    said = {"config_digest": "c0ffee", "inputs_digest": "c0ffee", "code_version": "benchmark"}
    return RunIdentity(run_id=f"benchmark-{digest[:8]}", as_of=date(2024, 3, 1), digest=digest, **said)


def once(refs: tuple[Ref, Ref], folder: Path, costs: Costs, repeat: int) -> None:
    """Everything in turn, each from an empty folder and gone afterwards."""
    rows, per_file = open_rows(*refs, "benchmark"), PublishConfig(uri=str(folder)).rows_per_file
    written: list[WrittenFile] = []
    table = PublishConfig(uri=str(folder / "table"))
    files = TableFiles(str(folder / "parts"))
    ways: dict[str, Callable[[], object]] = {
        PLAIN: lambda: by_arrow(rows, folder, per_file),
        "the same, flushed": lambda: by_arrow(rows, folder, per_file, flushed=True),
        "plain Polars write": lambda: by_polars(rows, folder, per_file // 5),
        "**publish: write, audit, commit**": lambda: publish_rectified(table, identity(repeat), *refs, {}),
        "its write, flushed": lambda: written.extend(write_files(files, rows, per_file, "{}.parquet".format)),
        "its audit": lambda: audit_files(files, rows, written),
    }
    groups = [list(ways)[:1], list(ways)[1:2], list(ways)[2:3], list(ways)[3:4], list(ways)[4:]]
    for group in groups if repeat % 2 else groups[::-1]:
        folder.mkdir(parents=True)
        for name in group:
            costs.measure(name, ways[name])
        shutil.rmtree(folder)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to write, about three times the rows' 6.7 KB each; a temporary one by default",
    )
    options = parser.parse_args()
    costs = Costs()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        refs = stage_outputs(Path(name) / "stages", options.rows)
        small = stage_outputs(Path(name) / "small", 2000)
        once(small, Path(name) / "out", Costs(), 0)
        for repeat in range(options.repeats):
            once(refs, Path(name) / "out", costs, repeat)
    print(
        f"# Publishing\n\n{machine()}\n\nCommand: `python -m benchmarks.speed.publish --rows {options.rows} --repeats {options.repeats}`\n"
    )
    size = options.rows * sum(WIDTHS.values()) * 4 / 2**20
    print(
        f"{options.rows:,} rows x {sum(WIDTHS.values()):,} float32, {size:,.0f} MiB; Polars' threads: {pl.thread_pool_size()}.\n"
    )
    print(
        "| what | CPU s | wall s | CPU, times the plain Arrow write | wall | CPU, times the plain Polars write | MiB added |\n|"
        + "---|" * 7
    )
    base, other = costs.median(PLAIN), costs.median("plain Polars write")
    for name in costs.of:
        wall, cpu, added = costs.median(name)
        print(
            f"| {name} | {cpu:.2f} | {wall:.2f} | {cpu / base[1]:.2f} | {wall / base[0]:.2f} | {cpu / other[1]:.2f} | {added:.0f} |"
        )


if __name__ == "__main__":
    main()

"""Files, partitions, configs and arguments gone wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake

from tests.support.fuzz.fuzzed_columns import pick
from tests.support.fuzz.fuzzed_shop import NUM_ITEMS, Rng, Shop


def broken_file(shop: Shop, rng: Rng) -> None:
    """A file that is cut, empty, of another kind, or has bytes turned over."""
    path = pick(rng, [shop.catalog_file, shop.log_file])
    how = pick(
        rng, ["cut", "cut", "empty", "text", "magic only", "csv", "flip", "flip", "flip footer", "zeros", "doubled"]
    )
    seed = int(rng.integers(1 << 30))
    shop.after.append(lambda: path.write_bytes(_broken(path.read_bytes(), how, seed)))


def _broken(raw: bytes, how: str, seed: int) -> bytes:
    at = seed % len(raw)
    if how in ("flip", "flip footer"):
        at = len(raw) - 9 - seed % 400 if how == "flip footer" else at
        return raw[:at] + bytes([raw[at] ^ (1 << seed % 8)]) + raw[at + 1 :]
    made = {
        "cut": raw[:at],
        "empty": b"",
        "text": b"not Parquet at all\n" * 40,
        "magic only": b"PAR1PAR1",
        "csv": b"user_id,item_id\nu1,i001\n",
        "zeros": b"\0" * len(raw),
        "doubled": raw + raw[: len(raw) // 2],
    }
    return made[how]


def written_otherwise(shop: Shop, rng: Rng) -> None:
    """The same rows with other compressions, page versions and encodings, as other tools write them."""
    codec = pick(rng, ["none", "gzip", "brotli", "lz4", "zstd", "snappy"])
    version, page = pick(rng, ["1.0", "2.4", "2.6"]), pick(rng, ["1.0", "2.0"])
    shop.catalog_options = {
        "compression": codec,
        "version": version,
        "data_page_version": page,
        "use_dictionary": bool(rng.integers(2)),
    }
    shop.catalog_options |= {"row_group_size": int(pick(rng, [1, 7, 1_000])), "write_statistics": bool(rng.integers(2))}


def odd_neighbours(shop: Shop, rng: Rng) -> None:
    """Beside the catalog's file: what jobs, editors and people leave in folders."""
    folder = shop.catalog_file.parent
    how = pick(
        rng,
        [
            "_SUCCESS",
            ".crc",
            "fifo",
            "dangling link",
            "link loop",
            "folder.parquet",
            "README",
            "socket",
            "other schema",
            "~",
        ],
    )

    def leave() -> None:
        if how in ("_SUCCESS", ".crc", "README", "~"):
            (
                folder / {".crc": ".part-0.parquet.crc", "README": "README.md", "~": "part-0.parquet~"}.get(how, how)
            ).write_bytes(b"hello\n")
        elif how == "fifo":
            os.mkfifo(folder / "part-1.parquet")
        elif how == "dangling link":
            (folder / "part-1.parquet").symlink_to(folder / "gone")
        elif how == "link loop":
            (folder / "again").symlink_to(folder)
        elif how == "folder.parquet":
            (folder / "part-1.parquet").mkdir()
        elif how == "socket":
            os.mknod(folder / "part-1.parquet", 0o140600)
        else:
            pq.write_table(pa.table({"item_id": ["z"], "extra": [1]}), folder / "part-1.parquet")

    shop.after.append(leave)


def odd_names(shop: Shop, rng: Rng) -> None:
    """Input folders whose names need care."""
    name = pick(
        rng,
        [
            "with space",
            "ünïcode 😀",
            "per%20cent",
            "a'b\"c",
            "line\nbreak",
            "[brackets]",
            "st*r",
            "dt=x",
            "-dash",
            "b\\s",
            "x" * 200,
        ],
    )
    other = shop.folder / name

    def move() -> None:
        shop.catalog_file.parent.rename(other)

    shop.after.append(move)
    shop.arguments += ["--set", f"source.catalog={other}"]


def odd_partitions(shop: Shop, rng: Rng) -> None:
    """``dt=`` folders that are no day, or in the future, or beside others."""
    days = [
        "2026-13-01",
        "",
        "__HIVE_DEFAULT_PARTITION__",
        "20260310",
        "2026-3-1",
        "2026-02-30",
        "2026-03-10 00%3A00%3A00",
        "0000-00-00",
    ]
    days += ["9999-12-31", "2026-03-10", "null", "latest", "٢٠٢٦-٠٣-١٠"]
    day, both = str(pick(rng, days)), rng.random() < 0.4
    which, spelt = pick(rng, [shop.catalog_file, shop.log_file]), pick(rng, ["dt", "dt", "dt", "DT", "date", "year"])

    def move() -> None:
        inner = which.parent / f"{spelt}={day}"
        inner.mkdir()
        which.rename(inner / which.name)
        if both:
            good = which.parent / "dt=2026-03-09"
            good.mkdir()
            (good / which.name).write_bytes((inner / which.name).read_bytes())

    shop.after.append(move)


DAY_FOLDERS = (
    "ds=2026-03-08",
    "2026-03-08",
    "snapshot_date=20260308",
    "DT=2026-03-08%2000%3A00%3A00",
    "dt=2026-03-08/hour=07",
)
DAY_FOLDERS += ("year=2026/month=3/day=8", "2026/03/08", "any=2026-03-08T12")


def day_folders(shop: Shop, rng: Rng) -> None:
    """One snapshot in a folder of its day, beside an older one and perhaps a partition without a day."""
    folder, null = str(pick(rng, DAY_FOLDERS)), rng.random() < 0.4
    older = "7".join(folder.rsplit("8", 1))
    catalog = shop.catalog_file

    def move() -> None:
        for name in (folder, older):
            (catalog.parent / name).mkdir(parents=True)
        raw = catalog.read_bytes()
        catalog.unlink()
        (catalog.parent / folder / "a.parquet").write_bytes(raw)
        pq.write_table(shop.catalog.slice(0, 40), catalog.parent / older / "a.parquet")
        if null and "=" in folder and "year" not in folder:
            inner = catalog.parent / f"{folder.partition('=')[0]}=__HIVE_DEFAULT_PARTITION__"
            inner.mkdir()
            pq.write_table(shop.catalog.slice(0, 5), inner / "a.parquet")
            shop.undated_rows = 5

    shop.after.append(move)


def two_snapshots(shop: Shop, rng: Rng) -> None:
    """Two files with the same ids and no day to tell which is newer."""
    name = pick(rng, ["part-1.parquet", "v2/part-0.parquet", "month=2026-03/a.parquet"])
    rows = int(pick(rng, [1, 6, NUM_ITEMS]))

    def leave() -> None:
        path = shop.catalog_file.parent / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(shop.catalog.slice(0, rows), path)

    shop.after.append(leave)


def empty_files(shop: Shop, rng: Rng) -> None:
    """Files without rows beside the others: without columns, of nulls, of other types."""
    which = pick(rng, [shop.catalog_file, shop.log_file])
    table = shop.catalog if which == shop.catalog_file else shop.log
    empty = pick(rng, [pa.table({}), pa.table({x: pa.nulls(0) for x in table.column_names}), table.slice(0, 0)])
    shop.after.append(lambda: pq.write_table(empty, which.with_name(pick(rng, ["0.parquet", "z.parquet"]))))


def table_formats(shop: Shop, rng: Rng) -> None:
    """Catalog or log as a Delta, Iceberg or Hudi table, named by its folder or by a part of it."""
    which = pick(rng, [shop.catalog_file, shop.log_file])
    how, key = (
        pick(rng, ["delta", "delta", "iceberg", "hudi"]),
        "catalog" if which == shop.catalog_file else "interactions",
    )
    part = rng.random() < 0.3

    def move() -> None:
        table = pq.read_table(which)
        if how == "delta":
            _remove(which.parent)
            write_deltalake(str(which.parent), table.slice(0, 3))
            write_deltalake(str(which.parent), table, mode="overwrite")
            return
        mark = which.parent / ("metadata/v1.metadata.json" if how == "iceberg" else ".hoodie/hoodie.properties")
        mark.parent.mkdir()
        mark.write_text("{}")

    shop.after.append(move)
    if part:
        shop.set(f"source.{key}={which.parent}/*.parquet")


def broken_toml(shop: Shop, rng: Rng) -> None:
    """The config cut off, with a byte turned over, in another encoding, or said twice."""
    how = pick(
        rng, ["cut", "flip", "utf-16", "bom", "twice", "json", "nul", "latin-1", "deep", "empty", "no section", "tab"]
    )
    text, at = shop.config, int(rng.integers(20, len(shop.config)))
    raw = {
        "cut": text[:at].encode(),
        "flip": text.encode()[:at] + bytes([text.encode()[at] ^ (1 << int(rng.integers(8)))]) + text.encode()[at + 1 :],
        "utf-16": text.encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "twice": (text + text).encode(),
        "json": b'{"source": {"catalog": "catalog"}}',
        "nul": text.encode().replace(b"catalog", b"cata\0log", 1),
        "latin-1": text.replace("title", "tïtle").encode("latin-1"),
        "deep": b"x = " + b"[" * 5_000 + b"]" * 5_000,
        "empty": b"",
        "no section": text.replace("[source]", "").encode(),
        "tab": text.replace("=", "\t=\t").encode(),
    }[how]
    shop.after.append(lambda: (shop.folder / "run.toml").write_bytes(raw))


STRANGE_VALUES = (
    "-1",
    "0",
    "1e999",
    "nan",
    "-inf",
    "2.5",
    "true",
    '"text"',
    '""',
    "[]",
    "[1, 2]",
    "{}",
    "{a = 1}",
    "2026-03-10",
    "10e30",
)
STRANGE_VALUES += ("9223372036854775808", '"\\u0000"', '["a", "a"]', '"../../x"', "1979-05-27T07:32:00Z")


def wrong_value(shop: Shop, rng: Rng) -> None:
    """Any key of the config with a value of another type, or beyond every bound."""
    keys = list(config_keys())
    for _ in range(int(rng.integers(1, 3))):
        shop.set(f"{pick(rng, keys)}={pick(rng, STRANGE_VALUES)}")


def config_keys() -> Iterator[str]:
    """Every key that a run config knows, ``section.key``, read off the config classes."""
    from flows.config.run_config import RunConfig

    hints = get_type_hints(RunConfig)
    for section in fields(RunConfig):
        kind = hints[section.name]
        if is_dataclass(kind):
            yield from (f"{section.name}.{x.name}" for x in fields(kind))
        else:
            yield section.name


MODALITIES = (
    "../x",
    "a/b",
    "a\\u0000b",
    "x" * 300,
    "CON",
    "😀",
    "a b",
    "",
    ".",
    "image.tar",
    "as_of",
    "run_id",
    "a;b",
    "$(id)",
    "item_ids",
    "IMAGE",
    "é",
)


def modality_name(shop: Shop, rng: Rng) -> None:
    """A modality called as no file should be."""
    shop.config = shop.config.replace('image = "image"', f'"{pick(rng, MODALITIES)}" = "image"')


PREDICATES = (
    "rating >= 3; DROP TABLE x", "rating IN (SELECT 1)", "EXISTS (SELECT * FROM read_csv('/etc/passwd'))", "rating > (SELECT 1)",
    "pg_sleep(9)", "rating >= CURRENT_DATE", "event_time < NOW()", "rating = 'now('",
    "rating >= read_parquet('x')", "1", "rating", "*", "rating >= 3 -- comment", "rating / 0 > 1", "(" * 300 + "rating > 1" + ")" * 300,
    "rating ~ '(a+)+$'", "CAST(rating AS INT) >= 3", "user_id LIKE 'u%' AND rating >= 3", "rating >= '3'", "rating = NULL", 
    "rating IS NOT NULL",     "\"rating\" >= 3", "rating >= 1e400", "COPY x TO 'y'", "nextval('x') > 1", "rating >= 3 OR 1 = 1", 
    "rating OVER ()", "RANDOM() > rating",
)  # fmt: skip


def predicate(shop: Shop, rng: Rng) -> None:
    """What counts as positive, said in SQL that is broken, forbidden or strange."""
    shop.config = shop.config.replace('"rating >= 3"', f"'''{pick(rng, PREDICATES)}'''")


PLACES = (
    "s3://",
    "s3:///x",
    "gs://bucket/x",
    "s3://AKIAFUZZ:sEcr3tFuzz@bucket/x",
    "https://user:sEcr3tFuzz@host/x",
    "file:///tmp/x",
    "/dev/null",
)
PLACES += (
    "/proc/self/mem",
    "",
    " ",
    "~nobody-at-all/x",
    "a\\u0000b",
    "x" * 5_000,
    "**",
    "*",
    "/",
    ".",
    "../../../../..",
    "catalog/part-0.parquet/x",
)


def odd_place(shop: Shop, rng: Rng) -> None:
    """A place to read from or write to that is none."""
    key = pick(rng, ["source.catalog", "source.interactions", "publish.uri", "run.folder", "publish.uri"])
    # Tests may run as somebody who can write anywhere.
    place = pick(
        rng, PLACES if key.startswith("source.") else [x for x in PLACES if x not in ("/", ".", "../../../../..")]
    )
    shop.set(f'{key}="{place}"')


ARGUMENTS: tuple[list[str], ...] = (
    ["--as-of", "yesterday"], ["--as-of", ""], ["--as-of", "0000-01-01"], ["--as-of", "0001-01-01"], ["--as-of", "2026-02-30"],
    ["--as-of", "2026-03-10T00:00:00"], ["--as-of", "10000-01-01"], ["--as-of", "../2026-03-10"], ["--set", "seed"], ["--set", "=1"],
    ["--set", "source=1"], ["--set", "source.catalog.x=1"], ["--set", "a.b.c.d=1"], ["--set", "seed=2\nsource.catalog='x'"], 
    ["--set", "."], ["--set", "publish.keep_snapshots=true"], ["--as-of", "2026-03-10 "],
    ["--set", "source.modalities.image=5"], ["--set", "source.modalities={}"], ["--set", "run=[]"], ["--set", "seed=😀"],
    ["--as-of", "９９９９-01-01"],
)  # fmt: skip


def odd_arguments(shop: Shop, rng: Rng) -> None:
    """Arguments of the command line that say nothing sensible."""
    shop.arguments += pick(rng, ARGUMENTS)


def vanished(shop: Shop, rng: Rng) -> None:
    """What the config names is not there, or is something else."""
    path = pick(rng, [shop.catalog_file.parent, shop.log_file.parent, shop.folder / "run.toml"])
    how: Callable[[Path], object] = pick(rng, [_remove, _make_file, _make_folder])
    shop.after.append(lambda: how(path))


def _remove(path: Path) -> None:
    for inner in sorted(path.rglob("*")) if path.is_dir() else []:
        inner.unlink()
    path.rmdir() if path.is_dir() else path.unlink()


def _make_file(path: Path) -> None:
    _remove(path)
    path.write_text("I was something else\n")


def _make_folder(path: Path) -> None:
    _remove(path)
    path.mkdir()

"""Refreshes that are killed, starved of disk or cut off: readers have the old version or the new one, and a rerun ends the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.feature_store.config import FeatureStoreConfig
from tasks.feature_store.refresh import refresh_store
from tasks.table.config import PublishConfig
from tests.support.feature_store.feature_store_faults import needs_strace, refresh_with_fault, start_refresh
from tests.support.feature_store.feature_store_support import (
    open_store,
    publish_items,
    read_online,
    table_rows,
    wanted_online,
)
from tests.support.feature_store.redis_server import RedisServer, needs_redis, serve_redis

DAYS = ("2024-03-01", "2024-03-02")
OLD, NEW = [f"item-{x}" for x in range(12)], [f"item-{x}" for x in range(4, 16)]
EVERY = list(dict.fromkeys([*OLD, *NEW]))
FEW = [("rename", "signal=SIGKILL"), ("pwrite64", "signal=SIGKILL"), ("pwrite64", "error=ENOSPC")]
DISK = ("rename", "link", "mkdir", "unlink", "ftruncate", "fsync", "fdatasync", "utimensat", "write", "pwrite64")
FAULTS = ("signal=SIGKILL", "error=ENOSPC", "error=EIO")
# Threads also wake one another by a write, which no disk can fail: to fail that hangs them.
EVERY_FAULT = [(call, fault) for call in DISK for fault in FAULTS if call != "write" or fault == "signal=SIGKILL"]


def copy_folder(source: Path, target: Path) -> None:
    """By another process: one that closes a database file loses all its locks on it, and SQLite those of its open connections."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


class Shop:
    """A table of two versions and a store that serves the first, which can be put back as it was."""

    def __init__(self, root: Path, online: str) -> None:
        root.mkdir(exist_ok=True)
        self.root, self.table = root, PublishConfig(uri=str(root / "table"))
        self.config = FeatureStoreConfig(
            folder=str(root / "store"), online=online, patience=0, cache_seconds=1, grace=0
        )  # type: ignore[arg-type]
        for seed, (day, items) in enumerate(zip(DAYS, (OLD, NEW), strict=True)):
            publish_items(self.table, root / "stages", day, items, seed=seed)
        self.versions = [
            {x: wanted_online(rows[x], ("image", "text"), n, day) if x in rows else None for x in EVERY}
            for n, day in enumerate(DAYS)
            for rows in [table_rows(self.table.uri, day)]
        ]
        self.put_back()

    def put_back(self) -> None:
        """Serve version 0 again, as if nothing had happened."""
        kept = self.root / "kept"
        shutil.rmtree(self.config.root, ignore_errors=True)
        if kept.exists() and self.config.online == "sqlite":
            copy_folder(kept, self.config.root)
            return
        refresh_store(self.config, self.table, version=0)
        if not kept.exists():
            copy_folder(self.config.root, kept)

    def served(self) -> int:
        """The version that a reader gets of every item; fails where it is a mix."""
        got = {
            k: x if any(v is not None for v in x.values()) else None for k, x in read_online(self.config, EVERY).items()
        }
        assert got in self.versions, got
        return self.versions.index(got)

    def check_rerun(self) -> None:
        """A rerun ends with the new version, and with nothing lying about."""
        refresh_store(self.config, self.table)
        assert self.served() == 1
        assert refresh_store(self.config, self.table)["done"] == "unchanged"
        names = {x.name for x in self.config.root.iterdir()}
        fixed = {".lock", "registry.db", "feature_store.yaml", "definitions.py", "served.json", "offline"}
        assert names - {"online.db", "online.db-wal", "online.db-shm"} == fixed
        assert len(list((self.config.root / "offline").iterdir())) <= 3


@pytest.fixture(scope="module")
def sqlite_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"), "sqlite")


@pytest.fixture(scope="module")
def redis_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, RedisServer]]:
    with serve_redis(tmp_path_factory.mktemp("redis")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATALOG_RECTIFIER_REDIS", server.connection_string)
        yield Shop(tmp_path_factory.mktemp("shop"), "redis"), server


def enumerate_points(
    shop: Shop, folder: Path, call: str, fault: str, *, step: int = 1, put_back: Callable[[], None]
) -> int:
    """Every ``step``-th call of this kind in a refresh meets the fault, until a refresh is clean; how many were met."""
    number, met, outcomes = 1, 0, set()
    while True:
        put_back()
        ended = refresh_with_fault(shop.config, shop.table, folder, call, fault, number)
        if not ended.reached:
            assert ended.code == 0, ended.said
            assert shop.served() == 1
            # Where nothing was met, nothing was shown.
            return met
        met += 1
        outcomes.add(shop.served())
        if ended.code != -9 and ended.code != 0:
            assert ended.code == 1, ended.said
            assert re.match(r"(feature store|table|stage) ?.*", ended.said) and "\n" not in ended.said, ended.said
            assert re.search(r"(again|served|is the disk)", ended.said), ended.said
        shop.check_rerun()
        number += step


@needs_strace
@pytest.mark.parametrize(("call", "fault"), FEW)
def test_a_refresh_that_dies_or_finds_no_room_leaves_a_whole_version(
    sqlite_shop: Shop, tmp_path: Path, call: str, fault: str
) -> None:
    step = 1 if call == "rename" else 25
    assert enumerate_points(sqlite_shop, tmp_path, call, fault, step=step, put_back=sqlite_shop.put_back) >= 3


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize(("call", "fault"), EVERY_FAULT)
def test_every_call_that_touches_the_disk(sqlite_shop: Shop, tmp_path: Path, call: str, fault: str) -> None:
    enumerate_points(sqlite_shop, tmp_path, call, fault, put_back=sqlite_shop.put_back)


@needs_redis
@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["signal=SIGKILL", "error=ECONNRESET", "error=EPIPE"])
def test_every_word_to_redis(redis_shop: tuple[Shop, RedisServer], tmp_path: Path, fault: str) -> None:
    shop, _ = redis_shop
    assert enumerate_points(shop, tmp_path, "sendto", fault, put_back=lambda: empty_and_put_back(*redis_shop)) >= 5


@needs_redis
@needs_strace
def test_a_refresh_that_is_cut_off_from_redis(redis_shop: tuple[Shop, RedisServer], tmp_path: Path) -> None:
    shop, _ = redis_shop
    for fault, number in (("error=ECONNRESET", 3), ("signal=SIGKILL", 4)):
        empty_and_put_back(*redis_shop)
        ended = refresh_with_fault(shop.config, shop.table, tmp_path, "sendto", fault, number)
        assert ended.reached
        assert shop.served() == 0
        if ended.code != -9:
            assert (ended.code, ended.said.count("\n")) == (1, 0)
            assert ended.said.startswith(f"feature store {shop.config.folder}: ") and "refresh again" in ended.said
        shop.check_rerun()


def empty_and_put_back(shop: Shop, server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()
    shop.put_back()


@needs_redis
def test_redis_that_dies_in_mid_refresh_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_redis(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as server:
        monkeypatch.setenv("CATALOG_RECTIFIER_REDIS", server.connection_string)
        shop = Shop(tmp_path / "shop", "redis")
        publish_items(
            shop.table,
            tmp_path / "stages",
            "2024-03-03",
            [f"many-{x}" for x in range(20_000)],
            widths={"image": 64, "text": 64},
        )
        process, go = start_refresh(shop.config, shop.table, tmp_path / "said")
        with server.client() as client:
            before = client.dbsize()
            go.send("go")
            while client.dbsize() <= before and process.is_alive():
                pass
        server.kill()
        process.join(120)
        said = (tmp_path / "said").read_text()
        assert (process.exitcode, said.count("\n")) == (1, 0)
        assert re.search(
            "writing Redis failed: .*; readers keep the version that was served; mend it, then refresh again", said
        )
        server.start()
        assert shop.served() == 0
        assert refresh_store(shop.config, shop.table)["rows"] == 20_000
        with server.client() as client:
            assert client.dbsize() == 20_000 + len(OLD)


@pytest.mark.parametrize("online", ["sqlite", pytest.param("redis", marks=[needs_redis, pytest.mark.slow])])
def test_a_reader_beside_refreshes_gets_one_version_at_a_time(
    online: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if online == "redis":
        _, server = request.getfixturevalue("redis_shop")
        with server.client() as client:
            client.flushall()
        monkeypatch.setenv("CATALOG_RECTIFIER_REDIS", server.connection_string)
    shop = Shop(tmp_path, online)
    shop.config = replace(shop.config, grace=3.0)
    store, seen = open_store(shop.config), set()
    for number in range(2):
        process, go = start_refresh(shop.config, shop.table, tmp_path / "said")
        go.send("go")
        while process.is_alive():
            rows = read_online(shop.config, EVERY, store)
            told = {
                (x["image_version"], x["text_version"], x["image_run_id"], x["text_run_id"]) for x in rows.values()
            } - {(None,) * 4}
            ((version, other, run_id, of_text),) = told
            assert version == other and run_id == of_text
            items = {k for k, x in rows.items() if x["image_version"] is not None}
            assert items == set(NEW if version else OLD)
            seen.add(version)
        process.join()
        assert process.exitcode == 0
        assert read_online(shop.config, EVERY, store)["item-15"]["image_version"] == number + 1
        publish_items(shop.table, tmp_path / "stages", DAYS[1], NEW, seed=5 + number)
    assert len(seen) > 1


def test_two_refreshes_at_once_end_with_the_newest(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "sqlite")
    started = [start_refresh(shop.config, shop.table, tmp_path / f"said-{x}") for x in range(3)]
    for _, go in started:
        go.send("go")
    for process, _ in started:
        process.join(120)
    assert {x.exitcode for x, _ in started} <= {0, 4}
    assert 0 in {x.exitcode for x, _ in started}
    shop.check_rerun()

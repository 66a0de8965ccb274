"""Refreshes that are killed, starved of disk or cut off: readers have the old version or the new one, and a rerun ends the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tasks.feature_store.config import FeatureStoreConfig
from tasks.feature_store.refresh import refresh_store
from tasks.table.config import PublishConfig
from tests.support.feature_store.feature_store_support import (
    open_store,
    publish_items,
    read_online,
    table_rows,
    wanted_online,
)
from tests.support.feature_store.redis_server import RedisServer, needs_redis, serve_redis
from tests.support.table.faults import BROKEN, DEATH, NO_ROOM, Ended, Job, Nursery, Point, disturbance, needs_strace
from tests.support.table.publish_support import environment

DAYS = ("2024-03-01", "2024-03-02")
OLD, NEW = [f"item-{x}" for x in range(12)], [f"item-{x}" for x in range(4, 16)]
EVERY = list(dict.fromkeys([*OLD, *NEW]))
FEW = [("rename", DEATH), ("pwrite64", DEATH), ("pwrite64", NO_ROOM)]
DISK = ("rename", "link", "mkdir", "unlink", "ftruncate", "fsync", "fdatasync", "utimensat", "write", "pwrite64")
# Threads also wake one another by a write, which no disk can fail: to fail that hangs them.
EVERY_FAULT = [(call, x) for call in DISK for x in (DEATH, NO_ROOM, BROKEN) if call != "write" or x == DEATH]


def copy_folder(source: Path, target: Path) -> None:
    """By another process: one that closes a database file loses all its locks on it, and SQLite those of its open connections."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


class Shop:
    """A table of two versions and a store that serves the first, which can be put back as it was."""

    def __init__(self, root: Path, online: str, refreshes: Nursery) -> None:
        root.mkdir(exist_ok=True)
        self.refreshes = refreshes
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

    def start(self, **options: Any) -> Job:
        """A refresh in a process of its own."""
        return self.refreshes.start("refresh", asdict(self.config), self.table.uri, dict(os.environ), **options)

    def refresh(self, call: str, fault: str, number: int) -> Ended:
        """The end of a refresh whose ``number``-th ``call`` meets ``fault``."""
        return self.start(strace=disturbance(Point(call, "", number), fault)).wait()

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
def refreshes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    found = Nursery("tests.support.feature_store.refresh_jobs", tmp_path_factory.mktemp("nursery"), environment())
    yield found
    found.close()


@pytest.fixture(scope="module")
def sqlite_shop(tmp_path_factory: pytest.TempPathFactory, refreshes: Nursery) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"), "sqlite", refreshes)


@pytest.fixture(scope="module")
def redis_shop(tmp_path_factory: pytest.TempPathFactory, refreshes: Nursery) -> Iterator[tuple[Shop, RedisServer]]:
    with serve_redis(tmp_path_factory.mktemp("redis")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATALOG_RECTIFIER_REDIS", server.connection_string)
        yield Shop(tmp_path_factory.mktemp("shop"), "redis", refreshes), server


def enumerate_points(shop: Shop, call: str, fault: str, *, step: int = 1, put_back: Callable[[], None]) -> int:
    """Every ``step``-th call of this kind in a refresh meets the fault, until a refresh is clean; how many were met."""
    number, met, outcomes = 1, 0, set()
    while True:
        put_back()
        ended = shop.refresh(call, fault, number)
        if not ended.injected and ended.code != -9:
            assert ended.code == 0, ended.said
            assert shop.served() == 1
            # Where nothing was met, nothing was shown.
            return met
        met += 1
        outcomes.add(shop.served())
        if ended.code != -9 and ended.code != 0:
            assert ended.code == 1, ended.said
            assert re.fullmatch(r"(feature store |table |stage |/).*\n", ended.said), ended.said
            assert re.search(r"(again|served|is the disk)", ended.said), ended.said
        shop.check_rerun()
        number += step


@needs_strace
@pytest.mark.parametrize(("call", "fault"), FEW)
def test_a_refresh_that_dies_or_finds_no_room_leaves_a_whole_version(sqlite_shop: Shop, call: str, fault: str) -> None:
    step = 1 if call == "rename" else 25
    assert enumerate_points(sqlite_shop, call, fault, step=step, put_back=sqlite_shop.put_back) >= 3


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize(("call", "fault"), EVERY_FAULT)
def test_every_call_that_touches_the_disk(sqlite_shop: Shop, call: str, fault: str) -> None:
    assert enumerate_points(sqlite_shop, call, fault, put_back=sqlite_shop.put_back) >= 1


@needs_redis
@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("fault", [DEATH, "ECONNRESET", "EPIPE"])
def test_every_word_to_redis(redis_shop: tuple[Shop, RedisServer], fault: str) -> None:
    shop, _ = redis_shop
    assert enumerate_points(shop, "sendto", fault, put_back=lambda: empty_and_put_back(*redis_shop)) >= 5


@needs_redis
@needs_strace
def test_a_refresh_that_is_cut_off_from_redis(redis_shop: tuple[Shop, RedisServer]) -> None:
    shop, _ = redis_shop
    for fault, number in (("ECONNRESET", 3), (DEATH, 4)):
        empty_and_put_back(*redis_shop)
        ended = shop.refresh("sendto", fault, number)
        assert ended.injected or ended.code == -9
        assert shop.served() == 0
        if ended.code != -9:
            assert (ended.code, ended.said.count("\n")) == (1, 1)
            assert ended.said.startswith(f"feature store {shop.config.folder}: ") and "refresh again" in ended.said
        shop.check_rerun()


def empty_and_put_back(shop: Shop, server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()
    shop.put_back()


@needs_redis
def test_redis_that_dies_in_mid_refresh_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refreshes: Nursery
) -> None:
    with serve_redis(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as server:
        monkeypatch.setenv("CATALOG_RECTIFIER_REDIS", server.connection_string)
        shop = Shop(tmp_path / "shop", "redis", refreshes)
        publish_items(
            shop.table,
            tmp_path / "stages",
            "2024-03-03",
            [f"many-{x}" for x in range(20_000)],
            widths={"image": 64, "text": 64},
        )
        with server.client() as client:
            before = client.dbsize()
            job = shop.start()
            while client.dbsize() <= before and job.is_alive:
                pass
        server.kill()
        ended = job.wait()
        assert (ended.code, ended.said.count("\n")) == (1, 1)
        told = "writing Redis failed: .*; readers keep the version that was served; mend it, then refresh again"
        assert re.search(told, ended.said)
        server.start()
        assert shop.served() == 0
        assert refresh_store(shop.config, shop.table)["rows"] == 20_000
        with server.client() as client:
            assert client.dbsize() == 20_000 + len(OLD)


@pytest.mark.parametrize("online", ["sqlite", pytest.param("redis", marks=[needs_redis, pytest.mark.slow])])
def test_a_reader_beside_refreshes_gets_one_version_at_a_time(
    online: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    refreshes: Nursery,
) -> None:
    if online == "redis":
        _, server = request.getfixturevalue("redis_shop")
        with server.client() as client:
            client.flushall()
        monkeypatch.setenv("CATALOG_RECTIFIER_REDIS", server.connection_string)
    shop = Shop(tmp_path, online, refreshes)
    shop.config = replace(shop.config, grace=3.0)
    store, seen = open_store(shop.config), set()
    for number in range(2):
        job = shop.start()
        while job.is_alive:
            rows = read_online(shop.config, EVERY, store)
            told = {
                (x["image_version"], x["text_version"], x["image_run_id"], x["text_run_id"]) for x in rows.values()
            } - {(None,) * 4}
            ((version, other, run_id, of_text),) = told
            assert version == other and run_id == of_text
            items = {k for k, x in rows.items() if x["image_version"] is not None}
            assert items == set(NEW if version else OLD)
            seen.add(version)
        assert job.wait().code == 0
        assert read_online(shop.config, EVERY, store)["item-15"]["image_version"] == number + 1
        publish_items(shop.table, tmp_path / "stages", DAYS[1], NEW, seed=5 + number)
    assert len(seen) > 1


def test_two_refreshes_at_once_end_with_the_newest(tmp_path: Path, refreshes: Nursery) -> None:
    shop = Shop(tmp_path, "sqlite", refreshes)
    codes = {x.wait().code for x in [shop.start() for _ in range(3)]}
    assert 0 in codes
    assert codes <= {0, 4}
    shop.check_rerun()

"""Refreshing a feature store: readers get whole versions, the right one, from SQLite and from a real Redis."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.errors import InputError, OnlineStoreError, TableHeldError
from tasks.feature_store.config import FeatureStoreConfig
from tasks.feature_store.redis_cleanup import redis_client
from tasks.feature_store.refresh import refresh_store
from tasks.feature_store.registry import feature_store_yaml, read_served
from tasks.store.file_lock import held_file
from tasks.table.config import PublishConfig
from tasks.table.history import roll_back
from tests.support.feature_store.feature_store_support import (
    assert_served,
    open_store,
    publish_items,
    read_online,
    table_rows,
)
from tests.support.feature_store.redis_server import PASSWORD, RedisServer, needs_redis, serve_redis

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")
ITEMS = [f"item-{x}" for x in range(40)]
ODD = ['"', "'; DROP TABLE x; --", "a/b/../c", "🧺 basket", "ключ", "a,b=c", " ", "x" * 3000, "0", "%s", "\\", "tab\t"]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with serve_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStoreConfig:
    """The config of an empty store of either kind."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        with server.client() as client:
            client.flushall()
        monkeypatch.setenv("CATALOG_RECTIFIER_REDIS", server.connection_string)
    return FeatureStoreConfig(folder=str(tmp_path / "store"), online=request.param, patience=0, grace=0)


@pytest.fixture
def table(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "table"))


def contents(config: FeatureStoreConfig) -> dict[str, int]:
    """The views that hold rows online, with how many items each holds."""
    if config.online == "redis":
        count: dict[str, int] = {}
        with redis_client(config) as client:
            for key in client.scan_iter():
                for name in client.hkeys(key):
                    if name.startswith(b"_ts:"):
                        count[name[4:].decode()] = count.get(name[4:].decode(), 0) + 1
        return count
    with closing(sqlite3.connect(config.root / "online.db")) as connection:
        names = [x for (x,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {x: connection.execute(f'SELECT count(DISTINCT entity_key) FROM "{x}"').fetchone()[0] for x in names}
    return {name.removeprefix(f"{config.project}_"): rows for name, rows in found.items()}


def publish_days(table: PublishConfig, root: Path, *days: str, items: list[Any] | None = None) -> None:
    for seed, day in enumerate(days):
        publish_items(table, root / "stages", day, items or ITEMS, seed=seed)


@pytest.mark.parametrize("items", [ITEMS, ODD, [5, 0, 7, -3, 2**40]], ids=["text", "odd", "integers"])
def test_readers_get_the_newest_day_and_nothing_else(
    store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path, items: Any
) -> None:
    publish_days(table, tmp_path, *DAYS[:2], items=items)
    done = refresh_store(store, table)
    expected = {"done": "rows", "version": 1, "as_of": DAYS[1], "rows": len(items), "rows_version": 1}
    assert {name: done[name] for name in expected} == expected
    assert done["run_id"] == table_rows(table.uri, DAYS[1])[items[0]]["run_id"]
    assert_served(store, table.uri, DAYS[1], 1)
    nobody = 99 if isinstance(items[0], int) else "nobody"
    assert set(read_online(store, [nobody])[nobody].values()) == {None}
    assert contents(store) == {"image_v1": len(items), "text_v1": len(items)}
    assert {x.name for x in store.root.glob(".tmp*")} == set()


def test_a_repeat_writes_nothing(store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        volatile = (".lock", "served.json", "online.db-wal", "online.db-shm")
        paths = [path for path in store.root.rglob("*") if path.is_file() and path.name not in volatile]
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    publish_days(table, tmp_path, DAYS[0])
    refresh_store(store, table)
    before = files()
    again = refresh_store(store, table)
    assert (again["done"], again["pushed"], again["version"]) == ("unchanged", False, 0)
    assert files() == before
    assert contents(store) == {"image_v1": 40, "text_v1": 40}


def test_deleted_items_go_and_at_most_two_versions_are_online(
    store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path
) -> None:
    for number, items in enumerate((ITEMS, ITEMS[5:], [*ITEMS[10:], "new"])):
        publish_items(table, tmp_path / "stages", DAYS[number], items, seed=number)
        refresh_store(store, table)
        assert_served(store, table.uri, DAYS[number], number)
    assert set(read_online(store, ITEMS[:10])["item-3"].values()) == {None}
    assert contents(store) == {"image_v2": 35, "text_v2": 35, "image_v3": 31, "text_v3": 31}
    assert len(list((store.root / "offline").iterdir())) == 2


def test_a_backfilled_day_is_never_pushed(store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path) -> None:
    publish_days(table, tmp_path, DAYS[2])
    refresh_store(store, table)
    served = read_online(store, ITEMS)
    publish_items(table, tmp_path / "stages", DAYS[0], ITEMS[:5], seed=9)
    done = refresh_store(store, table)
    assert (done["done"], done["version"], done["as_of"], done["rows_version"]) == ("links", 1, DAYS[2], 0)
    assert read_online(store, ITEMS) == served
    assert contents(store) == {"image_v1": 40, "text_v1": 40}
    assert refresh_store(store, table)["done"] == "unchanged"
    found = history(store, [("item-1", DAYS[0]), ("item-1", DAYS[1]), ("item-1", DAYS[2])])
    assert [x.isoformat() for x in found["image_as_of"].dt.date] == [DAYS[0], DAYS[0], DAYS[2]]
    assert found["image_version"].tolist() == [1, 1, 1]


def test_a_view_says_which_embedding_model_made_it(table: PublishConfig, tmp_path: Path) -> None:
    store = FeatureStoreConfig(folder=str(tmp_path / "store"), patience=0, grace=0)

    def publish_and_serve(day: str, seed: int, **models: str) -> dict[str, Any]:
        publish_items(table, tmp_path / "stages", day, ITEMS, seed=seed, models=models)
        refresh_store(store, table)
        return {x.name: dict(x.tags) for x in open_store(store).list_feature_views()}

    first = {"embedding_model": "a@1", "embedding_model_since": DAYS[1]}
    assert publish_and_serve(DAYS[1], 0, image="a@1") == {"image_v1": first, "text_v1": {}}
    second = {"embedding_model": "b@2", "embedding_model_since": DAYS[2]}
    # Two generations are online, and each says its own; a row is of one of them.
    found = publish_and_serve(DAYS[2], 1, image="b@2", text="t")
    assert found == {"image_v1": first, "text_v1": {}, "image_v2": second, "text_v2": second | {"embedding_model": "t"}}
    assert_served(store, table.uri, DAYS[2], 1)
    # A backfilled day of another model, and the last day of the old one made anew by the new one.
    assert publish_and_serve(DAYS[0], 2, image="b@2") == found
    assert publish_and_serve(DAYS[1], 3, image="b@2")["image_v2"] == second | {"embedding_model_since": DAYS[0]}


def test_it_refuses_to_go_back_unless_it_is_told_to(
    store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path
) -> None:
    publish_days(table, tmp_path, *DAYS)
    refresh_store(store, table)
    before = read_online(store, ITEMS)
    with pytest.raises(
        InputError, match=r"serves version 2 as of 2024-03-03; version 0 as of 2024-03-01 is older: nothing was pushed"
    ) as caught:
        refresh_store(store, table, version=0)
    assert "\n" not in str(caught.value)
    assert refresh_store(store, table, version=0, older="skip")["done"] == "superseded"
    assert read_online(store, ITEMS) == before
    assert refresh_store(store, table, version=0, older="serve")["done"] == "rows"
    assert_served(store, table.uri, DAYS[0], 0)
    assert refresh_store(store, table, version=1)["version"] == 1
    assert_served(store, table.uri, DAYS[1], 1)


def test_a_rollback_reaches_readers(store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path) -> None:
    publish_days(table, tmp_path, *DAYS)
    refresh_store(store, table)
    roll_back(table, 1)
    done = refresh_store(store, table)
    assert (done["done"], done["version"], done["as_of"]) == ("rows", 3, DAYS[1])
    assert_served(store, table.uri, DAYS[1], 3)
    # The same day again, with other features, and back: Redis would take neither for newer.
    publish_items(table, tmp_path / "stages", DAYS[1], ITEMS, seed=77)
    refresh_store(store, table)
    assert_served(store, table.uri, DAYS[1], 4)
    roll_back(table, 3)
    refresh_store(store, table)
    assert_served(store, table.uri, DAYS[1], 5)
    # Neither is older than what is served by its number, yet the day is, and nobody rolled back since.
    publish_items(PublishConfig(uri=table.uri, keep_snapshots=9), tmp_path / "stages", DAYS[0], ITEMS, seed=5)
    assert refresh_store(store, table)["done"] == "links"


def test_modalities_come_go_and_are_empty(store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path) -> None:
    stages = tmp_path / "stages"
    publish_items(table, stages, DAYS[0], ITEMS, empty=["text"])
    refresh_store(store, table)
    assert_served(store, table.uri, DAYS[0], 0)
    assert {x["text_status"] for x in read_online(store, ITEMS).values()} == {"missing"}
    publish_items(table, stages, DAYS[1], ITEMS, widths={"image": 4, "text": 3, "video": 2})
    refresh_store(store, table)
    assert_served(store, table.uri, DAYS[1], 1, ("image", "text", "video"))
    publish_items(table, stages, DAYS[2], ITEMS, widths={"image": 4, "video": 2})
    assert refresh_store(store, table)["modalities"] == ["image", "video"]
    assert_served(store, table.uri, DAYS[2], 2, ("image", "video"))
    found = history(store, [("item-3", day) for day in DAYS], ["video", "video_as_of"])
    assert found["video"].isna().tolist() == [True, False, False]


def test_behaviour_comes_and_goes(store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path) -> None:
    views = ("image", "text", "behaviour")
    for number, behaviour in enumerate((False, True, False)):
        publish_items(table, tmp_path / "stages", DAYS[number], ITEMS, seed=number, behaviour=behaviour)
        done = refresh_store(store, table)
        assert (done["done"], done["modalities"]) == ("rows", ["image", "text"])
        assert_served(store, table.uri, DAYS[number], number, views if behaviour else views[:2])
        if behaviour:
            anchors = [x["behaviour"] for x in read_online(store, ITEMS).values()]
            assert 0 < anchors.count(None) < len(anchors)
            assert contents(store).keys() == {"image_v1", "text_v1", *(f"{x}_v2" for x in views)}
            assert refresh_store(store, table)["done"] == "unchanged"
            found = history(store, [("item-3", day) for day in DAYS[:2]])
            assert found["behaviour"].isna().tolist() == [True, False]
            np.testing.assert_array_equal(found["behaviour"][1], table_rows(table.uri, DAYS[1])["item-3"]["behaviour"])


def test_a_store_that_lost_its_rows_is_filled_again(
    store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path
) -> None:
    publish_days(table, tmp_path, DAYS[0])
    refresh_store(store, table)
    if store.online == "redis":
        with redis_client(store) as client:
            client.flushall()
    else:
        for left in store.root.glob("online.db*"):
            left.unlink()
    assert refresh_store(store, table)["done"] == "rows"
    assert_served(store, table.uri, DAYS[0], 0)


def test_another_project_in_the_same_place_is_left_alone(
    store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path
) -> None:
    # Feast's own clean-up of Redis takes keys by their end: it would take this one's.
    other = replace(
        store,
        project=f"other_{store.project}",
        folder=store.folder if store.online == "sqlite" else f"{store.folder}-other",
    )
    if store.online == "sqlite":
        other = replace(other, folder=f"{store.folder}-other")
        os.makedirs(other.folder)
        (store.root).mkdir()
        (other.root / "online.db").symlink_to(store.root / "online.db")
    publish_days(table, tmp_path, *DAYS)
    refresh_store(other, table, version=0)
    for version in (0, 1, 2):
        refresh_store(store, table, version=version)
    assert read_online(other, ITEMS[:3])["item-1"]["image_version"] == 0
    assert_served(store, table.uri, DAYS[2], 2)


def history(
    config: FeatureStoreConfig, asked: list[tuple[Any, str]], features: list[str] | None = None
) -> pd.DataFrame:
    """A point-in-time join of (item, time)."""
    frame = pd.DataFrame(asked, columns=["item_id", "event_timestamp"])
    frame["event_timestamp"] = pd.to_datetime(frame["event_timestamp"], utc=True, format="ISO8601")
    store = open_store(config)
    found = store.get_historical_features(frame, store.get_feature_service(config.service)).to_df()
    for name in [x for x in found.columns if x.endswith("_as_of")]:
        found[name] = pd.to_datetime(found[name])
    return found.sort_values(["item_id", "event_timestamp"], ignore_index=True)


def test_a_point_in_time_join_gives_what_brute_force_gives(
    store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path
) -> None:
    if store.online == "redis":
        pytest.skip("the offline store is the same whatever is online")
    days = [(date(2024, 3, 1) + timedelta(days=2 * x)).isoformat() for x in range(6)]
    rng = np.random.default_rng(0)
    for seed, day in enumerate(days):
        publish_items(table, tmp_path / "stages", day, [x for x in ITEMS if rng.random() < 0.7], seed=seed)
    refresh_store(store, table)
    begin = datetime(2024, 2, 28, tzinfo=UTC)
    asked = [
        (str(rng.choice(ITEMS)), (begin + timedelta(hours=int(rng.integers(0, 24 * 16)))).isoformat())
        for _ in range(300)
    ]
    asked += [("item-1", f"{day}T00:00:00+00:00") for day in days]
    asked = list(dict.fromkeys(asked))
    found = history(store, asked)
    rows = {day: table_rows(table.uri, day) for day in days}
    assert len(found) == len(asked)
    matched = 0
    for got in found.to_dict("records"):
        known = [
            day for day in days if pd.Timestamp(day, tz=UTC) <= got["event_timestamp"] and got["item_id"] in rows[day]
        ]
        if not known:
            assert pd.isna(got["image_run_id"]) and pd.isna(got["text_as_of"])
            continue
        matched += 1
        row = rows[known[-1]][got["item_id"]]
        for m in ("image", "text"):
            assert (None if got[m] is None else list(got[m])) == row[m]
            assert (got[f"{m}_status"], got[f"{m}_run_id"], got[f"{m}_version"]) == (
                row[f"{m}_status"],
                row["run_id"],
                5,
            )
            assert got[f"{m}_as_of"] == pd.Timestamp(known[-1])
            assert got[f"{m}_trust"] == row[f"{m}_trust"] or (pd.isna(got[f"{m}_trust"]) and row[f"{m}_trust"] is None)
    assert 100 < matched < len(asked)


def test_offline_files_outlive_the_tables_sweep_and_are_links(
    store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path
) -> None:
    publish_days(table, tmp_path, DAYS[0])
    refresh_store(store, table)
    (linked,) = {x.stat().st_ino for x in (store.root / "offline").rglob("*.parquet")}
    assert linked in {x.stat().st_ino for x in Path(table.uri).rglob("*.parquet")}
    shutil.rmtree(table.uri)
    assert history(store, [("item-1", DAYS[1])])["image_as_of"].dt.date.tolist() == [date.fromisoformat(DAYS[0])]


def test_one_refresh_at_a_time(store: FeatureStoreConfig, table: PublishConfig, tmp_path: Path) -> None:
    publish_days(table, tmp_path, DAYS[0])
    with (
        held_file(store.root / ".lock", "it", run="refresh"),
        pytest.raises(TableHeldError, match=f"feature store {store.folder}: .* holds it"),
    ):
        refresh_store(store, table)
    assert read_served(store) is None


@needs_redis
def test_redis_that_is_gone_is_one_line_without_its_password(
    tmp_path: Path, table: PublishConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FeatureStoreConfig(folder=str(tmp_path / "store"), online="redis")
    publish_days(table, tmp_path, *DAYS[:2])
    with serve_redis(tmp_path / "redis") as server:
        monkeypatch.setenv("CATALOG_RECTIFIER_REDIS", server.connection_string)
        refresh_store(config, table, version=0)
        server.kill()
        with pytest.raises(
            OnlineStoreError, match=rf"feature store {config.folder}: .* Redis failed: .*refused.*; readers keep"
        ) as caught:
            refresh_store(config, table)
        assert PASSWORD not in str(caught.value)
        monkeypatch.setenv("CATALOG_RECTIFIER_REDIS", server.connection_string + "wrong")
        server.start()
        with pytest.raises(OnlineStoreError) as refused:
            refresh_store(config, table)
        assert PASSWORD not in str(refused.value)
        monkeypatch.setenv("CATALOG_RECTIFIER_REDIS", server.connection_string)
        # It came back empty.
        assert refresh_store(config, table)["done"] == "rows"
        assert_served(config, table.uri, DAYS[1], 1)
        assert not [x for x in config.root.rglob("*") if x.is_file() and PASSWORD.encode() in x.read_bytes()]


@pytest.mark.parametrize(
    "given", [None, "", "localhost", "secret@host:1", "h:1,secret", "h:1,i:2,password=secret", "h:1,password=se'cret"]
)
def test_a_connection_string_that_is_none_is_not_repeated(
    tmp_path: Path, table: PublishConfig, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    publish_days(table, tmp_path, DAYS[0])
    monkeypatch.delenv("CATALOG_RECTIFIER_REDIS", raising=False)
    if given is not None:
        monkeypatch.setenv("CATALOG_RECTIFIER_REDIS", given)
    with pytest.raises(
        InputError, match=r"^feature_store.online: the environment variable CATALOG_RECTIFIER_REDIS is "
    ) as caught:
        refresh_store(FeatureStoreConfig(folder=str(tmp_path / "store"), online="redis"), table)
    assert "secret" not in str(caught.value) and "cret'" not in str(caught.value)


def test_a_foreign_registry_another_table_and_another_online_store_are_refused(
    table: PublishConfig, tmp_path: Path
) -> None:
    config = FeatureStoreConfig(folder=str(tmp_path / "store"))
    publish_days(table, tmp_path, DAYS[0])
    refresh_store(config, table)
    other = PublishConfig(uri=str(tmp_path / "other"))
    publish_days(other, tmp_path, DAYS[1])
    with pytest.raises(InputError, match=r"serves version 0 of another table than .*other; nothing was pushed"):
        refresh_store(config, other)
    assert refresh_store(config, other, older="serve")["done"] == "rows"
    assert_served(config, other.uri, DAYS[1], 0)
    with pytest.raises(
        InputError, match=r"feature_store.online: .*store serves from sqlite; give redis a folder of its own"
    ):
        refresh_store(replace(config, online="redis"), other)
    for damage in (b"", b"\xff\xff\xff", b"plain text"):
        config.registry.write_bytes(damage)
        with pytest.raises(
            InputError,
            match=re.escape(f"{config.registry} is no registry of project catalog_rectifier that a refresh wrote"),
        ):
            refresh_store(config, other)


def test_two_modalities_that_would_share_a_feature_are_refused(table: PublishConfig, tmp_path: Path) -> None:
    publish_items(table, tmp_path / "stages", DAYS[0], ITEMS, widths={"image": 2, "image_version": 2})
    with pytest.raises(InputError, match="two modalities would both give the feature image_version"):
        refresh_store(FeatureStoreConfig(folder=str(tmp_path / "store")), table)


def test_the_repo_in_deployments_is_what_a_refresh_writes() -> None:
    folder = Path(__file__).parents[3] / "deployments" / "feature_repo"
    for online in ("sqlite", "redis"):
        name = "feature_store.yaml" if online == "sqlite" else "feature_store.redis.yaml"
        assert (folder / name).read_text() == feature_store_yaml(FeatureStoreConfig(folder="/", online=online))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("folder", "relative"),
        ("project", "Shop"),
        ("project", ""),
        ("service", "a-b"),
        ("redis_variable", "host:6379,password=secret"),
        ("cache_seconds", 0),
        ("patience", -1.0),
        ("patience", float("nan")),
    ],
)
def test_a_wrong_key_is_named(key: str, value: Any) -> None:
    given = {"folder": "/store"} | {key: value}
    with pytest.raises(ValueError, match=key) as caught:
        FeatureStoreConfig(**given)
    assert "secret" not in str(caught.value)

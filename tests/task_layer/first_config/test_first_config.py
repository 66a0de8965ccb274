"""The first config of files that nobody described: what is certain is set, what is not is left to its owner, and said."""

from __future__ import annotations

import tomllib
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.config.run_config import RunConfig
from tasks.errors import InputError
from tasks.first_config.write import describe_first_config, write_first_config
from tasks.source.inspect import find_problems

CATALOG: dict[str, Any] = {
    "sku": ["a", "b", "c"],
    "name": ["hat", "hat", "cup"],
    "genres": [["x"], ["y"], ["x", "y"]],
    "image_emb": [[0.1, 0.2]] * 3,
    "clip-vector": [[0.1, 0.2]] * 3,
}
LOG: dict[str, Any] = {
    "customer_id": [1, 1, 2],
    "sku": ["a", "b", "a"],
    "stars": [1, 5, 3],
    "at": [datetime(2026, 6, 30)] * 3,
}


def written(folder: Path, catalog: dict[str, Any], log: dict[str, Any]) -> dict[str, Any]:
    pl.DataFrame(catalog).write_parquet(folder / "products.parquet")
    pl.DataFrame(log).write_parquet(folder / "clicks.parquet")
    return write_first_config(folder, None, None)


def test_a_name_that_the_published_table_has_itself_is_not_a_modalitys(tmp_path: Path) -> None:
    written(tmp_path, CATALOG | {"behaviour_emb": [[0.1, 0.2]] * 3}, LOG)
    modalities = RunConfig.from_toml(tmp_path / "run.toml").source.modalities
    assert modalities["m_behaviour"] == "behaviour_emb" and "behaviour" not in modalities


def test_columns_that_are_certain_are_set(tmp_path: Path) -> None:
    found = written(tmp_path, CATALOG, LOG)
    config = RunConfig.from_toml(tmp_path / "run.toml").source
    assert (config.catalog, config.interactions) == (
        str(tmp_path / "products.parquet"),
        str(tmp_path / "clicks.parquet"),
    )
    assert (config.item_column, config.user_column, config.time_column) == ("sku", "customer_id", "at")
    assert (config.title_column, config.category_column, config.positive) == ("name", "genres", None)
    assert config.modalities == {"image": "image_emb", "clip": "clip-vector"}
    assert found["choose"] == {}
    text = (tmp_path / "run.toml").read_text()
    assert '# positive = "stars >= 4"   # stars is 1 to 5' in text
    assert "rectifier validate --config" in describe_first_config(found, "catalog-rectifier").splitlines()[-1]


def test_of_two_columns_none_is_chosen_silently(tmp_path: Path) -> None:
    found = written(tmp_path, CATALOG | {"item_id": [1, 2, 3]}, LOG | {"item_id": [1, 2, 1], "seen_at": LOG["at"]})
    assert found["choose"] == {"item_column": ["sku", "item_id"], "time_column": ["at", "seen_at"]}
    text = (tmp_path / "run.toml").read_text()
    assert (
        '# item_column = "sku"\n# item_column = "item_id"\n' in text
        and "item_column" not in tomllib.loads(text)["source"]
    )
    assert "choose item_column: sku or item_id" in describe_first_config(found, "catalog-rectifier")
    with pytest.raises(InputError, match="item_column"):
        RunConfig.from_toml(tmp_path / "run.toml")


@pytest.mark.parametrize(
    ("catalog", "log", "message"),
    [
        ({"sku": ["a"], "name": ["hat"]}, LOG, "wanted one input with embeddings, found none"),
        ({"thing": ["a"], "image_emb": [[0.1]]}, LOG, "the item's id must have one name in both"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, catalog: dict[str, Any], log: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        written(tmp_path, catalog, log)
    assert not (tmp_path / "run.toml").exists()


def test_an_existing_config_is_never_written_over(tmp_path: Path) -> None:
    written(tmp_path, CATALOG, LOG)
    with pytest.raises(InputError, match="writes no file over another"):
        write_first_config(tmp_path, None, None)


def test_partitions_and_paths_elsewhere(tmp_path: Path) -> None:
    for day in ("2026-06-29", "2026-06-30"):
        (tmp_path / "log" / f"dt={day}").mkdir(parents=True)
        pl.DataFrame(LOG).write_parquet(tmp_path / "log" / f"dt={day}" / "0.parquet")
    pl.DataFrame(CATALOG).write_parquet(tmp_path / "items.parquet")
    folder = tmp_path / "config"
    write_first_config(folder, str(tmp_path / "items.parquet"), str(tmp_path / "log"))
    text = (folder / "run.toml").read_text()
    assert f'interactions = "{tmp_path}/log"   # day folders dt=2026-06-29 to dt=2026-06-30' in text
    with pytest.raises(InputError, match="give both or none"):
        write_first_config(tmp_path / "other", str(tmp_path / "items.parquet"), None)


VECTORS = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]
UDT = pa.struct(
    {"type": pa.int8(), "size": pa.int32(), "indices": pa.list_(pa.int32()), "values": pa.list_(pa.float64())}
)
COLUMNS_OF_VECTORS = {
    "fixed size": ("picture", pa.array(VECTORS, pa.list_(pa.float32(), 3))),
    "large list of halves": ("picture", pa.array(VECTORS, pa.large_list(pa.float16()))),
    "decimals": ("picture", pa.array([[Decimal("0.1"), Decimal("0.2")]] * 3, pa.list_(pa.decimal128(5, 2)))),
    "bytes of a quantized model": ("img_emb", pa.array([[1, -2, 3]] * 3, pa.list_(pa.int8()))),
    "Spark": ("features", pa.array([{"type": 1, "size": None, "indices": None, "values": x} for x in VECTORS], UDT)),
    "BigQuery": ("vec", pa.array([{"list": x} for x in VECTORS], pa.struct({"list": pa.list_(pa.float64())}))),
    "sequence": ("frames", pa.array([[x, x] for x in VECTORS], pa.list_(pa.list_(pa.float32())))),
    "JSON": ("picture", pa.array(["[0.1, 0.2]", " [0.3,0.4]", None])),
}
COLUMNS_OF_TIMES = {
    "compact dates": ("day", [20260629, 20260630, 20260630], "dates written as 20260630"),
    "milliseconds": ("event_ts", [1782777600000, 1782777600001, 1782777600002], "milliseconds since 1970"),
    "seconds without a name": ("when", [1782777600, 1782777601, 1782777602], "seconds since 1970"),
    "text": ("when", ["2026-06-30T12:00:00Z", "2026-06-30T12:00:01Z", None], "string"),
    "date": ("d", [date(2026, 6, 29), date(2026, 6, 30), date(2026, 6, 30)], "date32[day]"),
}
COLUMNS_OF_IDS = {
    "doubles, as pandas writes numbers with gaps": pa.array([11.0, 12.0, 13.0]),
    "UUIDs": pa.array([b"\xff" * 15 + bytes([x]) for x in (1, 2, 3)], pa.binary(16)),
    "decimals": pa.array([Decimal(1), Decimal(2), Decimal(3)], pa.decimal128(9, 0)),
    "a dictionary": pa.array(["a", "b", "c"]).dictionary_encode(),
}


def read_without_problems(folder: Path, catalog: dict[str, Any], log: dict[str, Any]) -> dict[str, Any]:
    pq.write_table(pa.table(catalog), folder / "products.parquet")
    pq.write_table(pa.table(log), folder / "clicks.parquet")
    found = write_first_config(folder, None, None)
    config = RunConfig.from_toml(folder / "run.toml").source
    assert (found["choose"], find_problems(config, date(2026, 6, 30))[1]) == ({}, [])
    return found


@pytest.mark.parametrize("form", COLUMNS_OF_VECTORS)
def test_every_form_of_vectors_is_found(tmp_path: Path, form: str) -> None:
    column, values = COLUMNS_OF_VECTORS[form]
    # A history has any length, and tags are whole numbers: neither is a vector.
    others = {"prices": [[1.0], [1.0, 2.0], []], "tag_ids": [[1, 2], [3, 4], [5, 6]]}
    found = read_without_problems(tmp_path, {"sku": ["a", "b", "c"], **others, column: values}, LOG)
    assert list(found["modalities"].values()) == [column]
    text = (tmp_path / "run.toml").read_text()
    assert '# prices = "prices"   # lists of different lengths' in text
    assert '# tag_ids = "tag_ids"   # lists of whole numbers, which may be ids' in text


@pytest.mark.parametrize("form", COLUMNS_OF_TIMES)
def test_every_form_of_times_is_found(tmp_path: Path, form: str) -> None:
    column, values, what = COLUMNS_OF_TIMES[form]
    # Seconds watched are no time since 1970, and a score is no user.
    log = {"sku": ["a", "b", "a"], "who": ["x", "y", "x"], "watch_time": [5, 60, 3000], "score": [1.0, 2.0, 5.0]}
    found = read_without_problems(tmp_path, CATALOG, log | {column: values})
    assert (found["columns"]["time_column"], found["columns"]["user_column"]) == (column, "who")
    assert f'time_column = "{column}"   # when the interaction was: {what}' in (tmp_path / "run.toml").read_text()


@pytest.mark.parametrize("form", COLUMNS_OF_IDS)
def test_every_form_of_ids_is_found(tmp_path: Path, form: str) -> None:
    ids = COLUMNS_OF_IDS[form]
    catalog = {"pid": ids, "brand": ["x", "x", "y"], "image_emb": VECTORS, "photo": [b"\x89PNG\xff"] * 3}
    found = read_without_problems(tmp_path, catalog, {"pid": ids, "brand": ["x", "x", "y"], "customer": ids})
    assert (found["columns"]["item_column"], found["columns"]["user_column"]) == ("pid", "customer")


def test_odd_names_make_a_config_that_can_be_read(tmp_path: Path) -> None:
    catalog = {"sku": ["a", "b", "c"], 'изо "x"_emb': VECTORS, "1. image vector": VECTORS}
    log = {"sku": ["a", "b", "a"], "my user": [1, 1, 2], "event type": ["it's\nnew", "it's\nnew", "b"]}
    found = read_without_problems(tmp_path, catalog, log)
    assert found["modalities"] == {"x": 'изо "x"_emb', "m_1__image": "1. image vector"}
    text = (tmp_path / "run.toml").read_text()
    line = next(x for x in text.splitlines() if x.startswith("# positive"))
    (tmp_path / "run.toml").write_text(text.replace(line, line.removeprefix("# ")))
    config = RunConfig.from_toml(tmp_path / "run.toml").source
    assert (config.positive or "").startswith('"event type" IN (')
    assert find_problems(config, date(2026, 6, 30))[1] == []


def test_two_columns_of_one_modality_are_both_named(tmp_path: Path) -> None:
    found = written(tmp_path, {"sku": ["a", "b"], "image_emb": VECTORS[:2], "image_vec": VECTORS[:2]}, LOG)
    assert found["choose"] == {"modalities.image": ["image_emb", "image_vec"]}
    assert '# image = "image_emb"\n# image = "image_vec"\n' in (tmp_path / "run.toml").read_text()
    with pytest.raises(InputError, match="modalities"):
        RunConfig.from_toml(tmp_path / "run.toml")


def test_vectors_in_bytes_are_named_and_not_chosen(tmp_path: Path) -> None:
    found = written(tmp_path, {"sku": ["a", "b"], "image_emb": [b"1234", b"5678"]}, LOG)
    assert (found["modalities"], found["choose"]) == ({}, {"a modality": ["image_emb"]})
    text = (tmp_path / "run.toml").read_text()
    assert '# image = "image_emb"   # bytes' in text and '# image = "float32"' in text

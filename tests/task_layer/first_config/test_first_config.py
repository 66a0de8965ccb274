"""The first config of files that nobody described: what is certain is set, what is not is left to its owner, and said."""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.run_config import RunConfig
from tasks.errors import InputError
from tasks.first_config.write import describe_first_config, write_first_config

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
        ({"sku": ["a"], "name": ["hat"]}, LOG, "0 inputs with embeddings"),
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
    assert f'interactions = "{tmp_path}/log"   # dt= partitions 2026-06-29 to 2026-06-30' in text
    with pytest.raises(InputError, match="give both or none"):
        write_first_config(tmp_path / "other", str(tmp_path / "items.parquet"), None)

"""``validate``, and what a refused night loads and leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.flow.flow_support import CommandLine
from tests.support.fuzz.fuzzed_shop import Shop, sound_shop

LOADED = """
import sys
from flows.__main__ import app
try:
    app(sys.argv[1:])
except SystemExit as ended:
    print(ended.code, sorted({"torch", "prefect"} & set(sys.modules)))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return sound_shop(tmp_path)


def test_a_sound_shop_is_described(shop: Shop, cli: CommandLine) -> None:
    shop.write()
    finished = cli("validate", "--config", shop.folder / "run.toml", "--json")
    assert finished.code == 0, finished.err
    result = json.loads(finished.out)
    assert (result["as_of"], result["problems"], result["ids"]) == ("2026-03-09", [], {"looked_at": 60, "known": 60})
    taken = {(x["input"], x["column"]): x["taken_for"] for x in result["readings"]}
    assert taken["log", "event_time"] == "timestamp[us, tz=UTC], 2026-03-01 to 2026-03-09, UTC"
    assert taken["catalog", "image"].startswith("vectors")
    assert not (shop.folder / "runs").exists()


def test_every_mistake_is_listed_and_the_first_is_the_error(shop: Shop, cli: CommandLine) -> None:
    shop.write()
    options = ("--set", "source.title_column='name'", "--set", "source.user_column='visitor'")
    finished = cli("validate", "--config", shop.folder / "run.toml", *options)
    assert finished.code == 2
    assert "(source.title_column)" in finished.error
    assert "(and 1 more, listed above)" in finished.error
    assert "mistake: " in finished.out
    assert "(source.user_column)" in finished.out
    typo = cli("validate", "--config", shop.folder / "run.toml", "--set", "sorce.catalog='x'", "--set", "sed=1")
    assert "sorce: unknown key; did you mean source?" in typo.out
    assert "sed: unknown key; did you mean seed?" in typo.out


def test_ids_that_do_not_match_are_a_mistake(shop: Shop, cli: CommandLine) -> None:
    shop.replace("log", "item_id", pa.array([x.upper() for x in shop.log.column("item_id").to_pylist()]))
    shop.write()
    finished = cli("validate", "--config", shop.folder / "run.toml")
    assert finished.code == 2
    assert "60 of 60 item ids are not in the catalog" in finished.error
    assert "ignoring case would match 60 of 60 ids" in finished.error


@pytest.mark.parametrize(
    "options",
    [
        ["--set", "source.catalg=x"],
        ["--set", "source.user_column='visitor'"],
        ["--as-of", "2062-01-01"],
        ["--set", "source.time_unit='days'"],
        ["--set", "source.item_column='title'"],
    ],
    ids=str,
)
def test_a_refusal_loads_neither_torch_nor_prefect(shop: Shop, options: list[str]) -> None:
    shop.write()
    command = [sys.executable, "-c", LOADED, "rectify", "--config", str(shop.folder / "run.toml"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "2 []\n", done.stderr


def test_an_unreadable_input_leaves_a_day_that_is_done(shop: Shop, cli: CommandLine) -> None:
    shop.write()
    config = ("--config", shop.folder / "run.toml")
    assert cli("rectify", *config).code == 0
    wrong = cli("rectify", *config, "--as-of", "2026-03-09", "--set", "source.catalog='elsewhere'")
    assert wrong.code == 2
    assert cli("status", *config, "--start", "2026-03-09", "--json").result["days"][0]["state"] == "done"
    # A day without an event is published with a warning.
    later = cli("rectify", *config, "--as-of", "2026-03-12", "--json")
    assert later.code == 0, later.err
    assert later.result["warnings"] == ["the log has no event on 2026-03-12; the newest is of 2026-03-09"]
    fresh = cli("freshness", *config, "--json")
    assert fresh.result["newest_day"] == "2026-03-09"


def test_a_home_of_prefect_that_cannot_be_written_is_one_line(shop: Shop, cli: CommandLine) -> None:
    shop.write()
    (shop.folder / "file").write_text("")
    place = str(shop.folder / "file" / "home")
    finished = cli("rectify", "--config", shop.folder / "run.toml", environment={"PREFECT_HOME": place})
    assert finished.code == 2
    assert f"PREFECT_HOME {place}: Prefect's folder cannot be written" in finished.error


def test_a_terminal_of_ascii_shows_escapes(shop: Shop) -> None:
    shop.catalog = shop.catalog.rename_columns(["Tïtle" if x == "title" else x for x in shop.catalog.column_names])
    shop.config = shop.config.replace('title_column = "title"', 'title_column = "Tïtle"')
    shop.write()
    command = [sys.executable, "-m", "flows", "validate", "--config", str(shop.folder / "run.toml")]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert "T\\xeftle: text to show" in done.stdout

"""A catalog that another process writes to again and again while it is read: a run sees one state of it, or says that it changed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.config.run_config import RunConfig
from tasks.errors import InputError
from tasks.source.read import read_source, resolve_day
from tasks.store.store import Ref, StageStore
from tests.support.flow.flow_support import CommandLine, rows_of
from tests.support.fuzz.fuzzed_shop import NUM_ITEMS, Shop, sound_shop

# Puts each of two files in the place of a third in turns, until its standard input ends.
WRITER = """
import os, select, shutil, sys
how, place, *states = sys.argv[1:]
turn = 0
print("writing", flush=True)
while not select.select([sys.stdin], [], [], 0.002)[0]:
    raw = open(states[turn % 2], "rb").read()
    turn += 1
    if how == "renamed over":
        open(place + ".new", "wb").write(raw)
        os.rename(place + ".new", place)
    elif how == "rewritten in place":
        with open(place, "wb", buffering=0) as out:
            for at in range(0, len(raw), 4096):
                out.write(raw[at : at + 4096])
    else:
        os.unlink(place)
        open(place, "wb").write(raw)
open(place, "wb").write(open(states[0], "rb").read())
"""
HOWS = ("renamed over", "rewritten in place", "deleted and written")
SAID = re.compile(
    r"catalog.*(overwritten while|vanished|cannot be read as Parquet|no such file|holds no file|no column)"
)


@contextmanager
def written_to(shop: Shop, how: str) -> Iterator[None]:
    """The shop's catalog alternates between two states for the block: in the second all ids, titles and features are others."""
    states = [shop.folder / "a.parquet", shop.folder / "b.parquet"]
    other = shop.catalog.set_column(1, "title", pa.array([f"Other {x}" for x in range(NUM_ITEMS)]))
    moved = pa.array([[y + 100 for y in x] for x in shop.catalog.column("image").to_pylist()], pa.list_(pa.float32()))
    for path, table in zip(states, (shop.catalog, other.set_column(3, "image", moved)), strict=True):
        pq.write_table(table, path, row_group_size=5)
    command = [sys.executable, "-c", WRITER, how, str(shop.catalog_file), *map(str, states)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdout.readline()
        yield
        writer.stdin.close()


def _state(titles: list[str], image: np.ndarray) -> str:
    """Which of the two states these are of; fails for a mix."""
    of_titles, of_image = {x.split()[0] for x in titles}, set((image.mean(axis=1) > 50).tolist())
    assert (of_titles, of_image) in (({"Kettle"}, {False}), ({"Other"}, {True})), "two states of the catalog in one"
    return of_titles.pop()


def _read(config: RunConfig, day: date, store: Path) -> Ref | InputError:
    try:
        return read_source(config.source, day, StageStore(store))
    except InputError as error:
        return error


@pytest.mark.parametrize("how", HOWS)
def test_reading_sees_one_state_or_says_that_it_changed(tmp_path: Path, how: str) -> None:
    shop = sound_shop(tmp_path)
    shop.write()
    config = RunConfig.from_toml(tmp_path / "run.toml")
    day, outcomes = resolve_day(config.source, None), set()
    with written_to(shop, how):
        for number in range(25):
            ref = _read(config, day, tmp_path / f"stages-{number}")
            if isinstance(ref, InputError):
                assert SAID.search(str(ref)), ref
                assert not list((tmp_path / f"stages-{number}").glob("*"))
                outcomes.add("said")
            else:
                outcomes.add(
                    _state(
                        pq.read_table(ref.file("labels.parquet")).column("title").to_pylist(),
                        ref.array("features-image"),
                    )
                )
    assert outcomes
    # When nothing writes to it any more, all is well.
    assert read_source(config.source, day, StageStore(tmp_path / "stages")).meta["num_items"] == NUM_ITEMS


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_a_night_publishes_one_state_or_nothing(tmp_path: Path, cli: CommandLine, how: str) -> None:
    shop = sound_shop(tmp_path)
    shop.write()
    with written_to(shop, how):
        finished = cli("rectify", "--config", tmp_path / "run.toml", "--json")
    assert finished.code in (0, 2, 3), finished.err
    if finished.code == 2:
        assert SAID.search(finished.error), finished.error
        assert not (tmp_path / "table").exists()
    again = cli("rectify", "--config", tmp_path / "run.toml", "--json")
    assert again.code == 0, again.err
    assert rows_of(str(tmp_path / "table"), again.result["as_of"]).num_rows == NUM_ITEMS

"""Whatever a night is given, it ends in a whole table that reads back right, or in one line that names what is wrong and no table."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from flows.commands.shared import GivenConfig
from rectifier_core.base.published_records import Status
from tasks.errors import InputError
from tasks.source.read import read_source
from tasks.store.store import Ref
from tests.support.flow.flow_support import CommandLine, Finished
from tests.support.fuzz.fuzzed_inputs import CASES
from tests.support.fuzz.fuzzed_shop import Case, Shop

# `make test` reads the first two cases of every kind and runs a few whole nights. `make test-slow` does all.
QUICK = {
    "id_type-2",
    "strange_ids-0",
    "feature_values-0",
    "few_items-0",
    "few_rows-0",
    "bad_utf8-0",
    "broken_file-0",
    "broken_toml-0",
}
QUICK |= {"modality_name-1", "wrong_value-1", "odd_arguments-0"}
NIGHTS = [pytest.param(x, id=x.name, marks=[] if x.name in QUICK else [pytest.mark.slow]) for x in CASES]

READ = [pytest.param(x, id=x.name, marks=[] if x.seed < 2 else [pytest.mark.slow]) for x in CASES]


def test_there_are_two_hundred_and_no_two_of_a_name() -> None:
    assert len({x.name for x in CASES}) == len(CASES) >= 200
    assert {x.name for x in CASES} >= QUICK


@pytest.mark.parametrize("case", READ)
def test_reading_it_gives_an_account_of_every_row_or_one_line(tmp_path: Path, case: Case) -> None:
    shop = case.build(tmp_path)
    ref = _read(shop)
    if isinstance(ref, InputError):
        assert 2 in case.allowed, ref
        assert any(x in str(ref) for x in case.names), ref
        assert "sEcr3t" not in str(ref)
        assert not list((tmp_path / "runs" / "stages").glob("*"))
        return
    assert case.allowed != (2,), "nothing was said against it"
    counts = ref.meta["counts"]
    assert counts["catalog_rows_read"] == counts["items"] + sum(counts["items_quarantined"].values())
    parts = ("not_positive", "anonymous", "repeats_merged", "interactions_used")
    quarantined = sum(counts["interactions_quarantined"].values())
    assert counts["interactions_read"] == sum(counts[x] for x in parts) + quarantined
    for name in ref.meta["modalities"]:
        features = ref.array(f"features-{name}")
        assert np.isfinite(features).all()
        assert (features.any(axis=1) == ref.array(f"present-{name}")).all()


@pytest.mark.parametrize("case", NIGHTS)
def test_a_night_with_it_publishes_whole_or_says_in_one_line_why_not(
    tmp_path: Path, cli: CommandLine, case: Case
) -> None:
    shop = case.build(tmp_path)
    finished = cli("rectify", "--config", tmp_path / "run.toml", "--json", *shop.arguments)
    assert finished.code in case.allowed, (finished.code, finished.err)
    assert "Traceback" not in finished.out + finished.err
    assert all(x.isprintable() for x in finished.err.splitlines())
    uri = tmp_path / "table"
    if finished.code == 0:
        _assert_whole(shop, finished)
        return
    assert finished.out == ""
    assert any(x in finished.error for x in (case.names if finished.code == 2 else ("the quality gate refused",))), (
        finished.error
    )
    assert "sEcr3t" not in finished.err
    assert not uri.exists() or not any(uri.rglob("*.json")), "half a table"
    assert not list((tmp_path / "runs" / "stages").glob(".tmp-*"))


def _read(shop: Shop) -> Ref | InputError:
    given: dict[str, list[str]] = {"--set": [], "--as-of": []}
    for option, value in zip(shop.arguments[::2], shop.arguments[1::2], strict=True):
        given[option].append(value)
    try:
        config, day = GivenConfig(shop.folder / "run.toml", tuple(given["--set"])).read_with_day(
            next(iter(given["--as-of"]), None)
        )
        return read_source(config.source, day, config.run.store)
    except InputError as error:
        return error


def _assert_whole(shop: Shop, finished: Finished) -> None:
    """The table holds one row for every usable id of the catalog, finite features of one width, and words and probabilities."""
    result = finished.result
    rows = pl.from_arrow(
        DeltaTable(result["table"]).to_pyarrow_table(filters=[("as_of", "=", date.fromisoformat(result["as_of"]))])
    )
    assert isinstance(rows, pl.DataFrame)
    bad = pq.read_table(Path(result["report"]).with_name("quarantine") / "items.parquet")
    assert rows.height == result["rows"]
    assert rows["item_id"].n_unique() == rows.height
    assert shop.catalog.num_rows + shop.undated_rows == rows.height + bad.num_rows
    for name, facts in result["modalities"].items():
        features = rows[name].drop_nulls()
        assert features.explode(empty_as_null=False).is_finite().all()
        assert features.list.len().n_unique() == 1
        assert rows[f"{name}_trust"].drop_nulls().is_between(0, 1).all()
        counted = dict(rows[f"{name}_status"].value_counts().iter_rows())
        assert counted == {x.value: facts[x.value] for x in Status if facts[x.value]}
        assert rows[name].null_count() == facts[Status.MISSING.value]

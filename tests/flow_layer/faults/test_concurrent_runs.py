"""Runs at the same time: on one table one of them waits its turn outside, on two tables neither disturbs the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.support.flow.flow_support import CommandLine, Finished, Published, days_of, rows_of, table_uri


def both(cli: CommandLine, demo: Path, days: list[str]) -> list[Finished]:
    """Two runs of one demo, started together."""
    running = [cli.start("rectify", "--config", demo / "run.toml", "--as-of", day, "--json") for day in days]
    return [x.wait() for x in running]


def held(ends: list[Finished]) -> list[Finished]:
    """Those that met the other one; fails where an end is neither that nor a good one."""
    assert {x.code for x in ends} <= {0, 4}, [x.err for x in ends]
    assert 0 in {x.code for x in ends}
    met = [x for x in ends if x.code == 4]
    for one in met:
        assert "another process (run rectify " in one.error
        assert one.out == ""
    return met


@pytest.mark.parametrize("same_day", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_two_publishers_of_one_table(published: Published, cli: CommandLine, same_day: bool) -> None:
    uri = table_uri(published.demo)
    shutil.rmtree(published.demo / "warehouse")
    days = [published.days[2]] * 2 if same_day else published.days[1:]
    ends = both(cli, published.demo, days)
    met = held(ends)
    done = [(day, x.result) for day, x in zip(days, ends, strict=True) if x.code == 0]
    assert days_of(uri) == sorted({day for day, _ in done})
    assert DeltaTable(uri).version() == len(days_of(uri)) - 1
    # A run that was refused works when it is repeated.
    for day in days:
        result = cli.published(published.demo, day)
        assert result["published"] == (day not in {x for x, _ in done})
        assert set(rows_of(uri, day)["run_id"].to_pylist()) == {result["run_id"]}
        assert result["run_id"] == published.results[published.days.index(day)]["run_id"]
    assert days_of(uri) == sorted(set(days))
    assert len(met) + len(done) == 2


@pytest.mark.slow
def test_two_tables_with_one_run_folder_do_not_disturb_each_other(
    demo: Path, cli: CommandLine, one_day: Published
) -> None:
    day = one_day.days[0]
    # Both build the very same stage outputs at the very same time, and each sweeps the folder as it begins.
    command = ("rectify", "--config", demo / "run.toml", "--as-of", day, "--json", "--set")
    running = [cli.start(*command, f"publish.uri='{name}/item_features'") for name in ("warehouse", "other")]
    ends = [x.wait() for x in running]
    assert [x.code for x in ends] == [0, 0], [x.err for x in ends]
    wanted = rows_of(table_uri(one_day.demo), day)
    for name in ("warehouse", "other"):
        assert rows_of(str(demo / name / "item_features"), day).equals(wanted)

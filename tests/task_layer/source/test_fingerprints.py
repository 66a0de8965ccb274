"""What a listing tells of a day's inputs: which days a file that came, went or was written again concerns, and which it does not."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError
from tasks.source.config import SourceConfig
from tasks.source.fingerprints import Inputs, changed_inputs, input_fingerprints

DAYS = [date(2024, 3, x) for x in range(1, 6)]


def write(path: Path, rows: int = 1, at: int = 1_700_000_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = pa.array([datetime(2024, 3, 1 + 2 * x, 12, tzinfo=UTC) for x in range(rows)])
    pq.write_table(pa.table({"x": list(range(rows)), "event_time": times}), path)
    os.utime(path, (at, at))


@pytest.fixture
def config(tmp_path: Path) -> SourceConfig:
    for day in DAYS:
        write(tmp_path / "log" / f"dt={day}" / "part.parquet")
    for day in DAYS[1::2]:
        write(tmp_path / "catalog" / f"dt={day}" / "part.parquet")
    places = {"catalog": str(tmp_path / "catalog"), "interactions": str(tmp_path / "log")}
    return SourceConfig(**places, item_column="x", user_column="x", modalities={"image": "x"}, lookback_days=2)


def changed(config: SourceConfig, before: dict[date, object]) -> list[date]:
    now = Inputs.listed(config)
    return [day for day in DAYS if now.fingerprints(day) != before[day]]


def test_a_file_concerns_the_days_that_read_it(config: SourceConfig, tmp_path: Path) -> None:
    inputs = Inputs.listed(config)
    before = {day: inputs.fingerprints(day) for day in DAYS}
    # No snapshot of the catalog is old enough for the first day.
    assert inputs.days(today=DAYS[-1]) == DAYS[1:]
    assert inputs.days(today=DAYS[-2]) == DAYS[1:-1]
    assert before[DAYS[0]] is None
    log = tmp_path / "log" / f"dt={DAYS[2]}"
    write(log / "late.parquet")
    assert changed(config, dict(before)) == DAYS[2:4]
    assert changed_inputs(before[DAYS[2]] or {}, Inputs.listed(config).fingerprints(DAYS[2]) or {}) == [
        "log changed: 2 files, 3 now"
    ]
    (log / "late.parquet").unlink()
    assert changed(config, dict(before)) == []
    write(log / "part.parquet", at=1_700_000_100)
    assert changed(config, dict(before)) == DAYS[2:4]
    told = changed_inputs(before[DAYS[2]] or {}, Inputs.listed(config).fingerprints(DAYS[2]) or {})
    assert told == ["log changed: written 2023-11-14T22:15:00+00:00"]
    write(log / "part.parquet")
    write(tmp_path / "catalog" / f"dt={DAYS[1]}" / "part.parquet", at=1_700_000_100)
    assert changed(config, dict(before)) == DAYS[1:3]


def test_a_copy_that_kept_its_times_is_the_same(config: SourceConfig, tmp_path: Path) -> None:
    for name in ("catalog", "log"):
        shutil.copytree(tmp_path / name, tmp_path / "copy" / name)
    there = replace(config, catalog=str(tmp_path / "copy" / "catalog"), interactions=str(tmp_path / "copy" / "log"))
    assert input_fingerprints(there, DAYS[3]) == input_fingerprints(config, DAYS[3]) is not None


def test_without_partitions_every_day_reads_the_same_and_the_events_tell_the_days(
    config: SourceConfig, tmp_path: Path
) -> None:
    write(tmp_path / "whole.parquet", rows=2)
    whole = replace(config, interactions=str(tmp_path / "whole.parquet"), time_column="event_time", lookback_days=None)
    inputs = Inputs.listed(whole)
    assert [x.isoformat() for x in inputs.days(today=DAYS[-1])] == ["2024-03-02", "2024-03-03", "2024-03-04"]
    assert inputs.fingerprints(DAYS[1])["log"] == inputs.fingerprints(DAYS[3])["log"]  # type: ignore[index]


def test_inputs_that_are_not_there_are_left_to_the_run_to_name(config: SourceConfig, tmp_path: Path) -> None:
    gone = replace(config, catalog=str(tmp_path / "nowhere"))
    assert input_fingerprints(gone, DAYS[3]) is None
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        Inputs.listed(gone)

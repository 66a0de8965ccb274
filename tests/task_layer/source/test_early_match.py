"""A log of other items is refused before it is read whole, and no log is that a run would take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tasks.errors import InputError
from tasks.source.config import SourceConfig
from tasks.source.early_match import refuse_unknown_items
from tasks.source.inspect import inspect_source
from tasks.source.interactions import BLOCK_ROWS
from tests.support.source_samples import DAY, IDS, NUM_ITEMS, log_table, read, sample, write, write_by_day


def shop(folder: Path, unknown: list[bool], *, by_day: bool, **changed: Any) -> SourceConfig:
    """A log in which the items of some rows are not the catalog's; every seventh row has no user."""
    ids = [f"other{r}" if other else IDS[r * 7 % NUM_ITEMS] for r, other in enumerate(unknown)]
    log = log_table(item_id=ids, user_id=[None if r % 7 == 3 else f"u{r % 5}" for r in range(40)])
    config = sample(folder, log=log, **changed)
    return replace(config, interactions=str(write_by_day(log, folder / "days"))) if by_day else config


def refused(config: SourceConfig) -> str | None:
    try:
        refuse_unknown_items(inspect_source(config, DAY), config, DAY)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("by_day", [True, False])
def test_a_log_of_other_items_is_refused_with_the_remedy(tmp_path: Path, by_day: bool) -> None:
    config = shop(tmp_path, [True] * 40, by_day=by_day)
    message = refused(config)
    assert message is not None
    assert "because the catalog does not have their items" in message
    assert "the log has 'other" in message and "no simple spelling makes them match" in message


def test_a_part_of_the_log_is_proof_enough(tmp_path: Path) -> None:
    config = sample(tmp_path)
    rows = log_table(item_id=[f"other{r}" for r in range(40)])
    many = pa.concat_tables([rows] * (BLOCK_ROWS // 20))
    for part in range(3):
        write(many, tmp_path / "parts" / f"{part}.parquet")
    message = refused(replace(config, interactions=str(tmp_path / "parts")))
    assert message is not None
    assert f"{2 * BLOCK_ROWS:,} of the newest {2 * BLOCK_ROWS:,} interactions" in message


@pytest.mark.parametrize("by_day", [True, False])
@pytest.mark.parametrize(
    "changed", [{}, {"positive": "rating >= 4"}, {"lookback_days": 3}, {"max_quarantined": 0.5}], ids=str
)
def test_no_log_is_refused_that_a_run_takes(tmp_path: Path, changed: dict[str, Any], by_day: bool) -> None:
    rng, early, late = np.random.default_rng(3), 0, 0
    for at, share in enumerate([0, 0.1, 0.2, 0.2, 0.25, 0.3, 0.45, 0.5, 0.55, 0.8]):
        folder = tmp_path / str(at)
        # The other items are drawn, and then all among the newest rows.
        for place, unknown in enumerate((rng.random(40) < share, np.arange(40) >= 40 * (1 - share))):
            config = shop(folder / str(place), unknown.tolist(), by_day=by_day, **changed)
            before = refused(config) is not None
            try:
                read(config, folder / str(place))
                taken = True
            except InputError:
                taken = False
            assert not (before and taken), (share, place)
            early, late = early + before, late + (not taken)
    assert 0 < early <= late < 20

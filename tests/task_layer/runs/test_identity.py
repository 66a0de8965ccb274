"""What makes two runs the same run."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.rectify.config import RectifyConfig
from tasks.runs.identity import identify, without_places
from tasks.source.config import SourceConfig
from tasks.store.store import Ref

DAY = date(2024, 3, 10)
SOURCE = SourceConfig(
    catalog="/data/catalog",
    interactions="/data/log",
    item_column="item_id",
    user_column="user_id",
    modalities={"image": "image_embedding"},
)
READ = Ref(kind="source", path="/runs/stages/source-1", digest="abc")
PARTS: dict[str, Any] = {"seed": 0, "source": SOURCE, "anchors": AnchorsConfig(), "rectify": RectifyConfig()}


def test_a_run_is_named_by_its_day_and_a_digest() -> None:
    identity = identify(DAY, READ, PARTS)
    assert re.fullmatch(r"20240310-[0-9a-f]{12}", identity.run_id)
    assert identity.digest.startswith(identity.run_id.split("-")[1])
    assert identity.inputs_digest == "abc"
    assert identity == identify(DAY, READ, dict(reversed(PARTS.items())))


@pytest.mark.parametrize("key", ["catalog", "interactions"])
def test_the_location_of_the_data_does_not_count(key: str) -> None:
    moved = replace(READ, path="/elsewhere", seconds=9.0, reused=True)
    assert identify(DAY, moved, PARTS | {"source": replace(SOURCE, **{key: "s3://bucket"})}) == identify(
        DAY, READ, PARTS
    )


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"source": replace(SOURCE, positive="rating >= 4")},
        {"anchors": AnchorsConfig(epochs=3)},
        {"rectify": RectifyConfig(keep_original=0.7)},
    ],
)
def test_the_config_that_shapes_the_rows_counts(other: dict[str, Any]) -> None:
    changed, first = identify(DAY, READ, PARTS | other), identify(DAY, READ, PARTS)
    assert changed.run_id != first.run_id
    assert changed.config_digest != first.config_digest


def test_the_day_and_what_was_read_count() -> None:
    inputs = ((DAY, READ), (date(2024, 3, 11), READ), (DAY, replace(READ, digest="abd")))
    assert len({identify(*each, PARTS).digest for each in inputs}) == 3


def test_the_config_in_a_report_names_no_location() -> None:
    values = without_places(PARTS)
    assert "/data" not in json.dumps(values)
    assert (values["source"]["item_column"], values["rectify"]["keep_original"]) == ("item_id", 0.6)

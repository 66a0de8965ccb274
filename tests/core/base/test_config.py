"""What every config class refuses, and the line that names a mistake."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest
from pydantic import ValidationError

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.config import explain
from rectifier_core.config import PipelineConfig, QualityConfig
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.evaluation.backbones.config import FREEDOMConfig
from rectifier_core.evaluation.config import AlignmentConfig
from rectifier_core.projection.config import ProjectionConfig


@pytest.mark.parametrize(
    ("kind", "values", "line"),
    [
        (AnchorsConfig, {"epochs": -1}, "epochs: wanted at least 0, got -1"),
        (AnchorsConfig, {"epochs": True}, "epochs: wanted a whole number, got true"),
        (AnchorsConfig, {"epochs": "5"}, 'epochs: wanted a whole number, got "5"'),
        (AnchorsConfig, {"epochs": 2.5}, "epochs: wanted a whole number, got 2.5"),
        (AnchorsConfig, {"held_out": True}, "held_out: wanted a number, got true"),
        (AnchorsConfig, {"held_out": float("nan")}, "held_out: wanted a finite number, got NaN"),
        (AnchorsConfig, {"held_out": 1}, "held_out: wanted below 1, got 1"),
        (AnchorsConfig, {"start": "cold"}, "start: wanted 'spectral' or 'random', got \"cold\""),
        (
            AnchorsConfig,
            {"method": "spectral", "warm_start": True},
            "warm_start: wanted false where method is spectral",
        ),
        (AffinityConfig, {"temprature": 1}, "temprature: unknown key; did you mean temperature?"),
        (AffinityConfig, {"num_neighbours": 0, "xyz": 1}, "xyz: unknown key; num_neighbours: wanted at least 1, got 0"),
        (ProjectionConfig, {"keep_ratio": "most"}, 'keep_ratio: wanted a share in (0, 1] or "auto", got most'),
        (ProjectionConfig, {"ridge_grid": (1.0, 0.0)}, "ridge_grid.1: wanted above 0, got 0.0"),
        (ProjectionConfig, {"ridge_grid": ()}, "ridge_grid: wanted at least 1 of them, got []"),
        (CopiesConfig, {"large_group": 2}, "large_group: wanted at least min_group = 3, got 2"),
        (QualityConfig, {"warn": ("rows",)}, "warn.0: wanted 'marginal_error', 'join'"),
        (AlignmentConfig, {"ratios": (0.2, 0.1)}, "ratios: wanted rising values in (0, 1)"),
        (FREEDOMConfig, {"modality_weights": {"image": -1.0}}, "modality_weights.image: wanted at least 0, got -1.0"),
        (PipelineConfig, {"anchors": {"epoch": 3}}, "anchors.epoch: unknown key; did you mean epochs?"),
        (PipelineConfig, {"anchors": 3}, "anchors: wanted a table, got 3"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(kind: Any, values: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kind(**values)
    explained = explain(caught.value, kind)
    assert explained.startswith(line)
    assert "\n" not in explained
    assert explain(caught.value, kind, "table.x").startswith("table.x.")


def test_a_config_is_a_frozen_dataclass() -> None:
    config = AffinityConfig(temperature=1)
    assert type(config.temperature) is float
    assert replace(config, num_neighbours=5) == AffinityConfig(temperature=1.0, num_neighbours=5)
    assert asdict(PipelineConfig(affinity=config))["affinity"] == asdict(config)
    with pytest.raises(ValidationError):
        replace(config, num_neighbours=0)
    with pytest.raises(FrozenInstanceError):
        config.temperature = 2.0  # type: ignore[misc]

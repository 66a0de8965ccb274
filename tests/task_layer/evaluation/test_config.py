"""The ``[evaluation]`` table: its defaults and the values that it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rectifier_core.base.config import explain
from tasks.evaluation.config import CorruptionGrid, EvaluationConfig


def test_the_default_is_all_recommenders_on_raw_and_rectified_features() -> None:
    config = EvaluationConfig()
    assert (len(config.backbones), config.seeds, config.split_column, config.shadow) == (6, 5, None, None)
    assert config.corruption == CorruptionGrid(kinds=("swap",), shares=(0.0, 0.2, 0.4), modalities=("all",))
    assert (list(config.variant_tables), list(config.editing_tables)) == (["raw", "rectified"], ["none"])


def test_a_list_replaces_the_default_and_a_table_adds_to_it() -> None:
    assert list(EvaluationConfig(variants=("smoothed",)).variant_tables) == ["smoothed"]
    few = {"few": {"affinity.num_neighbours": 5}}
    assert EvaluationConfig(variants=few).variant_tables == {"raw": {}, "rectified": {}, **few}
    assert list(EvaluationConfig(editing={"light": {"pruning": 0.1}}).editing_tables) == ["none", "light"]


def test_the_nightly_run_depends_only_on_the_settings_of_the_shadow() -> None:
    assert EvaluationConfig(seeds=3, backbones=("vbpr",)).shadow_parts == {}
    parts = EvaluationConfig(shadow="vbpr").shadow_parts
    assert EvaluationConfig(shadow="vbpr", seeds=3).shadow_parts == parts
    assert EvaluationConfig(shadow="vbpr", training={"vbpr": {"epochs": 3}}).shadow_parts != parts


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"seeds": 0}, "seeds: wanted at least 1, got 0"),
        ({"backbones": ()}, "backbones: wanted at least 1 of them, got []"),
        ({"backbones": ("vbpr", "vbpr")}, "backbones: vbpr is there twice"),
        ({"validation": 0.5, "test": 0.5}, "validation + test: wanted below 1"),
        ({"split_column": " "}, "split_column: must not be empty"),
        ({"shadow": "vbprr"}, "shadow: wanted 'lightgcn', 'vbpr'"),
        ({"variants": ("a b",)}, "variants: a b: a name is a letter"),
        ({"editing": {}}, "editing: wanted a list of names or a table of tables"),
        ({"corruption": {"shares": (1.5,)}}, "corruption.shares.0: wanted at most 1"),
        ({"interaction_noise": {"shares": (-0.1,)}}, "interaction_noise.shares.0: wanted at least 0"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EvaluationConfig(**values)
    assert explain(caught.value, EvaluationConfig).startswith(line)

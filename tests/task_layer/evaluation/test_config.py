"""The ``[evaluation]`` table: what it says without being told, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rectifier_core.base.config import explain
from tasks.evaluation.config import CorruptionGrid, EvaluationConfig


def test_the_default_is_the_whole_proof() -> None:
    config = EvaluationConfig()
    assert config.backbones == ("lightgcn", "vbpr", "lattice", "freedom", "mgcn", "smore")
    assert config.seeds == 5
    assert config.corruption == CorruptionGrid(kinds=("swap",), shares=(0.0, 0.2, 0.4), modalities=("all",))
    assert config.interaction_noise.shares == (0.0,)
    assert list(config.variant_tables) == ["raw", "rectified"]
    assert list(config.editing_tables) == ["none"]
    assert (config.split_column, config.shadow, config.out) == (None, None, None)


def test_a_list_of_variants_is_the_whole_list_and_a_table_comes_on_top() -> None:
    assert list(EvaluationConfig(variants=("smoothed",)).variant_tables) == ["smoothed"]
    assert EvaluationConfig(variants={"few": {"affinity.num_neighbours": 5}}).variant_tables == {
        "raw": {},
        "rectified": {},
        "few": {"affinity.num_neighbours": 5},
    }
    assert list(EvaluationConfig(editing={"light": {"pruning": 0.1}}).editing_tables) == ["none", "light"]


def test_only_a_shadow_counts_for_the_nightly_run() -> None:
    assert EvaluationConfig(seeds=3, backbones=("vbpr",)).shadow_parts == {}
    training = {"vbpr": {"epochs": 3}}
    assert (
        EvaluationConfig(shadow="vbpr", training=training).shadow_parts != EvaluationConfig(shadow="vbpr").shadow_parts
    )
    assert EvaluationConfig(shadow="vbpr", seeds=3).shadow_parts == EvaluationConfig(shadow="vbpr").shadow_parts


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
def test_a_wrong_value_is_named(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EvaluationConfig(**values)
    assert explain(caught.value, EvaluationConfig).startswith(line)

"""The cells of a grid, and what their names stand for."""

from __future__ import annotations

from typing import Any

import pytest

from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.config import EditConfig
from tasks.errors import InputError
from tasks.evaluation.config import CorruptionGrid, EvaluationConfig, NoiseGrid
from tasks.evaluation.grid import Cell, Damage, EditSpec, Grid, Noise, plan_grid

MODALITIES = ("image", "text")


def planned(**given: Any) -> Grid:
    return plan_grid(EvaluationConfig(**given), PipelineConfig(), MODALITIES, categories=True, seed=7)


def refusal(**given: Any) -> str:
    with pytest.raises(InputError) as caught:
        planned(**given)
    return str(caught.value)


def test_a_grid_is_every_combination_once() -> None:
    grid = planned(
        backbones=("vbpr", "freedom"),
        seeds=2,
        corruption=CorruptionGrid(kinds=("swap", "noise"), shares=(0.0, 0.2, 0.4), modalities=("all", "image")),
        interaction_noise=NoiseGrid(kinds=("random", "popular"), shares=(0.0, 0.1)),
        variants=("raw", "rectified", "smoothed"),
        editing=("none", "aligned"),
    )
    # Share 0 is one point, however many kinds and modalities there are.
    assert len(grid.cells) == 2 * 2 * (1 + 2 * 2 * 2) * (1 + 2) * 3 * 2
    assert len(set(grid.cells)) == len(grid.cells) == len({cell.name for cell in grid.cells})
    assert {cell.seed for cell in grid.cells} == {7, 8}
    assert [cell.seed for cell in grid.cells] == sorted(cell.seed for cell in grid.cells)
    assert [cell.backbone for cell in grid.cells[:4]] == ["vbpr", "freedom", "vbpr", "freedom"]
    assert {(x.damage.kind, x.damage.damaged) for x in grid.cells if not x.damage.share} == {("none", "none")}


def test_a_grid_without_share_zero_has_no_undamaged_cell() -> None:
    grid = planned(backbones=("vbpr",), corruption=CorruptionGrid(shares=(0.4,)), seeds=1)
    assert {cell.damage for cell in grid.cells} == {Damage(kind="swap", damaged="all", share=0.4)}
    assert grid.damaged(grid.cells[0].damage) == MODALITIES
    assert grid.damaged(Damage(kind="swap", damaged="text", share=0.4)) == ("text",)


def test_a_backbone_that_reads_no_feature_runs_once_for_all_of_them() -> None:
    grid = planned(backbones=("lightgcn", "vbpr"), seeds=1, interaction_noise=NoiseGrid(shares=(0.0, 0.1)))
    own = [cell for cell in grid.cells if cell.backbone == "lightgcn"]
    assert [(cell.damage, cell.variant) for cell in own] == [(Damage(), "raw")] * 2
    assert [cell.noise.share for cell in own] == [0.0, 0.1]


def test_a_cells_name_says_what_is_special_about_it() -> None:
    plain = Cell(backbone="vbpr", damage=Damage(), noise=Noise(), variant="raw", editing="none", seed=3)
    assert plain.name == "vbpr, raw, seed 3"
    damage, noise = Damage(kind="swap", damaged="image", share=0.4), Noise(kind="popular", share=0.1)
    special = Cell(backbone="vbpr", damage=damage, noise=noise, variant="few", editing="aligned", seed=3)
    assert special.name == "vbpr, swap 0.4 of image, 0.1 popular clicks, few, edited aligned, seed 3"


def test_a_variant_is_a_base_and_what_it_overrides() -> None:
    grid = planned(
        variants={
            "dotted": {"rectify.mix": "constant", "affinity.num_neighbours": 5},
            "nested": {"rectify": {"mix": "constant"}, "affinity": {"num_neighbours": 5}},
            "weak": {"base": "smoothed", "rectify.keep_original": 0.9},
        }
    )
    assert list(grid.variants) == ["raw", "rectified", "dotted", "nested", "weak"]
    assert grid.variants["rectified"].config == PipelineConfig()
    assert grid.variants["dotted"] == grid.variants["nested"]
    assert (grid.variants["dotted"].base, grid.variants["weak"].base) == ("rectified", "smoothed")
    assert grid.variants["dotted"].config.rectify.mix == "constant"
    assert grid.variants["dotted"].config.affinity.num_neighbours == 5
    assert grid.variants["dotted"].config.sinkhorn == PipelineConfig().sinkhorn


def test_an_editing_is_told_by_its_name_or_its_table() -> None:
    grid = planned(
        editing={
            "pruning_graph_0.1": {},
            "completion_train_.25": {"where": "both"},
            "aligned": {"target": "graph"},
            "careful": {"pruning": 0.05, "alignment": {"errors": 3.0}, "where": "anchors"},
        }
    )
    assert grid.editing["none"] is None
    assert grid.editing["pruning_graph_0.1"] == EditSpec(config=EditConfig(pruning=0.1, target="graph"))
    assert grid.editing["completion_train_.25"] == EditSpec(
        config=EditConfig(completion=0.25, target="train"), where="both"
    )
    aligned, careful = grid.editing["aligned"], grid.editing["careful"]
    assert aligned is not None
    assert aligned.alignment is not None
    assert aligned.config.target == "graph"
    assert careful is not None
    assert careful.alignment is not None
    assert (careful.alignment.errors, careful.where) == (3.0, "anchors")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backbones": ("gpt",)}, "evaluation.backbones: 'gpt' is not one of lightgcn"),
        (
            {"corruption": CorruptionGrid(modalities=("audio",))},
            "evaluation.corruption.modalities: 'audio' is not one of all, image, text",
        ),
        ({"variants": ("smooth",)}, "evaluation.variants.smooth: is empty; wanted one of raw"),
        ({"variants": {"x": {"base": "y"}}}, "evaluation.variants.x.base: 'y' is not one of raw"),
        ({"variants": {"x": {"sinkhorm.balance": "row"}}}, "evaluation.variants.x: 'sinkhorm' is not one of anchors"),
        ({"variants": {"x": {"sinkhorn.balanced": "row"}}}, "evaluation.variants.x.sinkhorn: 'balanced' is not one of"),
        ({"variants": {"x": {"sinkhorn.balance": "rows"}}}, "evaluation.variants.x.sinkhorn.balance: wanted"),
        ({"variants": {"x": {"affinity.num_neighbours": 0}}}, "evaluation.variants.x.affinity.num_neighbours: wanted"),
        (
            {"editing": ("pruning_0.1",)},
            "evaluation.editing.pruning_0.1: wanted none, aligned, a name such as pruning_graph_0.1",
        ),
        ({"editing": {"x": {"pruning": 1.5}}}, "evaluation.editing.x.pruning: wanted below 1, got 1.5"),
        ({"editing": {"x": {"prune": 0.5}}}, "evaluation.editing.x: 'prune' is not one of completion"),
        ({"editing": {"x": {"where": "here"}}}, "evaluation.editing.x.where: wanted"),
        ({"models": {"vpbr": {}}}, "evaluation.models: 'vpbr' is not one of"),
        ({"training": {"vbpr": {"epoch": 1}}}, "evaluation.training.vbpr: 'epoch' is not one of"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_that_names_the_key(given: dict[str, Any], said: str) -> None:
    found = refusal(**given)
    assert found.startswith(said)
    assert "\n" not in found


def test_damage_within_categories_wants_categories() -> None:
    config = EvaluationConfig(corruption=CorruptionGrid(kinds=("within",)))
    assert plan_grid(config, PipelineConfig(), MODALITIES, categories=True, seed=0).cells
    with pytest.raises(
        InputError, match=r"evaluation\.corruption\.kinds: within needs categories.*source\.category_column"
    ):
        plan_grid(config, PipelineConfig(), MODALITIES, categories=False, seed=0)

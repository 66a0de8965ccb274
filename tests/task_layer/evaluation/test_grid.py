"""The cells of a grid, and what their names stand for."""

from __future__ import annotations

from typing import Any

import pytest

from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.config import AlignmentConfig, EditConfig, SearchConfig
from tasks.errors import InputError
from tasks.evaluation.config import CorruptionGrid, EvaluationConfig, NoiseGrid
from tasks.evaluation.grid import Cell, EditSpec, Grid, plan_grid

MODALITIES = ("image", "text")


def planned(**settings: Any) -> Grid:
    return plan_grid(EvaluationConfig(**settings), PipelineConfig(), MODALITIES, categories=True, seed=7)


def test_a_grid_is_every_combination_once() -> None:
    grid = planned(
        backbones=("vbpr", "freedom"),
        seeds=2,
        corruption=CorruptionGrid(kinds=("swap", "noise"), shares=(0.0, 0.2, 0.4), modalities=("all", "image")),
        interaction_noise=NoiseGrid(kinds=("random", "popular"), shares=(0.0, 0.1)),
        variants=("raw", "rectified", "smoothed"),
        editing=("none", "aligned"),
    )
    # Share 0 is one point, however many kinds and modalities there are. LightGCN comes along, once for all features.
    assert len(grid.cells) == 2 * 2 * (1 + 2 * 2 * 2) * (1 + 2) * 3 * 2 + 2 * (1 + 2) * 2
    assert len(set(grid.cells)) == len(grid.cells) == len({cell.name for cell in grid.cells})
    assert {cell.seed for cell in grid.cells} == {7, 8}
    assert [cell.seed for cell in grid.cells] == sorted(cell.seed for cell in grid.cells)
    assert [cell.backbone for cell in grid.cells[:5]] == ["vbpr", "freedom", "lightgcn", "vbpr", "freedom"]
    assert {(x.kind, x.damaged) for x in grid.cells if not x.share} == {("none", "none")}


def test_a_grid_without_share_zero_has_no_undamaged_cell() -> None:
    for modality, damaged in {"all": MODALITIES, "text": ("text",)}.items():
        corruption = CorruptionGrid(shares=(0.4,), modalities=(modality,))
        grid = planned(backbones=("vbpr",), corruption=corruption, seeds=1)
        read = [cell for cell in grid.cells if cell.backbone == "vbpr"]
        assert {(cell.kind, cell.damaged, cell.share) for cell in read} == {("swap", modality, 0.4)}
        assert grid.damaged(grid.cells[0]) == damaged


def test_a_backbone_that_reads_no_feature_runs_once_for_all_of_them() -> None:
    grid = planned(backbones=("lightgcn", "vbpr"), seeds=1, interaction_noise=NoiseGrid(shares=(0.0, 0.1)))
    own = [cell for cell in grid.cells if cell.backbone == "lightgcn"]
    assert [(cell.share, cell.variant, cell.noise_share) for cell in own] == [(0, "raw", 0), (0, "raw", 0.1)]


def test_what_is_set_is_not_searched() -> None:
    settings: dict[str, Any] = {"models": {"vbpr": {"weight_decay": 0.1}}, "training": {"vbpr": {"epochs": 3}}}
    grid = planned(backbones=("vbpr", "mgcn"), **settings | {"training": {"mgcn": {"learning_rate": 0.1}}})
    assert grid.fixed == {"vbpr": ("weight_decay",), "mgcn": ("learning_rate",), "lightgcn": ()}
    assert planned(backbones=("vbpr",), **settings).fixed["vbpr"] == ("weight_decay",)
    with pytest.raises(ValueError, match=r"search\.weight_decays: 'freedom' is not one of lightgcn, vbpr"):
        EvaluationConfig(search=SearchConfig(weight_decays={"freedom": (0.1,)}))


def test_the_name_of_a_cell_has_its_settings() -> None:
    plain = Cell(backbone="vbpr", variant="raw", seed=3)
    assert plain.name == "vbpr, raw, seed 3"
    settings: dict[str, Any] = {"kind": "swap", "damaged": "image", "share": 0.4, "noise_kind": "popular"}
    special = Cell(backbone="vbpr", variant="few", noise_share=0.1, editing="aligned", seed=3, **settings)
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


def test_an_editing_is_described_by_its_name_or_its_table() -> None:
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
    completion = EditConfig(completion=0.25, target="train")
    assert grid.editing["completion_train_.25"] == EditSpec(config=completion, where="both")
    aligned = EditConfig(target="graph")
    assert grid.editing["aligned"] == EditSpec(config=aligned, alignment=AlignmentConfig())
    alignment = AlignmentConfig(errors=3.0)
    assert grid.editing["careful"] == EditSpec(config=EditConfig(pruning=0.05), alignment=alignment, where="anchors")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"backbones": ("gpt",)}, "backbones: 'gpt' is not one of lightgcn"),
        ({"corruption": CorruptionGrid(modalities=("audio",))}, "corruption.modalities: 'audio' is not one of all, im"),
        ({"variants": ("smooth",)}, "variants.smooth: is empty; wanted one of raw"),
        ({"variants": {"x": {"base": "y"}}}, "variants.x.base: 'y' is not one of raw"),
        ({"variants": {"x": {"sinkhorm.balance": "row"}}}, "variants.x: 'sinkhorm' is not one of anchors"),
        ({"variants": {"x": {"affinity.num_neighbours": 0}}}, "variants.x.affinity.num_neighbours: wanted"),
        ({"editing": ("pruning_0.1",)}, "editing.pruning_0.1: wanted none, aligned, a name such as pruning_graph_0.1"),
        ({"editing": {"x": {"pruning": 1.5}}}, "editing.x.pruning: wanted below 1, got 1.5"),
        ({"editing": {"x": {"prune": 0.5}}}, "editing.x: 'prune' is not one of completion"),
        ({"editing": {"x": {"where": "here"}}}, "editing.x.where: wanted"),
        ({"models": {"gpt": {}}}, "models: 'gpt' is not one of"),
        ({"training": {"vbpr": {"epoch": 1}}}, "training.vbpr: 'epoch' is not one of"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        planned(**settings)
    assert str(caught.value).startswith(f"evaluation.{line}")


def test_damage_within_categories_needs_categories() -> None:
    config = EvaluationConfig(corruption=CorruptionGrid(kinds=("within",)))
    assert plan_grid(config, PipelineConfig(), MODALITIES, categories=True, seed=0).cells
    with pytest.raises(InputError, match=r"corruption\.kinds: within needs categories.*source\.category_column"):
        plan_grid(config, PipelineConfig(), MODALITIES, categories=False, seed=0)

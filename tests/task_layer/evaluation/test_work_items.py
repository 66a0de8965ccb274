"""The evaluation's stages: each output is what the core computes, and is reused only for the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from flows.config.run_config import RunConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones.config import TrainingConfig, VBPRConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.config import PriorConfig, SearchConfig
from rectifier_core.evaluation.corruption import damage_catalog
from rectifier_core.evaluation.trial import run_trial
from rectifier_core.trust.config import TrustConfig
from tasks.evaluation import work_items as stages
from tasks.evaluation.arrays import load_catalog, load_split
from tasks.evaluation.config import CorruptionGrid, EvaluationConfig, NoiseGrid
from tasks.evaluation.dependencies import Chain, Dependency, Results
from tasks.evaluation.grid import Cell, VariantSpec, plan_grid
from tasks.evaluation.work_items import Trial, Work
from tasks.source.read import read_source
from tasks.stages.anchors import load_interactions
from tasks.store.store import Ref, StageStore
from tests.support.source_samples import DAY as SAMPLE_DAY
from tests.support.source_samples import catalog_table, read, sample

DAY = date(2026, 6, 30)
PIPELINE = PipelineConfig(anchors=AnchorsConfig(epochs=2, embedding_size=16), trust=TrustConfig(resamples=20))
TRAINING = TrainingConfig(epochs=2, learning_rate=0.01)
MODEL = VBPRConfig()


class Made(NamedTuple):
    """Outputs that tests share."""

    store: StageStore
    source: Ref
    split: Ref
    damaged: Ref
    anchors: Ref
    rectified: Ref


@pytest.fixture(scope="module")
def made(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    store = StageStore(tmp_path_factory.mktemp("stages"))
    source = read_source(RunConfig.from_toml(tiny_demo / "run.toml").source, DAY, store)
    split = Work("x", stages.split_at_random, source, 3, 0.1, 0.1).run(store)
    damaged = Work("x", stages.damage_features, source, "swap", 0.4, ("image",), 3).run(store)
    anchors = Work("x", stages.learn_anchors, split, PIPELINE.anchors, 3).run(store)
    variant = VariantSpec(base="rectified", config=PIPELINE)
    rectified = Work("x", stages.make_variant, variant, damaged, source, split, anchors, 3).run(store)
    return Made(store, source, split, damaged, anchors, rectified)


def cell_work(made: Made, name: str = "x", **changed: Any) -> Work:
    trial: dict[str, Any] = {
        "backbone": "vbpr",
        "features": made.rectified,
        "pairs": made.split,
        "damaged": made.damaged,
        "edited": None,
        "model": MODEL,
        "training": TRAINING,
        "seed": 3,
    }
    return Work(name, stages.run_cell, Trial(**trial | changed))


def test_damage_is_that_of_the_core_and_links_the_other_modalities(made: Made) -> None:
    wanted, truth = damage_catalog(load_catalog(made.source, made.source), "swap", {"image": 0.4}, seed=3)
    damaged = load_catalog(made.source, made.damaged)
    assert all(np.array_equal(damaged.features[m], wanted.features[m]) for m in ("image", "text"))
    assert np.array_equal(made.damaged.array("truth-image"), truth["image"])
    assert not made.damaged.file("truth-text.npy").exists()
    assert made.damaged.file("features-text.npy").samefile(made.source.file("features-text.npy"))


def test_segment_damage_of_a_sequence_swaps_segments_and_pools_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(4, 5)).round(2).tolist() for _ in range(12)]
    config = sample(tmp_path, catalog_table(clips=sequences), modalities={"image": "image", "clips": "clips"})
    source, store = read(config, tmp_path, SAMPLE_DAY), StageStore(tmp_path / "stages")
    ref = Work("x", stages.damage_features, source, "segments", 0.5, ("clips",), 1).run(store)
    truth = np.asarray(ref.array("truth-clips"))
    before, after = np.asarray(source.array("features-clips")), np.asarray(ref.array("features-clips"))
    assert truth.sum() == 6
    np.testing.assert_array_equal((np.abs(before - after) > 1e-6).any(axis=1), truth)


def test_a_cell_is_the_trial_of_the_core_and_the_same_bytes_again(made: Made, tmp_path: Path) -> None:
    cell = cell_work(made).run(made.store)
    split, catalog = load_split(made.split), load_catalog(made.source, made.rectified)
    data = TrainingSet.plain(split.training, catalog.features, catalog.present)
    truth = {"image": np.array(made.damaged.array("truth-image"))}
    wanted = run_trial("vbpr", data, split, seed=3, model=MODEL, training=TRAINING, truth=truth)
    assert cell.meta["metrics"] == dict(wanted.metrics)
    assert np.array_equal(cell.array("users"), wanted.users)
    assert np.array_equal(cell.array("recall@20"), wanted.per_user["recall@20"])
    assert (cell.meta["epochs"], cell.meta["best_epoch"]) == (2, wanted.history.best_epoch)
    again = cell_work(made, "y").run(StageStore(tmp_path / "elsewhere"))
    names = {x.name for x in Path(cell.path).iterdir()} - {"manifest.json", stages.TIMING}
    assert {x: cell.file(x).read_bytes() for x in names} == {x: again.file(x).read_bytes() for x in names}


def test_the_key_of_a_cell_has_everything_but_its_name(made: Made) -> None:
    key = cell_work(made).key
    assert cell_work(made, "another name").key == key
    other: list[dict[str, Any]] = [
        {"backbone": "freedom"},
        {"features": made.damaged},
        {"damaged": None},
        {"edited": (made.split, "graph")},
        {"edited": (made.split, "train")},
        {"model": VBPRConfig(embedding_size=8)},
        {"training": TrainingConfig(epochs=3)},
        {"seed": 4},
    ]
    keys = [cell_work(made, **changed).key for changed in other]
    assert len({key, *keys}) == len(other) + 1


def test_edited_pairs_are_used_for_training_or_for_the_graph(made: Made) -> None:
    prior = Work("x", stages.fit_edge_prior, made.split, PriorConfig(), 3).run(made.store)
    edited = Work("x", stages.edit_pairs, made.split, prior, (0.1, 0.2)).run(made.store)
    logged, left, facts = load_split(made.split).training, load_interactions(edited), edited.meta["facts"]
    assert facts["edit_dropped"] == np.asarray(edited.array("dropped")).sum() > 0
    assert len(left.users) == len(logged.users) - facts["edit_dropped"] + facts["edit_added"]
    ndcg = set()
    for used in (None, (edited, "train"), (edited, "graph")):
        work = cell_work(made, backbone="lightgcn", features=None, damaged=None, edited=used, model=None)
        ndcg.add(work.run(made.store).meta["metrics"]["ndcg@20"])
    assert len(ndcg) == 3


def run_all(dependencies: Mapping[Cell, Dependency], store: StageStore) -> dict[Cell, Ref | str | None]:
    """Do all the work in this process."""
    return {cell: x.run(store) if isinstance(x, Work) else x for cell, x in dependencies.items()}


def chain_of(made: Made, tiny_demo: Path, config: EvaluationConfig) -> Chain:
    grid = plan_grid(config, PIPELINE, ["image", "text"], categories=True, seed=3)
    reading = RunConfig.from_toml(tiny_demo / "run.toml").source
    return Chain(grid=grid, source=made.source, as_of=DAY, reading=reading, config=config)


SMALL = EvaluationConfig(
    backbones=("lightgcn", "vbpr"),
    seeds=1,
    corruption=CorruptionGrid(shares=(0.0, 0.4), modalities=("image",)),
    training={name: {"epochs": 1} for name in ("lightgcn", "vbpr")},
)


def test_a_missing_output_is_the_reason_for_all_that_need_it(made: Made, tiny_demo: Path) -> None:
    config, reason = replace(SMALL, interaction_noise=NoiseGrid(shares=(0.0, 0.2))), "no anchors for noise"
    chain = chain_of(made, tiny_demo, config)
    pairs = run_all(chain.pairs(run_all(chain.splits(), made.store)), made.store)
    added = {cell: len(load_interactions(ref).users) for cell, ref in pairs.items() if isinstance(ref, Ref)}
    assert all((count > min(added.values())) == bool(cell.noise_share) for cell, count in added.items())
    nothing: Results = dict.fromkeys(chain.grid.cells)
    anchors = {cell: reason if cell.noise_share else made.anchors for cell in chain.grid.cells}
    features = chain.features(pairs, nothing, anchors)
    lost = {cell for cell in chain.grid.cells if cell.noise_share and cell.variant == "rectified"}
    assert {cell for cell, x in features.items() if x == reason} == lost
    made_features: Results = {cell: reason if cell in lost else made.source for cell in chain.grid.cells}
    trials = chain.trials(pairs, nothing, nothing, made_features, nothing)
    assert {cell for cell, x in trials.items() if x == reason} == lost
    assert all(isinstance(x, Work) for cell, x in trials.items() if cell not in lost)


def test_a_search_runs_once_a_split_and_its_choice_trains_every_cell(made: Made, tiny_demo: Path) -> None:
    search = SearchConfig(learning_rates=(), weight_decays={"vbpr": (0.01,)}, steps=1)
    config = replace(SMALL, seeds=2, search=search, models={"lightgcn": {"weight_decay": 0.1}})
    chain = chain_of(made, tiny_demo, config)
    wanted = chain.searches(run_all(chain.splits(), made.store))
    # LightGCN's values are all set or alone, so nothing of it is searched.
    assert {cell.backbone for cell, x in wanted.items() if x is not None} == {"vbpr"}
    assert len({x.key for x in wanted.values() if isinstance(x, Work)}) == 2
    name = next(x.name for x in wanted.values() if isinstance(x, Work))
    assert name == "vbpr, seed 3, 2 settings in at most 3 steps"
    searches = run_all(wanted, made.store)
    nothing: Results = dict.fromkeys(chain.grid.cells)
    pairs: Results = dict.fromkeys(chain.grid.cells, made.split)
    features: Results = dict.fromkeys(chain.grid.cells, made.source)
    for cell, work in chain.trials(pairs, nothing, nothing, features, searches).items():
        ref = searches[cell]
        assert isinstance(work, Work)
        given = work.inputs[0]
        if isinstance(ref, Ref):
            assert given.model.weight_decay == ref.meta["chosen"]["weight_decay"]
            assert given.training.learning_rate == ref.meta["chosen"]["learning_rate"]
        else:
            assert (given.model.weight_decay, cell.backbone) == (0.1, "lightgcn")
    off = replace(chain, config=replace(config, search=SearchConfig(enabled=False)))
    assert set(off.searches(pairs).values()) == {None}

"""The evaluation's stages over references: each gives what the core gives, and is found again by what it depends on and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.config.run_config import RunConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.config import EditConfig, TrainingConfig, VBPRConfig
from rectifier_core.evaluation.corruption import damage_catalog
from rectifier_core.evaluation.trial import run_trial
from rectifier_core.trust.config import TrustConfig
from tasks.evaluation import work_items as stages
from tasks.evaluation.arrays import load_catalog, load_split
from tasks.evaluation.config import CorruptionGrid, EvaluationConfig, NoiseGrid
from tasks.evaluation.dependencies import Chain, Dependency, Results
from tasks.evaluation.grid import Cell, Damage, VariantSpec, plan_grid
from tasks.evaluation.results import PER_USER, RESULTS, TIMINGS, write_results
from tasks.evaluation.work_items import Trial, Work
from tasks.source.read import read_source
from tasks.stages.anchors import load_interactions
from tasks.store.store import Ref, StageStore
from tests.support.source_samples import DAY as SAMPLE_DAY
from tests.support.source_samples import read, sample

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
    split = stages.split_work(source, seed=3, validation=0.1, test=0.1).run(store)
    damaged = stages.damage_work(source, Damage(kind="swap", damaged="image", share=0.4), ("image",), seed=3).run(store)
    anchors = stages.anchors_work(split, PIPELINE.anchors, seed=3).run(store)
    variant = VariantSpec(base="rectified", config=PIPELINE)
    rectified = stages.features_work("x", variant, damaged, source, pairs=split, anchors=anchors, seed=3).run(store)
    return Made(store, source, split, damaged, anchors, rectified)


def trial(made: Made, **changed: Any) -> Trial:
    given: dict[str, Any] = {
        "backbone": "vbpr",
        "features": made.rectified,
        "pairs": made.split,
        "damaged": made.damaged,
        "edited": None,
        "model": MODEL,
        "training": TRAINING,
        "seed": 3,
    }
    return Trial(**given | changed)


def test_damage_is_the_cores_with_its_truth_and_leaves_the_rest_alone(made: Made) -> None:
    wanted, truth = damage_catalog(load_catalog(made.source, made.source), "swap", {"image": 0.4}, seed=3)
    found = load_catalog(made.source, made.damaged)
    assert all(np.array_equal(found.features[m], wanted.features[m]) for m in ("image", "text"))
    assert np.array_equal(made.damaged.array("truth-image"), truth["image"])
    assert 0 < truth["image"].sum() < len(truth["image"])
    assert not made.damaged.file("truth-text.npy").exists()
    # The same file, not a copy of it.
    assert made.damaged.file("features-text.npy").stat().st_ino == made.source.file("features-text.npy").stat().st_ino
    assert np.array_equal(made.source.array("features-image"), load_catalog(made.source, made.source).features["image"])


def test_segment_damage_of_a_sequence_swaps_runs_and_pools_anew(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(4, 5)).round(2).tolist() for _ in range(12)]
    from tests.support.source_samples import catalog_table

    config = sample(tmp_path, catalog_table(clips=sequences), modalities={"image": "image", "clips": "clips"})
    source, store = read(config, tmp_path, SAMPLE_DAY), StageStore(tmp_path / "stages")
    damage = Damage(kind="segments", damaged="clips", share=0.5)
    ref = stages.damage_work(source, damage, ("clips",), seed=1).run(store)
    truth = np.asarray(ref.array("truth-clips"))
    assert truth.sum() == 6
    before, after = np.asarray(source.array("features-clips")), np.asarray(ref.array("features-clips"))
    assert np.array_equal(before[~truth], after[~truth])
    assert (np.abs(before[truth] - after[truth]).max(axis=1) > 0.01).all()
    # Half of the four segments are another item's: the mean lies between two sums of segments.
    assert np.abs(after - before).max() < 2 * np.abs(np.asarray(source.array("segments-clips"))).max()


def test_a_cell_is_the_cores_trial_and_the_same_bytes_again(made: Made, tmp_path: Path) -> None:
    cell = stages.cell_work("x", trial(made)).run(made.store)
    split, catalog = load_split(made.split), load_catalog(made.source, made.rectified)
    data = TrainingSet.plain(split.training, catalog.features, catalog.present)
    truth = {"image": np.array(made.damaged.array("truth-image"))}
    wanted = run_trial("vbpr", data, split, seed=3, model=MODEL, training=TRAINING, truth=truth)
    assert cell.meta["metrics"] == dict(wanted.metrics)
    assert "recall@20_touched" in wanted.metrics
    assert np.array_equal(cell.array("users"), wanted.users)
    assert np.array_equal(cell.array("recall@20"), wanted.per_user["recall@20"])
    assert (cell.meta["epochs"], cell.meta["best_epoch"]) == (2, wanted.history.best_epoch)
    again = stages.cell_work("y", trial(made)).run(StageStore(tmp_path / "elsewhere"))
    names = {x.name for x in Path(cell.path).iterdir()} - {"manifest.json", stages.TIMING}
    assert {x: cell.file(x).read_bytes() for x in names} == {x: again.file(x).read_bytes() for x in names}


def test_what_a_cell_depends_on_is_in_its_key(made: Made) -> None:
    key = stages.cell_work("x", trial(made)).key
    assert stages.cell_work("another name", trial(made)).key == key
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
    keys = [stages.cell_work("x", trial(made, **changed)).key for changed in other]
    assert len({key, *keys}) == len(other) + 1


def test_edited_pairs_are_learned_or_propagated_over_but_never_hide_what_is_known(made: Made) -> None:
    prior = stages.prior_work(made.split, seed=3).run(made.store)
    edited = stages.edit_work(
        "x", made.split, prior, None, EditConfig(pruning=0.2, completion=0.1, target="graph")
    ).run(made.store)
    logged, left = load_split(made.split).training, load_interactions(edited)
    facts = edited.meta["facts"]
    assert facts["edit_dropped"] == np.asarray(edited.array("dropped")).sum() > 0
    assert facts["edit_added"] > 0
    assert len(left.users) == len(logged.users) - facts["edit_dropped"] + facts["edit_added"]
    # The target belongs to the trial: one set of edited pairs serves all three.
    both = stages.edit_work("y", made.split, prior, None, EditConfig(pruning=0.2, completion=0.1, target="both"))
    assert both.find(made.store) is not None
    scores = {}
    for name, given in {"none": None, "train": (edited, "train"), "graph": (edited, "graph")}.items():
        lightgcn = trial(made, backbone="lightgcn", features=None, damaged=None, edited=given, model=None)
        scores[name] = stages.cell_work(name, lightgcn).run(made.store).meta["metrics"]
    assert len({x["ndcg@20"] for x in scores.values()}) == 3


def all_of(needs: Mapping[Cell, Dependency], store: StageStore) -> dict[Cell, Ref | str | None]:
    """Do all the work in this process."""
    return {cell: need.run(store) if isinstance(need, Work) else need for cell, need in needs.items()}


def chain_of(made: Made, tiny_demo: Path, config: EvaluationConfig) -> Chain:
    grid = plan_grid(config, PIPELINE, ["image", "text"], categories=True, seed=3)
    return Chain(
        grid=grid,
        source=made.source,
        as_of=DAY,
        reading=RunConfig.from_toml(tiny_demo / "run.toml").source,
        config=config,
    )


SMALL = EvaluationConfig(
    backbones=("lightgcn", "vbpr"),
    seeds=1,
    corruption=CorruptionGrid(shares=(0.0, 0.4), modalities=("image",)),
    interaction_noise=NoiseGrid(shares=(0.0, 0.2)),
    training={name: {"epochs": 1} for name in ("lightgcn", "vbpr")},
)


def test_a_grid_asks_for_each_output_once_and_for_none_that_it_does_not_use(
    made: Made, tiny_demo: Path, tmp_path: Path
) -> None:
    chain = chain_of(made, tiny_demo, SMALL)
    pairs = all_of(chain.pairs(all_of(chain.splits(), made.store)), made.store)
    nothing: Results = dict.fromkeys(chain.grid.cells)
    assert set(chain.priors(pairs).values()) == {None}
    damaged = all_of(chain.damaged(), made.store)
    anchors = chain.anchors(pairs, nothing)
    assert {need is None for cell, need in anchors.items() if cell.variant == "raw"} == {True}
    assert len({need.key for need in anchors.values() if isinstance(need, Work)}) == 2
    features = all_of(chain.features(pairs, damaged, all_of(anchors, made.store)), made.store)
    for cell, ref in features.items():
        if cell.backbone == "lightgcn":
            assert ref is None
        elif cell.variant == "raw":
            assert ref == (damaged[cell] or made.source)
    trials = chain.trials(pairs, nothing, damaged, features)
    assert len({need.key for need in trials.values() if isinstance(need, Work)}) == len(chain.grid.cells) == 10

    cells = all_of(trials, made.store)
    done = {cell: ref for cell, ref in cells.items() if isinstance(ref, Ref)}
    parts = {cell: [ref] for cell, ref in features.items() if isinstance(ref, Ref)}
    write_results(tmp_path / "one", chain.grid, done, parts)
    rows = pq.read_table(tmp_path / "one" / RESULTS).to_pylist()
    assert [row["cell"] for row in rows] == [cell.name for cell in chain.grid.cells]
    for row, cell in zip(rows, chain.grid.cells, strict=True):
        assert row["recall@20"] == done[cell].meta["metrics"]["recall@20"]
        assert (row["backbone"], row["kind"], row["share"], row["noise_share"]) == (
            cell.backbone,
            cell.damage.kind,
            cell.damage.share,
            cell.noise.share,
        )
        assert row["digest"] == trials[cell].key  # type: ignore[union-attr]
        assert (row["strength_image"] is not None) == (cell.variant == "rectified")
        assert (row["recall@20_touched"] is not None) == bool(cell.damage.share)
    users = pq.read_table(tmp_path / "one" / PER_USER).to_pylist()
    assert len(users) == sum(len(ref.array("users")) for ref in done.values())
    first = done[chain.grid.cells[0]]
    assert [x["recall@20"] for x in users[: len(first.array("users"))]] == first.array("recall@20").tolist()
    assert all(x["seconds"] > 0 for x in pq.read_table(tmp_path / "one" / TIMINGS).to_pylist())

    # Another order of finding, the same bytes.
    write_results(tmp_path / "two", chain.grid, dict(reversed(done.items())), parts)
    for name in (RESULTS, PER_USER):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_could_not_be_made_is_the_reason_for_all_that_need_it(made: Made, tiny_demo: Path) -> None:
    chain = chain_of(made, tiny_demo, SMALL)
    pairs, nothing = all_of(chain.pairs(all_of(chain.splits(), made.store)), made.store), dict[Cell, Ref | str | None]()
    broken: dict[Cell, Ref | str | None] = {
        c: "no anchors for noise" if c.noise.share else made.anchors for c in chain.grid.cells
    }
    nothing = dict.fromkeys(chain.grid.cells)
    features = chain.features(pairs, nothing, broken)
    lost = {cell for cell, need in features.items() if need == "no anchors for noise"}
    assert lost == {cell for cell in chain.grid.cells if cell.noise.share and cell.variant == "rectified"}
    reached = all_of(
        {cell: need for cell, need in features.items() if cell in lost or cell.variant == "raw"}, made.store
    )
    trials = chain.trials(pairs, nothing, nothing, {cell: reached.get(cell, made.source) for cell in chain.grid.cells})
    assert {cell for cell, need in trials.items() if need == "no anchors for noise"} == lost
    assert all(isinstance(need, Work) for cell, need in trials.items() if cell not in lost)


@pytest.mark.parametrize(
    ("where", "trained", "learned"), [("training", True, False), ("anchors", False, True), ("both", True, True)]
)
def test_where_an_editing_acts(made: Made, tiny_demo: Path, where: str, trained: bool, learned: bool) -> None:
    config = EvaluationConfig(
        backbones=("vbpr",),
        seeds=1,
        corruption=CorruptionGrid(shares=(0.0,)),
        editing={"pruning_both_0.1": {"where": where}},
    )
    chain = chain_of(made, tiny_demo, config)
    pairs: Results = dict.fromkeys(chain.grid.cells, made.split)
    edited: Results = {cell: None if cell.editing == "none" else made.damaged for cell in chain.grid.cells}
    anchors = {
        (c.editing, c.variant): x.inputs[0] for c, x in chain.anchors(pairs, edited).items() if isinstance(x, Work)
    }
    assert anchors == {
        ("none", "rectified"): made.split,
        ("pruning_both_0.1", "rectified"): made.damaged if learned else made.split,
    }
    features: Results = dict.fromkeys(chain.grid.cells, made.source)
    for cell, need in chain.trials(pairs, edited, dict.fromkeys(chain.grid.cells), features).items():
        assert isinstance(need, Work)
        wanted = (made.damaged, "both") if trained and cell.editing != "none" else None
        assert need.inputs[0].edited == wanted

"""The shadow evaluation between references: what it reads, what it keeps, when it is built anew, and its words."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from flows.config.run_config import RunConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.records import Catalog
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones import BACKBONES
from rectifier_core.evaluation.config import ShadowConfig, TrainingConfig
from rectifier_core.evaluation.shadow import evaluate_shadow
from rectifier_core.trust.config import TrustConfig
from tasks.errors import InputError
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.shadow import shadow_config, shadow_facts, shadow_measure, shadow_stage
from tasks.report.phrases import shadow_phrase
from tasks.report.render import write_report
from tasks.source.read import read_source
from tasks.stages.anchors import load_interactions
from tasks.stages.trust import category_numbers
from tasks.store.store import Ref, StageStore
from tests.support.report_samples import PageText, Run

DAY = date(2026, 6, 30)
QUICK = ShadowConfig(seeds=1, training=TrainingConfig(learning_rate=1e-2, epochs=3))
PIPELINE = PipelineConfig(anchors=AnchorsConfig(epochs=2, embedding_size=16), trust=TrustConfig(resamples=20))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StageStore:
    return StageStore(tmp_path_factory.mktemp("shadow") / "stages")


@pytest.fixture(scope="module")
def config(tiny_demo: Path) -> RunConfig:
    return RunConfig.from_toml(tiny_demo / "run.toml")


@pytest.fixture(scope="module")
def source(config: RunConfig, store: StageStore) -> Ref:
    return read_source(config.source, DAY, store)


@pytest.fixture(scope="module")
def shadow(source: Ref, store: StageStore) -> Ref:
    return shadow_stage(source, QUICK, PIPELINE, 5, store)


def test_the_stage_keeps_what_the_core_finds(shadow: Ref, source: Ref) -> None:
    catalog = Catalog(
        item_ids=source.array("item_ids"),
        features={m: source.array(f"features-{m}") for m in ("image", "text")},
        present={m: np.asarray(source.array(f"present-{m}")) for m in ("image", "text")},
    )
    log = replace(load_interactions(source), times=np.ascontiguousarray(source.array("times")))
    wanted = evaluate_shadow(catalog, log, QUICK, PIPELINE, seed=5, category=category_numbers(source))
    assert wanted.split == "time" and wanted.high is not None
    assert shadow.meta == asdict(wanted) | {"not_worse": wanted.not_worse}


def test_it_is_built_once_and_again_for_whatever_it_depends_on(shadow: Ref, source: Ref, store: StageStore) -> None:
    again = shadow_stage(source, QUICK, PIPELINE, 5, store)
    assert again.reused and again.digest == shadow.digest
    brief = replace(QUICK, training=TrainingConfig(epochs=1))
    asked = [
        (brief, PIPELINE, 5),
        (brief, PIPELINE, 6),
        (brief, replace(PIPELINE, anchors=AnchorsConfig(epochs=1, embedding_size=8)), 5),
    ]
    made = [shadow_stage(source, *each, store) for each in asked]
    assert not any(ref.reused for ref in made)
    assert len({ref.digest for ref in made}) == 3


def test_the_gate_is_told_the_upper_end_of_the_interval_or_nothing(shadow: Ref, source: Ref, store: StageStore) -> None:
    measure = shadow_measure(shadow)
    assert measure is not None
    assert (measure.backbone, measure.highest, measure.tolerance) == ("vbpr", shadow.meta["high"], 0.01)
    assert shadow_measure(None) is None
    few = shadow_stage(source, replace(QUICK, max_interactions=300), PIPELINE, 5, store)
    assert few.meta["high"] is None
    assert shadow_measure(few) is None
    assert "no result, only" in shadow_phrase(few.meta)


def test_the_config_is_the_evaluations(tiny_demo: Path) -> None:
    assert shadow_config(EvaluationConfig()) is None
    plain = shadow_config(EvaluationConfig(shadow="vbpr"))
    assert plain == ShadowConfig(model=BACKBONES["vbpr"].config_type())
    sets = [
        "shadow=vbpr",
        "shadow_seeds=2",
        "shadow_tolerance=0.02",
        "shadow_max_interactions=9",
        "models.vbpr.weight_decay=0.5",
    ]
    settings = [f"evaluation.{x}" for x in [*sets, "training.vbpr.epochs=4"]]
    config = RunConfig.from_toml(tiny_demo / "run.toml", settings)
    found = shadow_config(config.evaluation)
    assert found is not None and found.training is not None
    assert (found.seeds, found.tolerance, found.max_interactions, found.model.weight_decay, found.training.epochs) == (
        2,
        0.02,
        9,
        0.5,
        4,
    )
    assert found.training.learning_rate == BACKBONES["vbpr"].training_config.learning_rate
    assert config.pipeline.anchors == config.anchors and config.pipeline.rectify == config.rectify
    with pytest.raises(InputError, match=r"evaluation\.models\.vbpr: 'width' is not one of"):
        shadow_config(EvaluationConfig(shadow="vbpr", models={"vbpr": {"width": 3}}))
    with pytest.raises(InputError, match=r"evaluation\.shadow: lightgcn reads no features"):
        shadow_config(EvaluationConfig(shadow="lightgcn"))


def test_without_a_shadow_a_run_is_the_run_it_was(tiny_demo: Path) -> None:
    path = tiny_demo / "run.toml"
    off, tuned = (
        RunConfig.from_toml(path),
        RunConfig.from_toml(path, ["evaluation.shadow_seeds=9", "evaluation.seeds=2"]),
    )
    assert off.shaping == tuned.shaping
    assert not {"shadow", "evaluation"} & set(off.shaping)
    on = [
        RunConfig.from_toml(path, ["evaluation.shadow=vbpr", x]) for x in ("seed=7", "evaluation.shadow_tolerance=0.02")
    ]
    assert len({json.dumps(x.shaping["shadow"], sort_keys=True) for x in on}) == 2
    assert {k: v for k, v in on[0].shaping.items() if k != "shadow"} == RunConfig.from_toml(path, ["seed=7"]).shaping


def test_the_report_shows_what_was_found_and_what_it_cost(shadow: Ref, tmp_path: Path) -> None:
    facts = shadow_facts(replace(shadow, seconds=83.0, reused=False), (500 << 20, 612 << 20))
    inputs = replace(Run(tmp_path).inputs(), shadow=facts)
    page = PageText(write_report(tmp_path / "run", inputs).read_text()).text
    twin = json.loads((tmp_path / "run" / "report.json").read_text())["shadow"]
    assert twin["sentence"] == shadow_phrase(facts)
    assert [x["name"] for x in twin["metrics"]] == list(facts["raw"])
    assert "Shadow evaluation" in page
    assert "Cost: 1 min 23 s for 6 epochs in 1 training a side and one more matching" in page
    assert "peak memory of the run 500 MiB before it and 612 MiB after it" in page
    for word in (
        "tested on the last ones",
        f"Recall@20 is {facts['raw']['recall@20']:.3g} with raw features",
        "beyond noise",
    ):
        assert word in page
    found = shadow_facts(replace(shadow, reused=True), (1, 1))
    again = PageText(write_report(tmp_path / "again", replace(inputs, shadow=found)).read_text()).text
    assert "Cost: none, the result of an earlier run was reused" in again
    bare = PageText(write_report(tmp_path / "bare", replace(inputs, shadow=None)).read_text()).text
    assert "Shadow evaluation" not in bare
    assert json.loads((tmp_path / "bare" / "report.json").read_text())["shadow"] is None

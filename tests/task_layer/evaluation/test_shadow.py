"""The shadow evaluation as a stage: its inputs and result, its config, the measure for the gate, and its part of the report."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flows.config.run_config import RunConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones.config import TrainingConfig, VBPRConfig
from rectifier_core.evaluation.backbones.registry import BACKBONES
from rectifier_core.evaluation.config import SearchConfig, ShadowConfig
from rectifier_core.evaluation.shadow import evaluate_shadow
from rectifier_core.trust.config import TrustConfig
from tasks.errors import InputError
from tasks.evaluation.arrays import load_catalog, timed_interactions
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.shadow import shadow_config, shadow_facts, shadow_measure, shadow_stage
from tasks.report.phrases import shadow_phrase
from tasks.report.render import write_report
from tasks.source.read import read_source
from tasks.stages.trust import category_numbers
from tasks.store.store import Ref, StageStore
from tests.support.report_samples import PageText, Run

DAY = date(2026, 6, 30)
QUICK = ShadowConfig(
    seeds=1,
    model=VBPRConfig(embedding_size=16, weight_decay=0.1),
    training=TrainingConfig(learning_rate=1e-2, epochs=10),
)
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


def test_the_stage_writes_the_result_of_the_core(shadow: Ref, source: Ref) -> None:
    catalog, log = load_catalog(source, source), timed_interactions(source)
    wanted = evaluate_shadow(catalog, log, QUICK, PIPELINE, seed=5, category=category_numbers(source))
    assert wanted.split == "time" and wanted.high is not None
    assert shadow.meta == asdict(wanted) | {"not_worse": wanted.not_worse}
    measure = shadow_measure(shadow)
    assert measure is not None
    assert (measure.backbone, measure.highest, measure.tolerance) == ("vbpr", shadow.meta["high"], 0.01)


def test_the_stage_is_reused_for_the_same_inputs_only(shadow: Ref, source: Ref, store: StageStore) -> None:
    again = shadow_stage(source, QUICK, PIPELINE, 5, store)
    assert again.reused and again.digest == shadow.digest
    few = replace(QUICK, max_interactions=300)
    anchors = replace(PIPELINE, anchors=AnchorsConfig(epochs=1, embedding_size=8))
    for settings in ((few, PIPELINE, 5), (few, PIPELINE, 6), (few, anchors, 5)):
        other = shadow_stage(source, *settings, store)
        assert not other.reused
    # So few pairs give no result, and no measure for the gate.
    assert other.meta["high"] is None
    assert shadow_measure(other) is None
    assert "no result, only" in shadow_phrase(other.meta)


def test_the_config_comes_from_the_evaluation_section(tiny_demo: Path) -> None:
    plain = shadow_config(EvaluationConfig(shadow="vbpr"))
    assert plain == ShadowConfig(model=BACKBONES["vbpr"].config_type(), search=SearchConfig())
    off = shadow_config(EvaluationConfig(shadow="vbpr", search=SearchConfig(enabled=False)))
    assert off.search is None
    given: dict[str, Any] = {"models": {"vbpr": {"weight_decay": 1.0}}, "training": {"vbpr": {"learning_rate": 0.01}}}
    fixed = shadow_config(EvaluationConfig(shadow="vbpr", **given))
    assert fixed.fixed == ("weight_decay", "learning_rate")
    settings = ["shadow=vbpr", "shadow_seeds=2", "shadow_max_interactions=9", "training.vbpr.epochs=4"]
    read = RunConfig.from_toml(tiny_demo / "run.toml", [f"evaluation.{x}" for x in settings])
    config = shadow_config(read.evaluation)
    assert config.training is not None
    assert (config.seeds, config.max_interactions, config.training.epochs) == (2, 9, 4)
    assert config.training.learning_rate == BACKBONES["vbpr"].training_config.learning_rate
    with pytest.raises(InputError, match=r"evaluation\.models\.vbpr: 'width' is not one of"):
        shadow_config(EvaluationConfig(shadow="vbpr", models={"vbpr": {"width": 3}}))
    with pytest.raises(InputError, match=r"evaluation\.shadow: lightgcn reads no features"):
        shadow_config(EvaluationConfig(shadow="lightgcn"))


def test_the_report_says_what_the_search_chose(source: Ref, store: StageStore, tmp_path: Path) -> None:
    search = SearchConfig(learning_rates=(), weight_decays={"vbpr": (0.01,)}, steps=20)
    found = shadow_stage(source, replace(QUICK, search=search), PIPELINE, 5, store)
    assert len(found.meta["search"]["candidates"]) == 2
    facts = shadow_facts(replace(found, reused=False), (1, 1))
    page = PageText(write_report(tmp_path, replace(Run(tmp_path).inputs(), shadow=facts)).read_text()).text
    chosen = found.meta["search"]["chosen"]["weight_decay"]
    assert f"Validation pairs chose learning rate 0.01 and weight decay {chosen:g}" in page
    assert f"{found.meta['search']['epochs']} of them in the search for its settings" in page


def test_the_report_shows_the_result_and_its_cost(shadow: Ref, tmp_path: Path) -> None:
    facts = shadow_facts(replace(shadow, seconds=83.0, reused=False), (500 << 20, 612 << 20))
    inputs = replace(Run(tmp_path).inputs(), shadow=facts)
    page = PageText(write_report(tmp_path / "run", inputs).read_text()).text
    report = json.loads((tmp_path / "run" / "report.json").read_text())["shadow"]
    assert report["sentence"] == shadow_phrase(facts)
    assert [x["name"] for x in report["metrics"]] == list(facts["raw"])
    assert "Shadow evaluation" in page and "Cost: 1 min 23 s for 20 epochs" in page
    assert f"Recall@20 is {facts['raw']['recall@20']:.3g} with raw features" in page
    reused = replace(inputs, shadow=shadow_facts(replace(shadow, reused=True), (1, 1)))
    assert "Cost: none" in PageText(write_report(tmp_path / "again", reused).read_text()).text
    nothing = facts | {
        "change": None,
        "low": None,
        "high": None,
        "not_worse": None,
        "reason": "vbpr ranks below popularity",
    }
    unjudged = PageText(write_report(tmp_path / "none", replace(inputs, shadow=nothing)).read_text()).text
    assert "no result, vbpr ranks below popularity" in unjudged and "gave no result, so it checked nothing" in unjudged
    bare = PageText(write_report(tmp_path / "bare", replace(inputs, shadow=None)).read_text()).text
    assert "Shadow evaluation" not in bare

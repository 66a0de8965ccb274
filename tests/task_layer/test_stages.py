"""The core's stages between references: what they save is what the core gives, and a changed input rebuilds only what depends on it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from flows.run_config import RunConfig
from rectifier_core.affinity import AffinityConfig
from rectifier_core.anchors import AnchorsConfig
from rectifier_core.pipeline import PipelineConfig, rectify_catalog
from rectifier_core.projection import ProjectionConfig
from rectifier_core.quality import QualityConfig
from rectifier_core.records import Affinity, Anchors, BalanceOutcome, Catalog, Plan, Projection, QualityReport, Status, Trust
from rectifier_core.rectify import RectifyConfig
from rectifier_core.sinkhorn import SinkhornConfig
from rectifier_core.trust import TrustConfig
from tasks import stages
from tasks.publish_config import PublishConfig
from tasks.references import Ref, StageStore, StageWriter
from tasks.report_inputs import ModalityRefs
from tasks.saved_records import load_record
from tasks.source import read_source

DAY = date(2026, 6, 30)
SEED = 5
CONFIG = PipelineConfig(
    anchors=AnchorsConfig(epochs=2, embedding_size=16),
    trust=TrustConfig(resamples=20),
    rectify=RectifyConfig(impute=True),
)


class Chain(NamedTuple):
    """All stage outputs of a run."""

    source: Ref
    anchors: Ref
    matched: dict[str, ModalityRefs]
    rectified: Ref

    @property
    def rebuilt(self) -> set[str]:
        """The stages that were built rather than found."""
        refs = {"anchors": self.anchors, "rectified": self.rectified}
        refs |= {f"{part}/{m}": getattr(x, part) for m, x in self.matched.items() for part in ("projection", "affinity", "plan", "trust")}
        return {name for name, ref in refs.items() if not ref.reused}


def run(store: StageStore, source: Ref, config: PipelineConfig = CONFIG, seed: int = SEED) -> Chain:
    """Every stage in turn, as the flow calls them."""
    anchors = stages.anchors_stage(source, config.anchors, seed, store)
    matched = {}
    for m in ("image", "text"):
        projection = stages.projection_stage(m, source, anchors, config.projection, seed, store)
        affinity = stages.affinity_stage(m, projection, config.affinity, seed, store)
        plan = stages.plan_stage(m, affinity, config.sinkhorn, store)
        trust = stages.trust_stage(m, projection, config.trust, seed, store)
        matched[m] = ModalityRefs(projection=projection, affinity=affinity, plan=plan, trust=trust)
    return Chain(source, anchors, matched, stages.rectified_stage(source, matched, config.rectify, store))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StageStore:
    return StageStore(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def source(tiny_demo: Path, store: StageStore) -> Ref:
    """The tiny demo as read on its last day."""
    return read_source(RunConfig.from_toml(tiny_demo / "run.toml").source, DAY, store)


@pytest.fixture(scope="module")
def chain(store: StageStore, source: Ref) -> Chain:
    return run(store, source)


def catalog_of(source: Ref) -> Catalog:
    """The catalog record of a source output."""
    names = list(source.meta["modalities"])
    return Catalog(
        item_ids=source.array("item_ids"),
        features={m: source.array(f"features-{m}") for m in names},
        present={m: np.asarray(source.array(f"present-{m}")) for m in names},
    )


def test_the_stages_give_what_the_core_gives_in_memory(chain: Chain) -> None:
    wanted = rectify_catalog(catalog_of(chain.source), stages.load_interactions(chain.source), CONFIG, seed=SEED)
    np.testing.assert_allclose(load_record(chain.anchors, Anchors).items, wanted.anchors.items, atol=1e-6)
    for m, refs in chain.matched.items():
        record = wanted.matched[m]
        np.testing.assert_allclose(load_record(refs.projection, Projection).projected, record.projection.projected, atol=1e-5)
        assert (load_record(refs.affinity, Affinity).neighbours != record.affinity.neighbours).mean() < 1e-3
        plan = load_record(refs.plan, Plan)
        assert plan.outcome is record.plan.outcome
        np.testing.assert_allclose(plan.column_sums, record.plan.column_sums, atol=1e-3)
        np.testing.assert_allclose(load_record(refs.trust, Trust).probability, record.trust.probability, atol=1e-5)
        np.testing.assert_array_equal(chain.rectified.array(f"status-{m}"), wanted.rectified.status[m])
        np.testing.assert_allclose(chain.rectified.array(f"features-{m}"), wanted.rectified.features[m], atol=1e-5)
        np.testing.assert_array_equal(chain.rectified.array(f"trust-{m}"), load_record(refs.trust, Trust).probability)
    assert {int(x) for m in chain.matched for x in chain.rectified.array(f"status-{m}")} >= {Status.RECTIFIED.code, Status.IMPUTED.code}


def test_the_same_again_reuses_everything(chain: Chain, store: StageStore) -> None:
    again = run(store, chain.source)
    assert again == chain
    assert again.rebuilt == set()


def both(*parts: str) -> set[str]:
    """These stages of both modalities."""
    return {f"{part}/{m}" for part in parts for m in ("image", "text")}


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        (replace(CONFIG, rectify=RectifyConfig(keep_original=0.3)), {"rectified"}),
        (replace(CONFIG, trust=TrustConfig(resamples=21)), {"rectified"} | both("trust")),
        (replace(CONFIG, sinkhorn=SinkhornConfig(method="knopp")), {"rectified"} | both("plan")),
        (replace(CONFIG, affinity=AffinityConfig(num_neighbours=5)), {"rectified"} | both("affinity", "plan")),
        (
            replace(CONFIG, anchors=replace(CONFIG.anchors, num_layers=1)),
            {"anchors", "rectified"} | both("projection", "affinity", "plan", "trust"),
        ),
    ],
    ids=["rectify", "trust", "sinkhorn", "affinity", "anchors"],
)
def test_a_changed_config_rebuilds_what_depends_on_it(chain: Chain, store: StageStore, changed: PipelineConfig, rebuilt: set[str]) -> None:
    assert run(store, chain.source, changed).rebuilt == rebuilt


def test_a_changed_seed_rebuilds_what_draws(chain: Chain, store: StageStore) -> None:
    assert run(store, chain.source, seed=SEED + 1).rebuilt >= {"anchors", *both("projection", "affinity", "trust")}


def test_the_rows_do_not_depend_on_the_block_they_are_mended_in(chain: Chain, store: StageStore) -> None:
    blocks = stages.rectified_stage(chain.source, chain.matched, replace(CONFIG.rectify, block_rows=37), store)
    assert blocks.path != chain.rectified.path
    assert blocks.digest == chain.rectified.digest


def test_progress_ends_where_the_rows_end(chain: Chain, store: StageStore) -> None:
    told: list[tuple[str, int, int]] = []
    config = replace(CONFIG.rectify, keep_original=0.11, block_rows=150)
    stages.rectified_stage(chain.source, chain.matched, config, store, progress=lambda *x: told.append(x))
    assert told == [(f"rectifying {m}", done, 400) for m in ("image", "text") for done in (150, 300, 400)]


def test_a_warm_start_is_keyed_by_the_run_it_came_from(chain: Chain, store: StageStore) -> None:
    ego = np.asarray(load_record(chain.anchors, Anchors).ego)
    warm = stages.anchors_stage(chain.source, CONFIG.anchors, SEED, store, previous=ego, previous_run="a")
    assert warm.digest != chain.anchors.digest
    assert stages.anchors_stage(chain.source, CONFIG.anchors, SEED, store, previous=ego, previous_run="a").reused
    assert not stages.anchors_stage(chain.source, CONFIG.anchors, SEED, store, previous=ego, previous_run="b").reused


def judge(chain: Chain, config: QualityConfig, publish: PublishConfig) -> QualityReport:
    """The gate over a chain's rows."""
    return stages.judge_stage(chain.source, chain.matched, chain.rectified, config, publish, DAY)


def test_the_gate_counts_rows_and_measures_each_modality(chain: Chain, tmp_path: Path) -> None:
    publish = PublishConfig(uri=str(tmp_path / "table"))
    report = judge(chain, QualityConfig(), publish)
    assert report.passed
    rows, *others = report.checks
    # 402 rows in the file, one without an id and one that repeats one.
    assert (rows.name, rows.value, rows.bound) == ("rows in = rows out + quarantined", 402, 402)
    for m in chain.matched:
        named = {x.name.split(": ", 1)[1]: x for x in others if x.name.startswith(f"{m}: ")}
        assert len(named) == 4
        assert named["mean column error of the plan"].value == pytest.approx(chain.matched[m].plan.meta["column_error"])
        assert not any("last published" in name for name in named)
    refused = judge(chain, QualityConfig(max_changed=0.0, changed_below=1.0), publish)
    assert not refused.passed
    assert {x.name.split(":")[0] for x in refused.checks if not x.passed} == {"image", "text"}


def test_the_gate_sees_what_is_wrong_with_the_rows(chain: Chain, store: StageStore, tmp_path: Path) -> None:
    def spoil(features: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Ref:
        def build(writer: StageWriter) -> None:
            for m in chain.matched:
                writer.array(f"features-{m}", features if m == "image" else chain.rectified.array(f"features-{m}"))
                writer.array(f"status-{m}", chain.rectified.array(f"status-{m}"))
            writer.meta(chain.rectified.meta)

        return store.once("spoiled", (str(features.sum()),), build)

    there = np.flatnonzero(chain.rectified.array("status-image") == Status.RECTIFIED.code)
    for value, name in ((np.nan, "image: rows with a value that is not finite"), (1e4, "image: length outside the input's range, times")):
        features = np.array(chain.rectified.array("features-image"))
        features[there[0]] = value
        report = judge(chain._replace(rectified=spoil(features)), QualityConfig(), PublishConfig(uri=str(tmp_path / "table")))
        assert name in [x.name for x in report.checks if not x.passed]


def test_what_was_found_is_json_with_every_item_counted(chain: Chain) -> None:
    facts = stages.modality_facts(chain.source, chain.matched, chain.rectified)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    for m, found in facts.items():
        assert sum(found[x.value] for x in Status) == 400
        assert found["identifiable"]
        assert 0 <= found["low"] <= found["mismatch_rate"] <= found["high"] <= 1
        assert found["width"] == chain.source.array(f"features-{m}").shape[1]
        assert found["outcome"] in BalanceOutcome.__members__
        assert found["recall"] == 1.0


def test_where_nothing_can_be_told_the_features_pass_through(chain: Chain, store: StageStore, tmp_path: Path) -> None:
    silent = run(store, chain.source, replace(CONFIG, trust=TrustConfig(min_items=10_000)))
    for m, found in stages.modality_facts(silent.source, silent.matched, silent.rectified).items():
        assert (found["identifiable"], found["mismatch_rate"], found["low"], found["high"]) == (False, None, None, None)
        assert "min_items" in found["reason"]
        assert found["rectified"] + found["imputed"] == 0
        assert found["passed_through"] == int(silent.source.array(f"present-{m}").sum())
        np.testing.assert_array_equal(silent.rectified.array(f"features-{m}"), silent.source.array(f"features-{m}"))
    # A plan that nothing was done by is not judged.
    report = judge(silent, QualityConfig(max_marginal_error=0.0), PublishConfig(uri=str(tmp_path / "table")))
    assert report.passed
    assert not any("column error" in x.name or "share of rectified" in x.name for x in report.checks)


def test_hubs_left_on_purpose_are_not_held_against_a_plan(chain: Chain, store: StageStore, tmp_path: Path) -> None:
    rows = run(store, chain.source, replace(CONFIG, sinkhorn=SinkhornConfig(balance="row")))
    assert load_record(rows.matched["image"].plan, Plan).outcome is BalanceOutcome.ROW_ONLY
    report = judge(rows, QualityConfig(max_marginal_error=0.0), PublishConfig(uri=str(tmp_path / "table")))
    assert not any("column error" in x.name for x in report.checks)


def test_the_papers_solver_runs_through_the_same_stages(chain: Chain, store: StageStore) -> None:
    config = replace(CONFIG, projection=ProjectionConfig(solver="minibatch"))
    assert run(store, chain.source, config).rebuilt == {"rectified"} | both("projection", "affinity", "plan", "trust")


def test_checks_as_json(chain: Chain, tmp_path: Path) -> None:
    values = stages.quality_values(judge(chain, QualityConfig(), PublishConfig(uri=str(tmp_path / "table"))))
    assert values[0] == {"name": "rows in = rows out + quarantined", "value": 402.0, "bound": 402.0, "rule": "equal to", "passed": True}
    json.dumps(values, allow_nan=False)

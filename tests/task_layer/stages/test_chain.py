"""The core's stages between references: what they save is what the core gives, and a changed input rebuilds only what depends on it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from flows.config.run_config import RunConfig
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.published_records import QualityReport, Status
from rectifier_core.base.records import Affinity, Anchors, BalanceOutcome, Catalog, Copies, Plan, Projection, Trust
from rectifier_core.config import PipelineConfig, QualityConfig
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.pipeline import rectify_catalog
from rectifier_core.projection.config import CrossModalConfig
from rectifier_core.projection.cross_modal import cross_modal_pairs
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.sequences.config import SegmentsConfig
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.trust.config import TrustConfig
from tasks.source.read import read_source
from tasks.stages.affinity import affinity_stage
from tasks.stages.anchors import anchors_stage, load_interactions
from tasks.stages.copies import copies_stage
from tasks.stages.projection import cross_modal_target_stage, projection_stage
from tasks.stages.quality import modality_facts, quality_stage
from tasks.stages.rectify import rectify_stage
from tasks.stages.sinkhorn import sinkhorn_stage
from tasks.stages.trust import category_numbers, trust_stages
from tasks.store.saved_records import load_record
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref, StageStore, StageWriter
from tasks.table.config import PublishConfig
from tests.support.table.publish_support import publish as publish_day

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
        refs = {"anchors": self.anchors, "rectify": self.rectified}
        refs |= {name: ref for m, x in self.matched.items() for name, ref in x.named(m).items()}
        return {name for name, ref in refs.items() if not ref.reused}


def run(store: StageStore, source: Ref, config: PipelineConfig = CONFIG, seed: int = SEED) -> Chain:
    """Every stage in turn, as the flow calls them."""
    anchors = anchors_stage(source, config.anchors, seed, store)
    copies, projections = {}, {}
    for m in ("image", "text"):
        copies[m] = copies_stage(m, source, anchors, config.copies, seed, store)
        projections[m] = projection_stage(m, source, copies[m], anchors, config.projection, seed, store)
    pairs = cross_modal_pairs({m: source.meta["modalities"][m]["width"] for m in copies}, config.cross_modal)
    places = {
        m: cross_modal_target_stage(m, source, copies[m], config.cross_modal, seed, store)
        for m in {m for pair in pairs for m in pair}
    }
    cross_modal = {
        (a, b): projection_stage(a, source, copies[a], places[b], config.projection, seed, store, onto=b)
        for a, b in pairs
    }
    trusts = trust_stages(source, anchors, projections, cross_modal, config.trust, seed, store)
    affinities = {m: affinity_stage(m, source, projections[m], trusts[m], config.affinity, seed, store) for m in copies}
    plans = {m: sinkhorn_stage(m, affinities[m], config.sinkhorn, store) for m in copies}
    matched = {
        m: ModalityRefs(
            features=source,
            copies=copies[m],
            projection=projections[m],
            affinity=affinities[m],
            plan=plans[m],
            trust=trusts[m],
            places=places.get(m),
            cross_modal={other: ref for (own, other), ref in cross_modal.items() if own == m},
        )
        for m in copies
    }
    return Chain(
        source, anchors, matched, rectify_stage(source, matched, config.rectify, SegmentsConfig(), seed, store)
    )


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
    category = category_numbers(chain.source)
    assert category is not None
    wanted = rectify_catalog(
        catalog_of(chain.source), load_interactions(chain.source), CONFIG, seed=SEED, category=category
    )
    np.testing.assert_allclose(load_record(chain.anchors, Anchors).items, wanted.anchors.items, atol=1e-6)
    for m, refs in chain.matched.items():
        np.testing.assert_array_equal(load_record(refs.copies, Copies).group, wanted.judged.copies[m].group)
        np.testing.assert_allclose(
            load_record(refs.projection, Projection).projected, wanted.judged.projections[m].projected, atol=1e-5
        )
        for other, between in refs.cross_modal.items():
            np.testing.assert_allclose(
                load_record(between, Projection).target, wanted.judged.cross_modal[m, other].target, atol=1e-5
            )
        assert (load_record(refs.affinity, Affinity).neighbours != wanted.affinities[m].neighbours).mean() < 1e-3
        plan, trust = load_record(refs.plan, Plan), load_record(refs.trust, Trust)
        assert plan.outcome is wanted.plans[m].outcome
        np.testing.assert_allclose(plan.column_sums, wanted.plans[m].column_sums, atol=1e-3)
        np.testing.assert_allclose(trust.probability, wanted.judged.trusts[m].probability, atol=1e-5)
        assert (trust.low, trust.high) == pytest.approx(
            (wanted.judged.trusts[m].low, wanted.judged.trusts[m].high), abs=1e-5
        )
        assert "one category" in trust.reason
        np.testing.assert_array_equal(chain.rectified.array(f"status-{m}"), wanted.rectified.status[m])
        np.testing.assert_allclose(chain.rectified.array(f"features-{m}"), wanted.rectified.features[m], atol=1e-5)
        np.testing.assert_allclose(chain.rectified.array(f"moved-{m}"), wanted.rectified.moved[m], atol=1e-5)
        np.testing.assert_array_equal(chain.rectified.array(f"trust-{m}"), load_record(refs.trust, Trust).probability)
    assert (
        len([ref for x in chain.matched.values() for ref in x.cross_modal.values()])
        == len(wanted.judged.cross_modal)
        == 1
    )
    assert {int(x) for m in chain.matched for x in chain.rectified.array(f"status-{m}")} >= {
        Status.RECTIFIED.code,
        Status.IMPUTED.code,
    }


def test_the_same_again_reuses_everything(chain: Chain, store: StageStore) -> None:
    again = run(store, chain.source)
    assert again == chain
    assert again.rebuilt == set()


CROSS_MODAL = "cross_modal/text-image"


def both(*parts: str) -> set[str]:
    """These stages of both modalities."""
    return {f"{part}/{m}" for part in parts for m in ("image", "text")}


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        (replace(CONFIG, rectify=RectifyConfig(mix="constant")), {"rectify"}),
        (replace(CONFIG, trust=TrustConfig(resamples=21)), {"rectify"} | both("trust", "affinity")),
        (replace(CONFIG, sinkhorn=SinkhornConfig(method="knopp")), {"rectify"} | both("sinkhorn")),
        (replace(CONFIG, affinity=AffinityConfig(num_neighbours=5)), {"rectify"} | both("affinity", "sinkhorn")),
        (
            replace(CONFIG, anchors=replace(CONFIG.anchors, num_layers=1)),
            # Images have copies, whose likeness is that of their anchors; their places come out the same, and so does what follows.
            {"anchors", "rectify", "cross_modal_target/image"}
            | both("copies", "projection", "affinity", "sinkhorn", "trust"),
        ),
        (
            replace(CONFIG, cross_modal=CrossModalConfig(components=8)),
            {"rectify", CROSS_MODAL} | both("cross_modal_target", "affinity", "trust"),
        ),
        (replace(CONFIG, cross_modal=CrossModalConfig(enabled=False)), {"rectify"} | both("affinity", "trust")),
        (replace(CONFIG, copies=CopiesConfig(threshold=0.998)), both("copies")),
    ],
    ids=["rectify", "trust", "sinkhorn", "affinity", "anchors", "cross_modal", "no cross_modal", "copies"],
)
def test_a_changed_config_rebuilds_what_depends_on_it(
    chain: Chain, store: StageStore, changed: PipelineConfig, rebuilt: set[str]
) -> None:
    assert run(store, chain.source, changed).rebuilt == rebuilt


def test_the_rows_do_not_depend_on_the_block_they_are_rectified_in(chain: Chain, store: StageStore) -> None:
    for rows in (37, 53):
        blocks = rectify_stage(
            chain.source,
            chain.matched,
            replace(CONFIG.rectify, block_rows=rows),
            SegmentsConfig(),
            SEED,
            store,
        )
        assert blocks.path != chain.rectified.path
        assert blocks.digest == chain.rectified.digest


def test_a_warm_start_is_keyed_by_the_run_it_came_from(chain: Chain, store: StageStore) -> None:
    ego = np.asarray(load_record(chain.anchors, Anchors).ego)
    warm = anchors_stage(chain.source, CONFIG.anchors, SEED, store, start_rows=ego, start_run="a")
    assert warm.digest != chain.anchors.digest
    assert anchors_stage(chain.source, CONFIG.anchors, SEED, store, start_rows=ego, start_run="a").reused
    assert not anchors_stage(chain.source, CONFIG.anchors, SEED, store, start_rows=ego, start_run="b").reused


def judge(
    chain: Chain, config: QualityConfig, publish: PublishConfig, models: dict[str, str] | None = None
) -> QualityReport:
    """The gate over a chain's rows."""
    return quality_stage(
        chain.source, chain.anchors, chain.matched, chain.rectified, config, publish, DAY, models=models or {}
    )


def test_the_gate_counts_rows_and_measures_each_modality(chain: Chain, tmp_path: Path) -> None:
    publish = PublishConfig(uri=str(tmp_path / "table"))
    report = judge(chain, QualityConfig(), publish)
    assert report.passed
    rows, *others = report.checks
    # 402 rows in the file, one without an id and one that repeats one.
    assert (rows.name, rows.value, rows.bound) == ("rows in = rows out + quarantined", 402, 402)
    for m in chain.matched:
        named = {x.name.split(": ", 1)[1]: x for x in others if x.name.startswith(f"{m}: ")}
        assert len(named) == 6
        assert named["mean column error of the plan"].value == pytest.approx(chain.matched[m].plan.meta["column_error"])
        assert not any("last published" in name for name in named)
    refused = judge(chain, QualityConfig(max_changed=0.0, changed_below=1.0), publish)
    assert not refused.passed
    assert {x.name.split(":")[0] for x in refused.checks if not x.passed} == {"image", "text"}


@pytest.mark.parametrize(
    ("before", "now", "verdict", "note"),
    [
        ("a@1", "b@2", None, "image: made by b@2 since this day, by a@1 before, last on 2026-06-29; not compared"),
        ("a@1", "a@1", "failed", None),
        ("a@1", None, "failed", "image: this day names no embedding model (source.embedding_models.image)"),
        (None, "b@2", "failed", "image: 2026-06-29 names no embedding model (source.embedding_models.image)"),
    ],
)
def test_the_gate_compares_no_two_embedding_models(
    chain: Chain,
    store: StageStore,
    tmp_path: Path,
    before: str | None,
    now: str | None,
    verdict: str | None,
    note: str | None,
) -> None:
    def turned(writer: StageWriter) -> None:
        for m in chain.matched:
            for part in ("features", "status", "trust", "moved"):
                values = np.asarray(chain.rectified.array(f"{part}-{m}"))
                writer.array(
                    f"{part}-{m}", np.roll(values, 1, axis=1) if (part, m) == ("features", "image") else values
                )
        writer.meta(chain.rectified.meta)

    publish, last = PublishConfig(uri=str(tmp_path / "table")), store.once("turned", (), turned)
    publish_day(publish, (chain.source, last), "2026-06-29", models={"image": before} if before else {})
    report = judge(chain, QualityConfig(), publish, {"image": now} if now else {})
    drifts = {x.name.split(":")[0]: x.verdict for x in report.checks if "last published version" in x.name}
    assert drifts == {"text": "passed"} | ({"image": verdict} if verdict else {})
    assert [x.startswith(note or "") for x in report.notes] == [True] * (note is not None)


def test_what_was_found_is_json_with_every_item_counted(chain: Chain) -> None:
    facts = modality_facts(chain.source, chain.matched, chain.rectified, SegmentsConfig(), {"text": "some-model@3"})
    assert {m: x["embedding_model"] for m, x in facts.items()} == {"image": None, "text": "some-model@3"}
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    for m, found in facts.items():
        assert sum(found[x.value] for x in Status) == 400
        assert found["identifiable"]
        assert (
            0
            <= found["low"]
            <= found["low_unlike"]
            <= found["mismatch_rate"]
            <= found["high_unlike"]
            <= found["high"]
            <= 1
        )
        assert found["judged"] == int((~np.isnan(chain.rectified.array(f"trust-{m}"))).sum())
        assert (found["placeholders"] > 0) == (found["placeholder_groups"] > 0)
        assert found["width"] == chain.source.array(f"features-{m}").shape[1]
        assert found["outcome"] in BalanceOutcome.__members__
        assert found["recall"] == 1.0


def test_where_nothing_can_be_told_the_features_pass_through(chain: Chain, store: StageStore, tmp_path: Path) -> None:
    silent = run(store, chain.source, replace(CONFIG, trust=TrustConfig(min_items=10_000)))
    for m, found in modality_facts(silent.source, silent.matched, silent.rectified, SegmentsConfig(), {}).items():
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


def test_the_category_is_numbered_and_none_is_no_category(chain: Chain, store: StageStore) -> None:
    found = category_numbers(chain.source)
    assert found is not None
    named = pl.read_parquet(chain.source.file("labels.parquet"))["category"].to_list()
    for number in np.unique(found[found >= 0]):
        assert len({x for x, given in zip(named, found, strict=True) if given == number}) == 1
    assert len(np.unique(found[found >= 0])) == len({x for x in named if x is not None})
    assert {x for x, given in zip(named, found, strict=True) if given < 0} <= {None}

    def source(frame: pl.DataFrame | None) -> Ref:
        def build(writer: StageWriter) -> None:
            if frame is not None:
                frame.write_parquet(writer.folder / "labels.parquet")
            writer.meta({})

        return store.once("labels", (repr(frame),), build)

    assert category_numbers(source(None)) is None
    assert category_numbers(source(pl.DataFrame({"title": ["a"]}))) is None
    given = category_numbers(source(pl.DataFrame({"category": ["b", None, "a", "b"]})))
    assert given is not None and given.dtype == np.int32 and given.tolist() == [1, -1, 0, 1]

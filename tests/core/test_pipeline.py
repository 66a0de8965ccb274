"""The stages chained: planted truth found, noise left alone bit for bit, the same bytes however the work is cut up.

``golden/pipeline.json`` holds rounded figures of one run. After a change that is meant to move them:
``PYTHONPATH=.:tests/core python tests/core/test_pipeline.py`` writes it anew; read the difference before committing it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.numerics import separation
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Catalog
from rectifier_core.config import PipelineConfig
from rectifier_core.pipeline import Outcome, rectify_catalog
from rectifier_core.projection.config import CrossModalConfig, ProjectionConfig
from rectifier_core.rectify.config import RectifyConfig
from tests.support.core_samples import World, taste_world

GOLDEN = Path(__file__).parent / "golden" / "pipeline.json"
CONFIG = PipelineConfig(
    anchors=AnchorsConfig(embedding_size=12, epochs=8),
    projection=ProjectionConfig(keep_ratio=0.75, ridge_grid=(0.1, 1.0, 10.0)),
    affinity=AffinityConfig(num_neighbours=12),
)


@pytest.fixture(scope="module")
def world() -> World:
    return taste_world()


@pytest.fixture(scope="module")
def outcome(world: World) -> Outcome:
    return rectify_catalog(world.catalog, world.log, CONFIG, seed=1)


def digest(outcome: Outcome) -> str:
    """One hash over every array of every record."""
    found = hashlib.sha256()
    parts: list[Any] = [outcome.anchors.items, outcome.anchors.ego, outcome.anchors.recalls]
    for between in (outcome.judged.projections, outcome.judged.cross_modal):
        for projection in between.values():
            parts += [
                projection.weight,
                projection.projected,
                projection.alignment,
                projection.null_alignment,
                projection.fold,
            ]
    for m, trust in outcome.judged.trusts.items():
        affinity, plan = outcome.affinities[m], outcome.plans[m]
        parts += [
            outcome.judged.copies[m].group,
            affinity.neighbours,
            affinity.scores,
            plan.weights,
            plan.marginal_errors,
        ]
        parts += [trust.probability, trust.probability_upper, trust.behaviour, trust.cross_modal]
        parts += [outcome.rectified.features[m], outcome.rectified.status[m]]
        found.update(
            repr(
                (m, trust.mismatch_rate, trust.low, trust.high, trust.low_unlike, trust.high_unlike, trust.reason)
            ).encode()
        )
    for part in parts:
        found.update(part.tobytes())
    return found.hexdigest()


def statuses(outcome: Outcome, modality: str) -> dict[str, int]:
    return {status.value: int((outcome.rectified.status[modality] == status.code).sum()) for status in Status}


@pytest.mark.parametrize("modality", ["image", "Klang α"])
def test_planted_mismatches_are_found_and_mended(world: World, outcome: Outcome, modality: str) -> None:
    trust, wrong = outcome.rectified.trust[modality], world.wrong[modality]
    judged = ~np.isnan(trust)
    assert separation(trust[judged & ~wrong], trust[judged & wrong]) > 0.9
    rate = outcome.judged.trusts[modality].mismatch_rate
    assert rate is not None and abs(rate - wrong[judged].mean()) < 0.12
    clean = taste_world(share=0.0).catalog.features[modality]
    moved = np.flatnonzero(wrong & (outcome.rectified.status[modality] == Status.RECTIFIED.code))
    before, after = (
        closeness(features[moved], clean[moved])
        for features in (world.catalog.features[modality], outcome.rectified.features[modality])
    )
    assert len(moved) > 50 and after > before + 0.15


def closeness(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    """Mean cosine of rows."""
    return float(((left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)).mean())


def test_a_modality_that_shows_no_taste_passes_bit_for_bit(world: World, outcome: Outcome) -> None:
    found = outcome.judged.trusts["noise"]
    assert not found.identifiable and found.mismatch_rate is None and np.isnan(found.probability).all()
    assert outcome.rectified.features["noise"].tobytes() == world.catalog.features["noise"].tobytes()
    present = int(world.catalog.present["noise"].sum())
    assert statuses(outcome, "noise") == {
        "rectified": 0,
        "passed_through": present,
        "imputed": 0,
        "missing": 360 - present,
    }


def test_every_row_says_what_was_done_to_it(world: World, outcome: Outcome) -> None:
    """The last four items and perhaps a few unloved ones were never taken: they have no anchor, and pass as they came.

    Where they have both modalities that can be told, these judge each other.
    """
    for m, other in (("image", "Klang α"), ("Klang α", "image")):
        before, after = world.catalog.features[m], outcome.rectified.features[m]
        present, trained = world.catalog.present[m], outcome.anchors.trained
        assert not trained[-4:].any() and np.array_equal(np.flatnonzero(trained), np.unique(world.log.items))
        status, moved = outcome.rectified.status[m], outcome.rectified.moved[m]
        changed = status == Status.RECTIFIED.code
        assert changed.any() and not changed[~(present & trained)].any()
        assert np.array_equal(
            status[~changed], np.where(present, Status.PASSED_THROUGH.code, Status.MISSING.code)[~changed]
        )
        assert after[~changed & present].tobytes() == before[~changed & present].tobytes() and not after[~present].any()
        assert np.allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1), rtol=1e-5)
        assert np.array_equal((after != before).any(axis=1), changed)
        assert (
            (moved[changed] >= 0.001).all() and not moved[~changed & present].any() and np.isnan(moved[~present]).all()
        )
        assert np.array_equal(
            np.isnan(outcome.rectified.trust[m]), ~(present & (trained | world.catalog.present[other]))
        )


def test_missing_features_are_imputed_when_asked_and_resemble_their_own(world: World, outcome: Outcome) -> None:
    found = rectify_catalog(
        world.catalog, world.log, replace(CONFIG, rectify=RectifyConfig(impute=True)), seed=1, anchors=outcome.anchors
    )
    filled = found.rectified.status["image"] == Status.IMPUTED.code
    assert np.array_equal(filled, ~world.catalog.present["image"] & found.anchors.trained) and filled.sum() > 5
    assert np.linalg.norm(found.rectified.features["image"][filled], axis=1).min() > 0
    assert (
        found.rectified.features["image"][~filled].tobytes() == outcome.rectified.features["image"][~filled].tobytes()
    )


def global_state() -> tuple[Any, ...]:
    legacy: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    return legacy[0], legacy[1].tobytes(), legacy[2:], torch.get_rng_state().numpy().tobytes()


def test_two_runs_are_the_same_bytes_and_touch_no_global_random_state(world: World, outcome: Outcome) -> None:
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    before = global_state()
    again = rectify_catalog(world.catalog, world.log, CONFIG, seed=1)
    assert global_state() == before
    assert digest(again) == digest(outcome)
    for anchors in (None, outcome.anchors):
        assert digest(rectify_catalog(world.catalog, world.log, CONFIG, seed=2, anchors=anchors)) != digest(outcome)


def test_another_process_gives_the_same_bytes(outcome: Outcome) -> None:
    """Under another hash seed, so that no set or dictionary order can be what the result hangs on."""
    folder = Path(__file__).parent
    code = "from test_pipeline import *; w = taste_world(); print(digest(rectify_catalog(w.catalog, w.log, CONFIG, seed=1)))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONHASHSEED": "12345",
            "PYTHONPATH": os.pathsep.join([str(folder), str(folder.parents[1])]),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert found.stdout.strip() == digest(outcome)


@pytest.mark.parametrize("block", [1, 97])
def test_how_the_work_is_cut_up_changes_no_bit(world: World, outcome: Outcome, block: int) -> None:
    config = replace(
        CONFIG,
        copies=replace(CONFIG.copies, block_rows=block),
        affinity=replace(CONFIG.affinity, block_rows=block),
        rectify=replace(CONFIG.rectify, block_rows=block),
    )
    found = rectify_catalog(world.catalog, world.log, config, seed=1, anchors=outcome.anchors)
    assert digest(found) == digest(outcome)


def test_a_device_publishes_the_same_within_rounding(world: World, outcome: Outcome) -> None:
    """The device is the CPU, named so that torch's path is taken."""
    found = rectify_catalog(world.catalog, world.log, CONFIG, seed=1, device="cpu:0")
    for m, features in outcome.rectified.features.items():
        assert (found.rectified.status[m] == outcome.rectified.status[m]).all()
        np.testing.assert_allclose(found.rectified.features[m], features, atol=1e-3)
        np.testing.assert_allclose(found.rectified.trust[m], outcome.rectified.trust[m], atol=1e-4)


def test_without_cross_modal_evidence_modalities_do_not_see_each_other(world: World, outcome: Outcome) -> None:
    """One modality alone, or none: the draws of a stage are named after the modality, so its result stays."""
    config = replace(CONFIG, cross_modal=CrossModalConfig(enabled=False))
    apart = rectify_catalog(world.catalog, world.log, config, seed=1, anchors=outcome.anchors)
    assert not apart.judged.cross_modal and len(outcome.judged.cross_modal) == 3
    one = Catalog(
        item_ids=world.catalog.item_ids,
        features={"image": world.catalog.features["image"]},
        present={"image": world.catalog.present["image"]},
    )
    for each in (config, CONFIG):
        found = rectify_catalog(one, world.log, each, seed=1, anchors=outcome.anchors)
        assert found.rectified.features["image"].tobytes() == apart.rectified.features["image"].tobytes()
    assert apart.rectified.features["image"].tobytes() != outcome.rectified.features["image"].tobytes(), (
        "cross-modal evidence is used"
    )
    none = rectify_catalog(Catalog(item_ids=world.catalog.item_ids, features={}, present={}), world.log, CONFIG, seed=1)
    assert none.rectified.features == {} and none.anchors.items.tobytes() == outcome.anchors.items.tobytes()


def test_placeholders_are_found_and_take_no_part(world: World, outcome: Outcome) -> None:
    """Thirty items under one picture: no donors, no evidence, and the others' scores are those of a catalog that lacks theirs."""
    held = np.flatnonzero(world.catalog.present["image"])[::10][:30]
    features, present = dict(world.catalog.features), dict(world.catalog.present)
    features["image"] = features["image"].copy()
    features["image"][held] = features["image"][held[0]]
    catalog = replace(world.catalog, features=features)
    found = rectify_catalog(catalog, world.log, CONFIG, seed=1, anchors=outcome.anchors)
    assert np.array_equal(np.flatnonzero(found.judged.copies["image"].placeholder), held)
    assert (
        np.isnan(found.rectified.trust["image"][held]).all() and not np.isin(found.plans["image"].indices, held).any()
    )
    assert (found.rectified.status["image"][held] == Status.PASSED_THROUGH.code).all()
    assert found.rectified.features["image"][held].tobytes() == features["image"][held].tobytes()
    gone, features = present["image"].copy(), dict(features)
    gone[held] = False
    features["image"] = np.where(gone[:, None], features["image"], np.float32(0))
    without = rectify_catalog(
        replace(catalog, features=features, present={**present, "image": gone}),
        world.log,
        CONFIG,
        seed=1,
        anchors=outcome.anchors,
    )
    assert without.judged.trusts["image"].probability.tobytes() == found.judged.trusts["image"].probability.tobytes()


def figures(outcome: Outcome) -> dict[str, Any]:
    """What the golden file holds: counts as they are, measures to three decimals."""
    found: dict[str, Any] = {
        "epochs": len(outcome.anchors.losses),
        "best recall": round(float(outcome.anchors.recalls.max()), 3),
        "anchor spread": round(float((outcome.anchors.items.mean(axis=0) ** 2).sum()), 3),
    }
    for m, trust in outcome.judged.trusts.items():
        projection, plan = outcome.judged.projections[m], outcome.plans[m]
        found[m] = {
            "ridge": projection.ridge,
            "kept": int(projection.kept.sum()),
            "alignment": round(float(np.nanmean(projection.alignment)), 3),
            "null alignment": round(float(projection.null_alignment.mean()), 3),
            "edges": len(plan.indices),
            "outcome": plan.outcome.name,
            "diagonal mass": round(plan.diagonal_mass, 3),
            "copies": int((outcome.judged.copies[m].group >= 0).sum()),
            "separation": round(trust.separation, 3),
            "identifiable": trust.identifiable,
            "mismatch rate": None if trust.mismatch_rate is None else round(trust.mismatch_rate, 3),
            "interval": [
                None if x is None else round(x, 2) for x in (trust.low, trust.low_unlike, trust.high_unlike, trust.high)
            ],
            "trust": None if np.isnan(trust.probability).all() else round(float(np.nanmean(trust.probability)), 3),
            "statuses": statuses(outcome, m),
            "mean square": round(float((outcome.rectified.features[m] ** 2).mean()), 3),
        }
    return found


def flat(figure: Any, name: str = "") -> dict[str, Any]:
    """Nested figures by their path."""
    if not isinstance(figure, dict):
        return {name: figure}
    return {path: value for key, inner in figure.items() for path, value in flat(inner, f"{name}/{key}").items()}


def near(value: Any) -> Any:
    """Measures within .02, as they are in a list of them too."""
    if isinstance(value, list):
        return [near(x) for x in value]
    return pytest.approx(value, abs=0.02) if isinstance(value, float) else value


def test_the_figures_are_those_of_the_golden_file(outcome: Outcome) -> None:
    """Counts and decisions exactly; measures within .02, which other processors and libraries stay inside and a changed method does not."""
    golden, found = flat(json.loads(GOLDEN.read_text(encoding="utf-8"))), flat(figures(outcome))
    assert found == {name: near(value) for name, value in golden.items()}


def write_golden() -> None:
    world = taste_world()
    GOLDEN.parent.mkdir(exist_ok=True)
    text = json.dumps(figures(rectify_catalog(world.catalog, world.log, CONFIG, seed=1)), indent=1, ensure_ascii=False)
    GOLDEN.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden()

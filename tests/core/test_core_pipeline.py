"""The stages chained: planted truth found, noise left alone bit for bit, the same bytes however the work is cut up.

``golden/pipeline.json`` holds rounded figures of one run. After a change that is meant to move them:
``PYTHONPATH=.:tests/core python tests/core/test_core_pipeline.py`` writes it anew; read the difference before committing it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_samples import World, anchors_of, taste_world

from rectifier_core.affinity import AffinityConfig
from rectifier_core.anchors import AnchorsConfig
from rectifier_core.numerics import separation
from rectifier_core.pipeline import Outcome, PipelineConfig, rectify_catalog
from rectifier_core.projection import ProjectionConfig
from rectifier_core.records import Catalog, Status
from rectifier_core.rectify import RectifyConfig
from rectifier_core.sinkhorn import SinkhornConfig

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
    for m, matched in outcome.matched.items():
        parts += [matched.projection.weight, matched.projection.projected, matched.projection.alignment, matched.projection.null_alignment]
        parts += [matched.affinity.neighbours, matched.affinity.scores, matched.plan.weights, matched.plan.marginal_errors]
        parts += [matched.trust.probability, outcome.rectified.features[m], outcome.rectified.status[m]]
        found.update(repr((m, matched.trust.mismatch_rate, matched.trust.low, matched.trust.high, matched.trust.reason)).encode())
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
    rate = outcome.matched[modality].trust.mismatch_rate
    assert rate is not None and abs(rate - wrong[judged].mean()) < 0.12
    clean = taste_world(share=0.0).catalog.features[modality]
    moved = np.flatnonzero(wrong & (outcome.rectified.status[modality] == Status.RECTIFIED.code))
    before, after = (
        closeness(features[moved], clean[moved]) for features in (world.catalog.features[modality], outcome.rectified.features[modality])
    )
    assert len(moved) > 50 and after > before + 0.15


def closeness(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    """Mean cosine of rows."""
    return float(((left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)).mean())


def test_a_modality_that_shows_no_taste_passes_bit_for_bit(world: World, outcome: Outcome) -> None:
    found = outcome.matched["noise"].trust
    assert not found.identifiable and found.mismatch_rate is None and np.isnan(found.probability).all()
    assert outcome.rectified.features["noise"].tobytes() == world.catalog.features["noise"].tobytes()
    present = int(world.catalog.present["noise"].sum())
    assert statuses(outcome, "noise") == {"rectified": 0, "passed_through": present, "imputed": 0, "missing": 360 - present}


def test_every_row_says_what_was_done_to_it(world: World, outcome: Outcome) -> None:
    """The last four items and perhaps a few unloved ones were never taken: they have no anchor and pass as they came."""
    for m in ("image", "Klang α"):
        before, after = world.catalog.features[m], outcome.rectified.features[m]
        present, trained = world.catalog.present[m], outcome.anchors.trained
        assert not trained[-4:].any() and np.array_equal(np.flatnonzero(trained), np.unique(world.log.items))
        codes = np.select([present & trained, present], [Status.RECTIFIED.code, Status.PASSED_THROUGH.code], Status.MISSING.code)
        assert np.array_equal(outcome.rectified.status[m], codes)
        assert after[~trained].tobytes() == before[~trained].tobytes() and not after[~present].any()
        assert np.allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1), rtol=1e-5)
        assert ((after != before).any(axis=1) == (present & trained)).all()
        assert np.array_equal(np.isnan(outcome.rectified.trust[m]), ~(present & trained))


def test_missing_features_are_imputed_when_asked_and_resemble_their_own(world: World, outcome: Outcome) -> None:
    found = rectify_catalog(world.catalog, world.log, replace(CONFIG, rectify=RectifyConfig(impute=True)), seed=1)
    filled = found.rectified.status["image"] == Status.IMPUTED.code
    assert np.array_equal(filled, ~world.catalog.present["image"] & found.anchors.trained) and filled.sum() > 5
    assert np.linalg.norm(found.rectified.features["image"][filled], axis=1).min() > 0
    assert found.rectified.features["image"][~filled].tobytes() == outcome.rectified.features["image"][~filled].tobytes()


def test_keeping_the_original_returns_the_catalog_bit_for_bit(world: World) -> None:
    found = rectify_catalog(world.catalog, world.log, replace(CONFIG, rectify=RectifyConfig(keep_original=1.0)), seed=1)
    for m, features in world.catalog.features.items():
        assert found.rectified.features[m].tobytes() == features.tobytes()
        assert statuses(found, m)["rectified"] == 0


def test_anchors_dealt_to_other_items_tell_nothing(world: World, outcome: Outcome) -> None:
    trained, items = np.flatnonzero(outcome.anchors.trained), outcome.anchors.items.copy()
    items[trained] = items[np.random.default_rng(0).permutation(trained)]
    found = rectify_catalog(world.catalog, world.log, CONFIG, seed=1, anchors=anchors_of(items, outcome.anchors.trained))
    for m, features in world.catalog.features.items():
        assert not found.matched[m].trust.identifiable
        assert found.rectified.features[m].tobytes() == features.tobytes()


def global_state() -> tuple[Any, ...]:
    legacy: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    return legacy[0], legacy[1].tobytes(), legacy[2:], torch.get_rng_state().numpy().tobytes(), random.getstate()


def test_two_runs_are_the_same_bytes_and_touch_no_global_random_state(world: World, outcome: Outcome) -> None:
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    random.seed(7)
    before = global_state()
    again = rectify_catalog(world.catalog, world.log, CONFIG, seed=1)
    assert global_state() == before
    assert digest(again) == digest(outcome)
    for anchors in (None, outcome.anchors):
        assert digest(rectify_catalog(world.catalog, world.log, CONFIG, seed=2, anchors=anchors)) != digest(outcome)


def test_another_process_gives_the_same_bytes(outcome: Outcome) -> None:
    """Under another hash seed, so that no set or dictionary order can be what the result hangs on."""
    folder = Path(__file__).parent
    code = "from test_core_pipeline import *; w = taste_world(); print(digest(rectify_catalog(w.catalog, w.log, CONFIG, seed=1)))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join([str(folder), str(folder.parents[1])])},
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
        affinity=replace(CONFIG.affinity, block_rows=block),
        sinkhorn=replace(CONFIG.sinkhorn, block_rows=block),
        rectify=replace(CONFIG.rectify, block_rows=block),
    )
    found = rectify_catalog(world.catalog, world.log, config, seed=1, anchors=outcome.anchors)
    assert digest(found) == digest(outcome)


def test_modalities_do_not_see_each_other(world: World, outcome: Outcome) -> None:
    """One modality alone, or none: the draws of a stage are named after the modality, so its result stays."""
    one = Catalog(
        item_ids=world.catalog.item_ids,
        features={"image": world.catalog.features["image"]},
        present={"image": world.catalog.present["image"]},
    )
    found = rectify_catalog(one, world.log, CONFIG, seed=1)
    assert found.rectified.features["image"].tobytes() == outcome.rectified.features["image"].tobytes()
    none = rectify_catalog(Catalog(item_ids=world.catalog.item_ids, features={}, present={}), world.log, CONFIG, seed=1)
    assert none.rectified.features == {} and none.anchors.items.tobytes() == outcome.anchors.items.tobytes()


def test_row_normalisation_leaves_the_hubs_that_balancing_takes_away(world: World, outcome: Outcome) -> None:
    rows = rectify_catalog(
        world.catalog, world.log, replace(CONFIG, sinkhorn=SinkhornConfig(balance="row")), seed=1, anchors=outcome.anchors
    )
    for m in ("image", "Klang α"):
        plain, balanced = rows.matched[m].plan.column_sums, outcome.matched[m].plan.column_sums
        assert plain.max() > 1.5 and balanced.max() < 1.1


def test_progress_is_told_from_every_long_stage(world: World) -> None:
    said: list[str] = []
    rectify_catalog(
        world.catalog, world.log, CONFIG, seed=1, progress=lambda what, done, total: said.append(what.split(":")[0].split(" (")[0])
    )
    assert set(said) == {"anchors", *(f"{stage} of {m}" for stage in ("projection", "affinity", "plan") for m in world.catalog.features)}


def figures(outcome: Outcome) -> dict[str, Any]:
    """What the golden file holds: counts as they are, measures to three decimals."""
    found: dict[str, Any] = {
        "epochs": len(outcome.anchors.losses),
        "best recall": round(float(outcome.anchors.recalls.max()), 3),
        "anchor spread": round(float((outcome.anchors.items.mean(axis=0) ** 2).sum()), 3),
    }
    for m, x in outcome.matched.items():
        found[m] = {
            "ridge": x.projection.ridge,
            "kept": int(x.projection.kept.sum()),
            "alignment": round(float(np.nanmean(x.projection.alignment)), 3),
            "null alignment": round(float(x.projection.null_alignment.mean()), 3),
            "edges": len(x.plan.indices),
            "outcome": x.plan.outcome.name,
            "diagonal mass": round(x.plan.diagonal_mass, 3),
            "separation": round(x.trust.separation, 3),
            "identifiable": x.trust.identifiable,
            "mismatch rate": None if x.trust.mismatch_rate is None else round(x.trust.mismatch_rate, 3),
            "trust": None if np.isnan(x.trust.probability).all() else round(float(np.nanmean(x.trust.probability)), 3),
            "statuses": statuses(outcome, m),
            "mean square": round(float((outcome.rectified.features[m] ** 2).mean()), 3),
        }
    return found


def flat(figure: Any, name: str = "") -> dict[str, Any]:
    """Nested figures by their path."""
    if not isinstance(figure, dict):
        return {name: figure}
    return {path: value for key, inner in figure.items() for path, value in flat(inner, f"{name}/{key}").items()}


def test_the_figures_are_those_of_the_golden_file(outcome: Outcome) -> None:
    """Counts and decisions exactly; measures within .02, which other processors and libraries stay inside and a changed method does not."""
    golden, found = flat(json.loads(GOLDEN.read_text(encoding="utf-8"))), flat(figures(outcome))
    assert found == {name: pytest.approx(value, abs=0.02) if isinstance(value, float) else value for name, value in golden.items()}


def write_golden() -> None:
    world = taste_world()
    GOLDEN.parent.mkdir(exist_ok=True)
    text = json.dumps(figures(rectify_catalog(world.catalog, world.log, CONFIG, seed=1)), indent=1, ensure_ascii=False)
    GOLDEN.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden()

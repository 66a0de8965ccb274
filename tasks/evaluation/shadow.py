"""The shadow evaluation as a stage: from the source to one small output, and what the gate and the report take from it.

Nothing here is Prefect's: ``flows.steps`` wraps it, and tests call it as it is. A sequence modality takes part with the plain mean
of its segments, raw and rectified: which segments are doubtful was judged with the whole log.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Catalog, Interactions
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones import BACKBONES
from rectifier_core.evaluation.config import ShadowConfig
from rectifier_core.evaluation.shadow import evaluate_shadow
from rectifier_core.quality import ShadowMeasure
from tasks.errors import InputError
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.grid import WITHOUT_FEATURES, configured
from tasks.stages.anchors import load_interactions
from tasks.stages.trust import category_numbers
from tasks.store.code_digest import evaluation_digest
from tasks.store.store import Ref, StageStore, StageWriter, plain

__all__ = ["ShadowConfig", "shadow_config", "shadow_facts", "shadow_measure", "shadow_stage"]


def shadow_config(config: EvaluationConfig) -> ShadowConfig | None:
    """How the shadow is run, None where it is off. Raises InputError naming the key.

    Its model is the evaluation's; its training is its own schedule unless the evaluation's is changed for this backbone.
    """
    name = config.shadow
    if name is None:
        return None
    if name in WITHOUT_FEATURES:
        raise InputError(
            f"evaluation.shadow: {name} reads no features, so it would never see harm; vbpr is the cheapest that does"
        )
    training = config.training.get(name)
    return ShadowConfig(
        backbone=name,
        model=configured(BACKBONES[name].config_type(), config.models.get(name, {}), f"evaluation.models.{name}"),
        training=None
        if not training
        else configured(BACKBONES[name].training_config, training, f"evaluation.training.{name}"),
        seeds=config.shadow_seeds,
        tolerance=config.shadow_tolerance,
        max_interactions=config.shadow_max_interactions,
    )


def shadow_stage(
    source: Ref,
    config: ShadowConfig,
    pipeline: PipelineConfig,
    seed: int,
    store: StageStore,
    *,
    progress: Progress = silent,
) -> Ref:
    """What a recommender makes of the rectified features, as ``meta.json``: a ``ShadowResult``'s fields and ``not_worse``."""

    def build(writer: StageWriter) -> None:
        modalities = source.meta["modalities"]
        catalog = Catalog(
            item_ids=source.array("item_ids"),
            features={m: source.array(f"features-{m}") for m in modalities},
            present={m: np.asarray(source.array(f"present-{m}")) for m in modalities},
        )
        result = evaluate_shadow(
            catalog,
            _timed_interactions(source),
            config,
            pipeline,
            seed=seed,
            category=category_numbers(source),
            progress=progress,
        )
        writer.meta(plain(result) | {"not_worse": result.not_worse})

    return store.once("shadow", (source, config, pipeline, seed, evaluation_digest("shadow")), build)


def shadow_measure(shadow: Ref | None) -> ShadowMeasure | None:
    """What the gate checks; nothing without a shadow, or where it could not judge."""
    found = None if shadow is None else shadow.meta
    if found is None or found["high"] is None:
        return None
    return ShadowMeasure(backbone=found["backbone"], highest=found["high"], tolerance=found["tolerance"])


def shadow_facts(shadow: Ref, peak_memory: tuple[int, int]) -> dict[str, Any]:
    """What was found and what it cost, as JSON; ``peak_memory`` are the run's peaks in bytes before and after it."""
    before, after = peak_memory
    return shadow.meta | {
        "seconds": shadow.seconds,
        "reused": shadow.reused,
        "peak_memory_before": before,
        "peak_memory_after": after,
    }


def _timed_interactions(source: Ref) -> Interactions:
    """The positive pairs of a source output with the times of their latest events, where the log tells them."""
    pairs = load_interactions(source)
    if not source.file("times.npy").exists():
        return pairs
    return replace(pairs, times=np.ascontiguousarray(source.array("times")))

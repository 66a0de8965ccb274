"""The shadow evaluation as a stage, and its facts for the gate and the report.

A sequence modality takes part with the plain mean of its segments, because the doubtful segments were judged with the whole log.
"""

from __future__ import annotations

from typing import Any

from rectifier_core.base.numerics import Progress, silent
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones.registry import BACKBONES
from rectifier_core.evaluation.config import ShadowConfig
from rectifier_core.evaluation.shadow import evaluate_shadow
from rectifier_core.quality import ShadowMeasure
from tasks.errors import InputError
from tasks.evaluation.arrays import load_catalog, timed_interactions
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.grid import WITHOUT_FEATURES, configured
from tasks.stages.trust import category_numbers
from tasks.store.code_digest import evaluation_digest
from tasks.store.store import Ref, StageStore, StageWriter, plain


def shadow_config(config: EvaluationConfig) -> ShadowConfig:
    """The config of the shadow, which must not be off. Raises InputError with the key.

    The model is that of the evaluation. The training is the shadow's own unless ``evaluation.training`` changes it for this backbone. Learning
    rate and weight decay are searched as in the evaluation.
    """
    name = config.shadow
    assert name is not None
    if name in WITHOUT_FEATURES:
        raise InputError(
            f"evaluation.shadow: {name} reads no features, so it cannot detect harm; vbpr is the cheapest that can"
        )
    backbone, changed = BACKBONES[name], config.training.get(name)
    return ShadowConfig(
        backbone=name,
        model=configured(backbone.config_type(), config.models.get(name, {}), f"evaluation.models.{name}"),
        training=configured(backbone.training_config, changed, f"evaluation.training.{name}") if changed else None,
        search=config.search if config.search.enabled else None,
        fixed=config.fixed(name),
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
    """The shadow evaluation as ``meta.json``: the fields of a ``ShadowResult`` and ``not_worse``."""

    def build(writer: StageWriter) -> None:
        catalog, log = load_catalog(source, source), timed_interactions(source)
        options: dict[str, Any] = {"seed": seed, "category": category_numbers(source), "progress": progress}
        result = evaluate_shadow(catalog, log, config, pipeline, **options)
        writer.meta(plain(result) | {"not_worse": result.not_worse})

    return store.once("shadow", (source, config, pipeline, seed, evaluation_digest("shadow")), build)


def shadow_measure(shadow: Ref) -> ShadowMeasure | None:
    """The measure that the gate checks; None without a verdict."""
    result = shadow.meta
    if result["high"] is None:
        return None
    return ShadowMeasure(backbone=result["backbone"], highest=result["high"], tolerance=result["tolerance"])


def shadow_facts(shadow: Ref, peak_memory: tuple[int, int]) -> dict[str, Any]:
    """The result and its cost, JSON-able; ``peak_memory`` are the run's peaks in bytes before and after it."""
    before, after = peak_memory
    return shadow.meta | {
        "seconds": shadow.seconds,
        "reused": shadow.reused,
        "peak_memory_before": before,
        "peak_memory_after": after,
    }

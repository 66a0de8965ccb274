"""What the nightly flow and the audit share: from the source and its anchors to the trust in every modality's features."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, TypeVar

from flows.config.run_config import RunConfig
from flows.steps import matching as steps
from rectifier_core.projection.cross_modal import cross_modal_pairs
from tasks.resources.process import torch_device
from tasks.stages.previous_run import PreviousRun
from tasks.stages.sequences import offset_facts, sequence_modalities
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref, StageStore

K = TypeVar("K")


def call_each(task: Any, calls: Mapping[K, Mapping[str, Any]], store: StageStore, **common: Any) -> dict[K, Ref]:
    """Call ``task`` with each of ``calls``: all at once on a cluster, else one by one, so that memory holds one stage's arrays."""
    if not store.runner.remote:
        return {key: task(store=store, **common, **call) for key, call in calls.items()}
    futures = {key: task.submit(store=store, **common, **call) for key, call in calls.items()}
    return {key: future.result() for key, future in futures.items()}


def match_catalog(
    source: Ref, anchors: Ref, config: RunConfig, store: StageStore, previous: PreviousRun | None = None
) -> dict[str, ModalityRefs]:
    """Run the stages from segments to trust, for every modality.

    ``previous`` is the run to update. Sequence modalities are computed from nothing all the same.
    """
    seed, modalities, device = config.seed, list(config.source.modalities), torch_device(config.resources)
    segments = {
        m: steps.judge_segments(m, source, anchors, config.segments, seed, store) for m in sequence_modalities(source)
    }
    inputs: dict[str, dict[str, Any]] = {
        m: {
            "modality": m,
            "features": segments.get(m, source),
            "previous": previous if previous is not None and previous.can_update(m) else None,
        }
        for m in modalities
    }
    copies = call_each(steps.find_copies, inputs, store, anchors=anchors, config=config.copies, seed=seed)
    for m in modalities:
        inputs[m]["copies"] = copies[m]
    fit = {"config": config.projection, "seed": seed, "device": device}
    projections = call_each(steps.project, inputs, store, targets=anchors, **fit)
    places, cross_modal = _compare_modalities(source, inputs, config, store, fit)
    trusts = steps.estimate_trust(source, anchors, projections, cross_modal, config.trust, seed, store)
    matched = {m: _match(inputs[m], projections[m], trusts[m], config, store, device) for m in modalities}
    return {
        m: ModalityRefs(
            features=inputs[m]["features"],
            segments=segments.get(m),
            copies=copies[m],
            projection=projections[m],
            affinity=matched[m][0],
            plan=matched[m][1],
            trust=trusts[m],
            places=places.get(m),
            cross_modal={onto: ref for (own, onto), ref in cross_modal.items() if own == m},
        )
        for m in modalities
    }


def _compare_modalities(
    source: Ref, inputs: Mapping[str, Mapping[str, Any]], config: RunConfig, store: StageStore, fit: Mapping[str, Any]
) -> tuple[dict[str, Ref], dict[tuple[str, str], Ref]]:
    """Project modalities onto each other: the coordinates by modality, and the projections by (modality, onto)."""
    pairs = cross_modal_pairs({m: source.meta["modalities"][m]["width"] for m in inputs}, config.cross_modal)
    coordinates = call_each(
        steps.cross_modal_target,
        {m: inputs[m] for m in sorted({m for pair in pairs for m in pair})},
        store,
        config=config.cross_modal,
        seed=config.seed,
    )
    calls = {
        (m, onto): {
            **inputs[m],
            "onto": onto,
            "targets": coordinates[onto],
            "previous": inputs[m]["previous"] and inputs[onto]["previous"],
        }
        for m, onto in pairs
    }
    return coordinates, call_each(steps.project_onto, calls, store, **fit)


def _match(
    of: Mapping[str, Any], projection: Ref, trust: Ref, config: RunConfig, store: StageStore, device: str
) -> tuple[Ref, Ref]:
    """Find the affinity and balance it. One modality at a time, so that only one index is in memory."""
    modality, previous = of["modality"], of["previous"]
    affinity = steps.find_affinity(
        modality,
        of["features"],
        projection,
        trust,
        config.affinity,
        config.seed,
        store,
        previous=previous,
        device=device,
    )
    return affinity, steps.balance(modality, affinity, config.sinkhorn, store, previous=previous)


def time_offsets(
    source: Ref, matched: dict[str, ModalityRefs], config: RunConfig, store: StageStore
) -> list[dict[str, Any]]:
    """By how much each sequence modality runs behind each other one."""
    segments = {m: refs.segments for m, refs in matched.items() if refs.segments is not None}
    doubtful = config.segments.doubtful
    return [
        offset_facts(steps.recover_offset(a, b, source, segments, doubtful, config.time_offset, config.seed, store))
        for a, b in combinations(sorted(segments), 2)
    ]

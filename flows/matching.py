"""What the nightly flow and the audit share: from the source and its anchors to what is known of every modality."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, TypeVar

from flows.config.run_config import RunConfig
from flows.steps import matching as steps
from rectifier_core.projection.cross_modal import witness_pairs
from tasks.resources.process import torch_device
from tasks.stages.previous_run import PreviousRun
from tasks.stages.sequences import sequence_modalities
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref, StageStore

K = TypeVar("K")


def one_by_one(task: Any, calls: Mapping[K, tuple[Any, ...]], **common: Any) -> dict[K, Ref]:
    """``task`` called with each of ``calls`` in turn: what a machine holds at a time is one stage's."""
    return {key: task(*given, **common) for key, given in calls.items()}


def at_once(task: Any, calls: Mapping[K, tuple[Any, ...]], **common: Any) -> dict[K, Ref]:
    """The same, all under way together: their shards are elsewhere."""
    futures = {key: task.submit(*given, **common) for key, given in calls.items()}
    return {key: future.result() for key, future in futures.items()}


def match_catalog(
    source: Ref,
    anchors: Ref,
    config: RunConfig,
    store: StageStore,
    previous: PreviousRun | None = None,
) -> dict[str, ModalityRefs]:
    """Judge segments, find copies, project, hold modalities against one another, match, balance, and judge trust.

    ``previous`` is the run to update. Sequence modalities are matched from nothing all the same.
    """
    seed, modalities, device = config.seed, list(config.source.modalities), torch_device(config.resources)
    together = at_once if store.runner.remote else one_by_one
    segments = {
        m: steps.judge_segments(m, source, anchors, config.segments, seed, store) for m in sequence_modalities(source)
    }
    features = {m: segments.get(m, source) for m in modalities}
    since = {m: previous if previous is not None and previous.can_update(m) else None for m in modalities}
    copies = together(
        steps.find_copies, {m: (m, features[m], anchors, config.copies, seed, store, since[m]) for m in modalities}
    )
    projections = together(
        steps.project,
        {m: (m, features[m], copies[m], anchors, config.projection, seed, store, since[m]) for m in modalities},
        device=device,
    )
    widths = {m: source.meta["modalities"][m]["width"] for m in modalities}
    pairs = witness_pairs(widths, config.witness)
    targets = sorted({onto for _, onto in pairs})
    cross_modal_targets = together(
        steps.cross_modal_target,
        {m: (m, features[m], copies[m], config.witness, seed, store, since[m]) for m in targets},
    )
    held = {
        (a, b): (
            a,
            b,
            features[a],
            copies[a],
            cross_modal_targets[b],
            config.projection,
            seed,
            store,
            since[a] and since[b],
        )
        for a, b in pairs
    }
    cross_modal = together(steps.project_onto, held, device=device)
    # One by one, so that only one index is in memory.
    affinities = {
        m: steps.match(m, projections[m], config.affinity, seed, store, since[m], device=device) for m in modalities
    }
    plans = {m: steps.balance(m, affinities[m], config.sinkhorn, store, since[m]) for m in modalities}
    trusts = steps.judge_trust(source, anchors, projections, cross_modal, config.trust, seed, store)
    return {
        m: ModalityRefs(
            features=features[m],
            segments=segments.get(m),
            copies=copies[m],
            projection=projections[m],
            affinity=affinities[m],
            plan=plans[m],
            trust=trusts[m],
            cross_modal_target=cross_modal_targets.get(m),
            cross_modal={other: ref for (own, other), ref in cross_modal.items() if own == m},
        )
        for m in modalities
    }


def time_offsets(
    source: Ref, matched: dict[str, ModalityRefs], config: RunConfig, store: StageStore
) -> list[dict[str, Any]]:
    """By how much each sequence modality runs behind each other one."""
    segments = {m: refs.segments for m, refs in matched.items() if refs.segments is not None}
    pairs, doubtful = combinations(sorted(segments), 2), config.segments.doubtful
    return [
        steps.recover_offset(a, b, source, segments, config.time_offset, doubtful, config.seed, store) for a, b in pairs
    ]

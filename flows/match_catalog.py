"""What the nightly flow and the audit share: from the source and its anchors to what is known of every modality."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from flows.run_config import RunConfig
from rectifier_core.witness import witness_pairs
from tasks import prefect_tasks as do
from tasks.memory_plan import MemoryPlan
from tasks.references import Ref, StageStore
from tasks.report_inputs import ModalityRefs
from tasks.segment_stages import sequence_modalities


def match_catalog(source: Ref, anchors: Ref, config: RunConfig, store: StageStore, memory: MemoryPlan) -> dict[str, ModalityRefs]:
    """Judge segments, find copies, project, hold modalities against one another, match, balance, and judge trust."""
    seed, modalities, device = config.seed, list(config.source.modalities), config.resources.torch_device
    segments = {m: do.judge_segments(m, source, anchors, config.segments, seed, store) for m in sequence_modalities(source)}
    features = {m: segments.get(m, source) for m in modalities}
    copies = {m: do.find_copies(m, features[m], anchors, config.copies, seed, store) for m in modalities}
    projections = {m: do.project(m, features[m], copies[m], anchors, config.projection, seed, store, device=device) for m in modalities}
    widths = {m: source.meta["modalities"][m]["width"] for m in modalities}
    pairs = witness_pairs(widths, config.witness)
    places = {m: do.place(m, features[m], copies[m], config.witness, seed, store) for m in sorted({onto for _, onto in pairs})}
    witnesses = {
        (a, b): do.witness(a, b, features[a], copies[a], places[b], config.projection, seed, store, device=device) for a, b in pairs
    }
    rooms = {m: memory.room(f"affinity/{m}") for m in modalities}
    affinities = {m: do.match(m, projections[m], config.affinity, seed, store, rooms[m], device=device) for m in modalities}
    plans = {m: do.balance(m, affinities[m], config.sinkhorn, store, memory.room(f"plan/{m}")) for m in modalities}
    trusts = do.judge_trust(source, anchors, projections, witnesses, config.trust, seed, store)
    return {
        m: ModalityRefs(
            features=features[m],
            segments=segments.get(m),
            copies=copies[m],
            projection=projections[m],
            affinity=affinities[m],
            plan=plans[m],
            trust=trusts[m],
            places=places.get(m),
            witnesses={other: ref for (own, other), ref in witnesses.items() if own == m},
        )
        for m in modalities
    }


def time_offsets(source: Ref, matched: dict[str, ModalityRefs], config: RunConfig, store: StageStore) -> list[dict[str, Any]]:
    """By how much each sequence modality runs behind each other one."""
    segments = {m: refs.segments for m, refs in matched.items() if refs.segments is not None}
    pairs, doubtful = combinations(sorted(segments), 2), config.segments.doubtful
    return [do.recover_offset(a, b, source, segments, config.time_offset, doubtful, config.seed, store) for a, b in pairs]

"""Stages of sequence modalities: segments, the time offset between two sequences, and the mended sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Anchors
from rectifier_core.base.sequence_records import NO_LAG, Segments, TimeOffset
from rectifier_core.sequences.config import SegmentsConfig, TimeOffsetConfig
from rectifier_core.sequences.consensus import item_blocks
from rectifier_core.sequences.segment_pooling import mend_segments, pool_segments
from rectifier_core.sequences.segments import judge_segments
from rectifier_core.sequences.time_offset import Track, recover_time_offset
from tasks.store.saved_records import load_record, save_record
from tasks.store.store import Ref, StageStore, StageWriter


def sequence_modalities(source: Ref) -> list[str]:
    """Return the modalities of a source output that are sequences, in its order."""
    return [name for name, facts in source.meta["modalities"].items() if "segments" in facts]


def segments_stage(
    modality: str,
    source: Ref,
    anchors: Ref,
    config: SegmentsConfig,
    seed: int,
    store: StageStore,
    *,
    progress: Progress = silent,
) -> Ref:
    """Judge every segment, and pool the features without the doubtful ones.

    The output is a ``Segments`` record with ``features-<m>`` [I, D] and ``present-<m>`` [I] beside it. Later stages read these as they read
    a plain modality's from the source.
    """

    def build(writer: StageWriter) -> None:
        segments, offsets = source.array(f"segments-{modality}"), np.asarray(source.array(f"offsets-{modality}"))
        judged = judge_segments(
            modality, segments, offsets, load_record(anchors, Anchors), config, seed=seed, progress=progress
        )
        save_record(writer, judged)
        features = source.array(f"features-{modality}")
        out = writer.memmap(f"features-{modality}", features.shape, np.float32)
        for items in item_blocks(offsets, config.block_rows):
            out[items] = pool_segments(features, segments, offsets, judged.probability, items, config.doubtful)
            progress(f"pooling {modality}", items.stop, len(features))
        out.flush()
        writer.array(f"present-{modality}", np.asarray(source.array(f"present-{modality}")))

    return store.once(f"segments/{modality}", (source, anchors, config, seed), build)


def write_mended(
    writer: StageWriter,
    modality: str,
    source: Ref,
    segments: Ref,
    config: SegmentsConfig,
    *,
    trust: Float32 | None = None,
    features: Float32 | None = None,
    status: NDArray[np.int8] | None = None,
    progress: Progress = silent,
) -> None:
    """Write ``segments-<m>`` [S, D], the mended sequence, and ``segment_trust-<m>`` [S] into the output that ``publish`` reads.

    ``trust`` [I] is how likely the item's pooled feature is its own (NaN: unknown). It is an upper bound for the item's segments. Doubtful
    segments move towards ``features`` [I, D], the rectified pooled features with their ``status`` [I]; towards the trimmed features if
    these are None. The caller lists the modality under ``sequences`` in that output's ``meta``.
    """
    original, offsets = source.array(f"segments-{modality}"), np.asarray(source.array(f"offsets-{modality}"))
    probability = np.array(load_record(segments, Segments).probability)
    if trust is not None:
        probability = np.fmin(probability, np.repeat(np.asarray(trust), np.diff(offsets)))
    pooled = segments.array(f"features-{modality}") if features is None else features
    known = None if status is None else np.asarray(status) == Status.RECTIFIED.code
    out = writer.memmap(f"segments-{modality}", original.shape, np.float32)
    for items in item_blocks(offsets, config.block_rows):
        rows = slice(int(offsets[items.start]), int(offsets[items.stop]))
        out[rows] = mend_segments(pooled, original, offsets, probability, items, config.doubtful, known=known)
        progress(f"mending the segments of {modality}", rows.stop, len(original))
    out.flush()
    writer.array(f"segment_trust-{modality}", probability)


def time_offset_stage(
    first: str,
    second: str,
    source: Ref,
    segments: dict[str, Ref],
    doubtful: float,
    config: TimeOffsetConfig,
    seed: int,
    store: StageStore,
    *,
    progress: Progress = silent,
) -> Ref:
    """Estimate by how many segments ``second`` lags behind ``first``. Segments that ``segments[m]`` calls doubtful are left out."""

    def track(modality: str) -> Track:
        own = np.asarray(load_record(segments[modality], Segments).probability)
        trusted: Bool = np.isnan(own) | (own >= doubtful)
        return Track(
            modality=modality,
            segments=source.array(f"segments-{modality}"),
            offsets=np.asarray(source.array(f"offsets-{modality}")),
            positions=np.asarray(source.array(f"positions-{modality}")),
            trusted=trusted,
        )

    def build(writer: StageWriter) -> None:
        save_record(writer, recover_time_offset(track(first), track(second), config, seed=seed, progress=progress))

    return store.once(
        f"time-offset/{first}-{second}", (source, segments[first], segments[second], doubtful, config, seed), build
    )


def segment_facts(modality: str, source: Ref, segments: Ref, config: SegmentsConfig) -> dict[str, Any]:
    """Return the facts of one modality's sequences as JSON: segments, the rate, doubtful segments and the items with some."""
    judged, offsets = load_record(segments, Segments), np.asarray(source.array(f"offsets-{modality}"))
    doubtful = np.concatenate([[0], np.cumsum(np.asarray(judged.probability) < config.doubtful)])
    return {
        "segments": len(judged.probability),
        "segments_quarantined": source.meta["modalities"][modality]["segments_quarantined"],
        "wrong_rate": judged.wrong_rate,
        "identifiable": judged.identifiable,
        "reason": judged.reason,
        "segments_doubtful": int(doubtful[-1]),
        "items_with_doubtful": int((np.diff(doubtful[offsets]) > 0).sum()),
        "segments_unknown": int(np.isnan(judged.probability).sum()),
    }


def offset_facts(offset: Ref) -> dict[str, Any]:
    """Return the time offset between two sequence modalities as JSON."""
    record = load_record(offset, TimeOffset)
    lags = np.asarray(record.item_lags)
    lags = lags[lags != NO_LAG]
    return {
        "first": record.first,
        "second": record.second,
        "lag": record.lag,
        "identifiable": record.identifiable,
        "reason": record.reason,
        "items_told": len(lags),
        "items_agreeing": int((lags == record.lag).sum()) if record.lag is not None else 0,
    }

"""Stage: segments. Find the parts of a sequence (frames, audio windows) that do not belong to their item.

Each segment has two scores: its cosine to the item's anchor, after an out-of-fold ridge map into anchor space as in the projection, and
its leave-one-out consensus with the item's other segments. A segment of another item in the same place gives the null distribution of
both. The log ratio of the two distributions and the estimated share of wrong segments give the probability. No paper has this method.

Limits:

- Where anchors do not separate an item's segments from random ones, nothing is judged and everything passes through.
- A sequence that belongs to another item from end to end agrees with itself. The trust of its pooled feature finds it.

The map is fitted on segments. A fit on pooled features scores about the same (``benchmarks/results/segments.md``), but the segments have to
be read for their consensus anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Float64, Int32, Int64
from rectifier_core.base.numerics import Progress, separation, silent, unit_rows
from rectifier_core.base.records import Anchors
from rectifier_core.base.seeding import generator
from rectifier_core.base.sequence_records import Segments
from rectifier_core.projection.crossfit import NormalEquations, out_of_fold
from rectifier_core.sequences.config import SegmentsConfig
from rectifier_core.sequences.consensus import Weigh, Whitening, item_blocks, leave_one_out
from rectifier_core.sequences.segment_evidence import LogRatio, Scores, fit_log_ratio, own_probability, wrong_share


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequences:
    """A modality's segments, with folds and centred anchors. ``item`` [S] is the item of each segment."""

    rows: Float32
    offsets: Int64
    item: Int32
    folds: Int32
    anchored: Bool
    targets: Float32
    reliability: Float32

    def units(self, at: slice | Int64) -> Float32:
        return unit_rows(np.asarray(self.rows[at], dtype=np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class _StandIns:
    """Segments of other items (``donors``) put in ``places`` (ascending), and their cosine to the anchors there."""

    places: Int64
    donors: Int64
    anchor: Float64


def judge_segments(
    modality: str,
    segments: Float32,
    offsets: Int64,
    anchors: Anchors,
    config: SegmentsConfig,
    *,
    seed: int,
    progress: Progress = silent,
) -> Segments:
    """The probability that each segment belongs to its item, with the scores behind it.

    ``segments`` [S, D] float32 may be a memory map, which is read by blocks of whole items. Item i owns the rows from
    ``offsets[i]`` up to ``offsets[i + 1]`` (int64 [I + 1]), or none. Raises ValueError where offsets, segments and anchors do not fit.
    """
    _check_fit(segments, offsets, anchors)
    counts = np.diff(offsets)
    usable = anchors.trained & (counts > 0)
    if usable.sum() < max(config.min_items, 2 * config.folds):
        too_few = f"only {int(usable.sum())} items have both segments and an anchor, fewer than min_items = {config.min_items}"
        return _nothing(modality, len(segments), float("nan"), None, too_few)
    sequences = _prepared(modality, segments, offsets, anchors, usable, config, seed)
    sums, whitening = _accumulated(sequences, anchors, usable, config, modality, progress)
    ridge = _best_ridge(sequences, sums, anchors, config, seed, modality)
    maps = sums.solve_folds(ridge)
    alignment = np.full(len(segments), np.nan, np.float32)
    for items in item_blocks(offsets, config.block_rows):
        at = np.arange(offsets[items.start], offsets[items.stop])[
            sequences.anchored[offsets[items.start] : offsets[items.stop]]
        ]
        projected = out_of_fold(segments, at, sequences.folds[sequences.item[at]], maps, config.block_rows)
        alignment[at] = np.einsum("ij,ij->i", projected, sequences.targets[sequences.item[at]])
    stand_ins = _stand_ins(sequences, modality, config, seed)
    donated = out_of_fold(
        segments, stand_ins.donors, sequences.folds[sequences.item[stand_ins.donors]], maps, config.block_rows
    )
    place = sequences.item[stand_ins.places]
    stand_ins.anchor[:] = np.where(usable[place], np.einsum("ij,ij->i", donated, sequences.targets[place]), np.nan)
    auc, reason = _check_separation(alignment, stand_ins.anchor, int(usable.sum()), config)
    if reason is not None:
        return _nothing(modality, len(segments), auc, ridge, reason, alignment)
    return _judged(modality, sequences, whitening, alignment, stand_ins, auc, ridge, config, seed, progress)


def _check_fit(segments: Float32, offsets: Int64, anchors: Anchors) -> None:
    num_items = len(anchors.trained)
    if offsets.dtype != np.int64 or offsets.shape != (num_items + 1,):
        raise ValueError(
            f"offsets: wanted int64 ({num_items + 1},), one more than items, got {offsets.dtype} {offsets.shape}"
        )
    if segments.dtype != np.float32 or segments.ndim != 2:
        raise ValueError(f"segments: wanted float32 with two dimensions, got {segments.dtype} {segments.shape}")
    if offsets[0] != 0 or offsets[-1] != len(segments) or (np.diff(offsets) < 0).any():
        raise ValueError(
            f"offsets: wanted to rise from 0 to the {len(segments)} segments, got {offsets[0]} to {offsets[-1]}"
        )


def _prepared(
    modality: str, segments: Float32, offsets: Int64, anchors: Anchors, usable: Bool, config: SegmentsConfig, seed: int
) -> _Sequences:
    counts = np.diff(offsets)
    folds = (generator(seed, "segments", modality, "folds").permutation(len(counts)) % config.folds).astype(np.int32)
    item = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    targets = unit_rows(np.asarray(anchors.items - anchors.items[usable].mean(axis=0), dtype=np.float32))
    return _Sequences(
        rows=segments,
        offsets=offsets,
        item=item,
        folds=folds,
        anchored=usable[item],
        targets=targets,
        reliability=anchors.reliability,
    )


def _accumulated(
    sequences: _Sequences, anchors: Anchors, usable: Bool, config: SegmentsConfig, modality: str, progress: Progress
) -> tuple[NormalEquations, Whitening]:
    """One pass over the sequences: the sums of the ridge and of the whitening."""
    width, offsets = sequences.rows.shape[1], sequences.offsets
    # Any fixed vector near the mean will do. The first segments do not depend on the block size.
    near = sequences.units(slice(0, min(len(sequences.rows), 1024))).mean(axis=0)
    sums = NormalEquations(num_folds=config.folds, origin=near, target_width=anchors.items.shape[1])
    whitening = Whitening(config.folds, width)
    for items in item_blocks(offsets, config.block_rows):
        rows = slice(int(offsets[items.start]), int(offsets[items.stop]))
        if rows.start == rows.stop:
            continue
        units, item = sequences.units(rows), sequences.item[rows]
        inside = usable[item]
        sums.add(units[inside], anchors.items[item[inside]], sequences.folds[item[inside]])
        whitening.add(units, offsets[items.start : items.stop + 1] - rows.start, sequences.folds[items])
        progress(f"segments of {modality}: moments", rows.stop, len(sequences.rows))
    whitening.solve(config.shrinkage)
    return sums, whitening


def _best_ridge(
    sequences: _Sequences, sums: NormalEquations, anchors: Anchors, config: SegmentsConfig, seed: int, modality: str
) -> float:
    """The penalty at which a sample of segments aligns best out of fold."""
    rows = np.flatnonzero(sequences.anchored)
    rows = rows[_sample(len(rows), config.sample, generator(seed, "segments", modality, "ridge"))]
    item = sequences.item[rows]
    aligned = []
    for strength in config.ridge_grid:
        projected = out_of_fold(
            sequences.rows, rows, sequences.folds[item], sums.solve_folds(strength), config.block_rows
        )
        aligned.append(float(np.einsum("ij,ij->i", projected, sequences.targets[item]).mean()))
    return config.ridge_grid[int(np.argmax(aligned))]


def _stand_ins(sequences: _Sequences, modality: str, config: SegmentsConfig, seed: int) -> _StandIns:
    """For a sample of places, a random segment of another item: the next one in a random cycle of all items with segments."""
    rng, counts = generator(seed, "segments", modality, "null"), np.diff(sequences.offsets)
    cycle = rng.permutation(np.flatnonzero(counts > 0))
    other = np.zeros(len(counts), np.int64)
    other[cycle] = np.roll(cycle, 1)
    places = _sample(len(sequences.item), config.sample, rng)
    source = other[sequences.item[places]]
    donors = sequences.offsets[source] + (rng.random(len(places)) * counts[source]).astype(np.int64)
    return _StandIns(places=places, donors=donors, anchor=np.full(len(places), np.nan))


def _check_separation(
    alignment: Float32, null: Float64, num_items: int, config: SegmentsConfig
) -> tuple[float, str | None]:
    auc = separation(alignment[~np.isnan(alignment)], null[~np.isnan(null)])
    # Segments of one item are not independent, so the error counts items.
    error = float(np.sqrt(2 / num_items / 12))
    if auc - 3 * error >= config.min_separation:
        return auc, None
    return auc, (
        f"segments align with their item's anchor no better than random ones: AUC {auc:.3f} with a standard error of {error:.3f} does not "
        f"clear min_separation = {config.min_separation}"
    )


def _judged(
    modality: str,
    sequences: _Sequences,
    whitening: Whitening,
    alignment: Float32,
    stand_ins: _StandIns,
    auc: float,
    ridge: float,
    config: SegmentsConfig,
    seed: int,
    progress: Progress,
) -> Segments:
    anchor, reliability = alignment.astype(np.float64), sequences.reliability[sequences.item].astype(np.float64)
    actual, null = _scores(sequences, whitening, anchor, reliability, stand_ins, None, config)
    sampled = _sample(len(anchor), config.sample, generator(seed, "segments", modality, "sample"))
    ratio = fit_log_ratio(actual.take(sampled), null, config.prior)
    for done in range(config.rounds):
        actual, null = _scores(sequences, whitening, anchor, reliability, stand_ins, ratio, config, done + 1)
        ratio = fit_log_ratio(actual.take(sampled), null, config.prior)
        progress(f"segments of {modality}: consensus", done + 1, config.rounds)
    evidence, unjudged = ratio.of(actual), np.isnan(anchor) & np.isnan(actual.consensus)
    known = ~(np.isnan(null.anchor) & np.isnan(null.consensus))
    rate = wrong_share(evidence[~unjudged], ratio.of(null)[known])
    floor = 1 / max(2, len(evidence))
    probability = own_probability(evidence, float(np.clip(rate, floor, 1 - floor)))
    probability[unjudged], evidence[unjudged] = np.nan, np.nan
    return Segments(
        modality=modality,
        alignment=alignment,
        consensus=actual.consensus.astype(np.float32),
        evidence=evidence.astype(np.float32),
        probability=probability.astype(np.float32),
        wrong_rate=rate,
        identifiable=True,
        separation=auc,
        ridge=ridge,
        reason=f"segments align with their item's anchor better than random ones (AUC {auc:.3f} over {len(anchor)} segments)",
    )


def _sample(size: int, most: int, rng: np.random.Generator) -> Int64:
    return np.arange(size) if size <= most else np.sort(rng.choice(size, most, replace=False))


def _weigher(ratio: LogRatio, prior: float) -> Weigh:
    def weigh(prior_ratio: Float64, consensus: Float64, companions: Float64) -> Float64:
        added = ratio.by_consensus(consensus.ravel(), companions.ravel()).reshape(consensus.shape)
        return own_probability(prior_ratio + added, prior)

    return weigh


def _scores(
    sequences: _Sequences,
    whitening: Whitening,
    anchor: Float64,
    reliability: Float64,
    stand_ins: _StandIns,
    ratio: LogRatio | None,
    config: SegmentsConfig,
    rounds: int = 0,
) -> tuple[Scores, Scores]:
    """Scores of the segments [S] and of the stand-ins. ``ratio`` sets the companions' weights, ``rounds`` times."""
    weigh = None if ratio is None else _weigher(ratio, config.prior)
    offsets, folds = sequences.offsets, sequences.folds
    consensus, companions = np.full(len(anchor), np.nan), np.zeros(len(anchor))
    null = np.full(len(stand_ins.places), np.nan)
    for items in item_blocks(offsets, config.block_rows):
        rows = slice(int(offsets[items.start]), int(offsets[items.stop]))
        tried = slice(*np.searchsorted(stand_ins.places, [rows.start, rows.stop]))
        donors = stand_ins.donors[tried]
        found = leave_one_out(
            whitening.apply(sequences.units(rows), folds[sequences.item[rows]]),
            offsets[items.start : items.stop + 1] - rows.start,
            anchor[rows] if ratio is None else ratio.by_anchor(anchor[rows], reliability[rows]),
            stand_ins.places[tried] - rows.start,
            whitening.apply(sequences.units(donors), folds[sequences.item[donors]]),
            weigh,
            rounds,
            config.window,
        )
        consensus[rows], companions[rows], null[tried] = found.score, found.companions, found.null
    at = stand_ins.places
    return (
        Scores(anchor=anchor, consensus=consensus, companions=companions, reliability=reliability),
        Scores(anchor=stand_ins.anchor, consensus=null, companions=companions[at], reliability=reliability[at]),
    )


def _nothing(
    modality: str, count: int, auc: float, ridge: float | None, reason: str, alignment: Float32 | None = None
) -> Segments:
    unknown = np.full(count, np.nan, np.float32)
    return Segments(
        modality=modality,
        alignment=unknown if alignment is None else alignment,
        consensus=unknown,
        evidence=unknown,
        probability=unknown,
        wrong_rate=None,
        identifiable=False,
        separation=auc,
        ridge=ridge,
        reason=reason,
    )

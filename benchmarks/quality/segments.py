"""Planted wrong segments and a planted time offset on the demo's sequences: how well both are found, and what the controls say.

Per seed a demo with a video and an audio modality is written, read back and judged by the stages that a run uses. "Anchor" is the
out-of-fold alignment of a segment with its item's anchor by a map fitted on pooled features or on segments, "companions" the robust
leave-one-out consensus, "together" the published probability. ECE is the expected calibration error over ten bins. Pooled: mean cosine
distance, over the items with planted segments, between the pooled feature and that of the item's own segments. The controls deal
anchors to other items, and one modality's sequences to other items.

    python -m benchmarks.quality.segments [--seeds 3] [--items 2500] > benchmarks/results/segments.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import separation, unit_rows
from rectifier_core.base.records import Anchors
from rectifier_core.base.seeding import generator
from rectifier_core.base.sequence_records import NO_LAG, Segments
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.projection import fit_projection
from rectifier_core.sequences.config import SegmentsConfig, TimeOffsetConfig
from rectifier_core.sequences.segment_pooling import pool_segments
from rectifier_core.sequences.segments import judge_segments
from rectifier_core.sequences.time_offset import Track, recover_time_offset
from tasks.demo.catalog import write_demo
from tasks.demo.config import DemoConfig
from tasks.source.config import SourceConfig
from tasks.source.read import read_source
from tasks.stages.anchors import anchors_stage
from tasks.store.saved_records import load_record
from tasks.store.store import Ref, StageStore

DAY = date(2026, 6, 30)
MODALITIES = ("video", "audio")
HEADER = (
    "| spliced items | modality | wrong segments | AUC anchor, pooled fit | AUC anchor, segment fit | AUC companions | AUC together "
    "| rate found | ECE | pooled plain | pooled trimmed | seconds |"
)


@dataclass(frozen=True)
class Shop:
    """One demo as read: its source, its anchors, and which segments were planted."""

    source: Ref
    anchors: Anchors
    wrong: dict[str, Bool]
    offset: int

    def sequences(self, modality: str) -> tuple[Float32, Int64]:
        """The segments [S, D] and the items' bounds [I + 1]."""
        return np.asarray(self.source.array(f"segments-{modality}")), np.asarray(
            self.source.array(f"offsets-{modality}")
        )


def make_shop(folder: Path, items: int, seed: int, spliced: float) -> Shop:
    """Write and read a demo, and train its anchors."""
    config = DemoConfig(items=items, seed=seed, sequences=True, spliced=spliced)
    write_demo(folder / "shop", config)
    settings = SourceConfig(
        catalog=str(folder / "shop" / "catalog"),
        interactions=str(folder / "shop" / "interactions"),
        item_column="item_id",
        user_column="user_id",
        time_column="event_time",
        positive="rating >= 4",
        modalities={m: f"{m}_embedding" for m in MODALITIES},
    )
    store = StageStore(folder / "stages")
    source = read_source(settings, DAY, store)
    anchors = load_record(anchors_stage(source, AnchorsConfig(), seed, store), Anchors)
    place = {name: i for i, name in enumerate(source.array("item_ids").tolist())}
    wrong = {m: np.zeros(len(source.array(f"segments-{m}")), np.bool_) for m in MODALITIES}
    for row in pq.read_table(folder / "shop" / "truth" / "segments.parquet").to_pylist():
        wrong[row["modality"]][source.array(f"offsets-{row['modality']}")[place[row["item_id"]]] + row["segment"]] = (
            True
        )
    return Shop(source=source, anchors=anchors, wrong=wrong, offset=config.time_offset)


def calibration_error(doubt: Float32, wrong: Bool) -> float:
    """Expected calibration error over ten equal bins."""
    bins = np.minimum((doubt * 10).astype(np.int64), 9)
    return float(
        sum(abs(doubt[bins == k].mean() - wrong[bins == k].mean()) * (bins == k).mean() for k in np.unique(bins))
    )


def pooled_fit(shop: Shop, modality: str, seed: int) -> Float32:
    """Alignment of each segment by a map fitted on the pooled features of other items: [S], NaN without an anchor."""
    segments, offsets = shop.sequences(modality)
    features, present = (
        np.asarray(shop.source.array(f"features-{modality}")),
        np.asarray(shop.source.array(f"present-{modality}")),
    )
    item = np.repeat(np.arange(len(present)), np.diff(offsets))
    folds = generator(seed, "benchmark", "folds").permutation(len(present)) % 5
    aligned = np.full(len(segments), np.nan, np.float32)
    for fold in range(5):
        fitted = fit_projection(
            modality, features, present & (folds != fold), shop.anchors, ProjectionConfig(), seed=seed
        )
        rows = np.flatnonzero((folds[item] == fold) & shop.anchors.trained[item])
        centred: Float32 = unit_rows(segments[rows]) - fitted.feature_mean
        projected = unit_rows(centred @ fitted.weight)
        aligned[rows] = np.einsum("ij,ij->i", projected, fitted.target[item[rows]])
    return aligned


def segment_row(shop: Shop, modality: str, seed: int) -> tuple[list[float], Segments]:
    """The numbers of one line of the table."""
    segments, offsets = shop.sequences(modality)
    clock = time.perf_counter()
    found = judge_segments(modality, segments, offsets, shop.anchors, SegmentsConfig(), seed=seed)
    seconds = time.perf_counter() - clock
    wrong, item = shop.wrong[modality], np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))

    def auc(score: Float32) -> float:
        known = ~np.isnan(score)
        return separation(score[known & ~wrong], score[known & wrong])

    plain = np.asarray(shop.source.array(f"features-{modality}"))
    trimmed = pool_segments(
        plain, segments, offsets, found.probability, slice(0, len(plain)), SegmentsConfig().doubtful
    )
    hit = np.unique(item[wrong])
    own = np.zeros((len(hit), plain.shape[1]), np.float32)
    for row, i in enumerate(hit):
        own[row] = segments[(item == i) & ~wrong].mean(axis=0)

    def far(pooled: Float32) -> float:
        return (
            float(1 - np.einsum("ij,ij->i", unit_rows(pooled[hit]), unit_rows(own)).mean())
            if len(hit)
            else float("nan")
        )

    known = ~np.isnan(found.probability)
    rate = float("nan") if found.wrong_rate is None else found.wrong_rate
    error = calibration_error(1 - found.probability[known], wrong[known]) if known.any() else float("nan")
    aucs = [
        auc(score) for score in (pooled_fit(shop, modality, seed), found.alignment, found.consensus, found.probability)
    ]
    return [float(wrong.mean()), *aucs, rate, error, far(plain), far(trimmed), seconds], found


def track(shop: Shop, modality: str, judged: Segments, order: Int64 | None = None) -> Track:
    """One modality's sequences for the time offset, those of the items ``order`` instead of each item's own where given."""
    segments, offsets = shop.sequences(modality)
    trusted, positions = (
        ~(judged.probability < SegmentsConfig().doubtful),
        np.asarray(shop.source.array(f"positions-{modality}")),
    )
    if order is not None:
        rows = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in order])
        counts = np.diff(offsets)[order]
        segments, trusted, positions = segments[rows], trusted[rows], positions[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Track(modality=modality, segments=segments, offsets=offsets, positions=positions, trusted=trusted)


def offset_line(shop: Shop, judged: dict[str, Segments], spliced: float, seed: int) -> str:
    """One line of the table of offsets: what was found, and what is said of sequences dealt to other items."""
    video, audio = (track(shop, m, judged[m]) for m in MODALITIES)
    clock = time.perf_counter()
    found = recover_time_offset(video, audio, TimeOffsetConfig(), seed=seed)
    seconds = time.perf_counter() - clock
    order = generator(seed, "benchmark", "dealt").permutation(len(audio.offsets) - 1)
    dealt = recover_time_offset(video, track(shop, "audio", judged["audio"], order), TimeOffsetConfig(), seed=seed)
    told = found.item_lags[found.item_lags != NO_LAG]
    runner_up = float(np.sort(found.correlation)[-2])
    return (
        f"| {spliced:.0%} | {seed} | {shop.offset} | {found.lag} | {found.correlation.max():.3f} | {runner_up:.3f} "
        f"| {found.null_correlation.max():.3f} | {found.support:.0%} | {len(told):,} | {(told == shop.offset).mean():.1%} "
        f"| {'named ' + str(dealt.lag) if dealt.identifiable else 'not identifiable'} | {seconds:.1f} |"
    )


def shuffled_control(shop: Shop, modality: str, seed: int) -> Segments:
    """What is said when anchors are dealt to other items."""
    known = np.flatnonzero(shop.anchors.trained)
    items = shop.anchors.items.copy()
    items[known] = items[generator(seed, "benchmark", "control").permutation(known)]
    segments, offsets = shop.sequences(modality)
    return judge_segments(modality, segments, offsets, replace(shop.anchors, items=items), SegmentsConfig(), seed=seed)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    return (
        "–" if np.isnan(values).any() else f"{np.mean(values):.3f} ± {np.std(values, ddof=min(1, len(values) - 1)):.3f}"
    )


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--items", type=int, default=2500)
    options = parser.parse_args()
    print(f"Command: `python -m benchmarks.quality.segments --seeds {options.seeds} --items {options.items}`\n")
    print(HEADER + "\n|" + "---|" * HEADER.strip("|").count("|") + "---|")
    offsets, controls = [], []
    for spliced in (0.0, 0.2, 0.5):
        rows: dict[str, list[list[float]]] = {m: [] for m in MODALITIES}
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                shop = make_shop(Path(folder), options.items, seed, spliced)
                judged = {}
                for m in MODALITIES:
                    row, judged[m] = segment_row(shop, m, seed)
                    rows[m].append(row)
                    controls.append(shuffled_control(shop, m, seed))
                offsets.append(offset_line(shop, judged, spliced, seed))
            print(f"{spliced:.0%} seed {seed} done", file=sys.stderr)
        for m in MODALITIES:
            print(
                f"| {spliced:.0%} | {m} | "
                + " | ".join(spread(column) for column in zip(*rows[m], strict=True))
                + " |",
                flush=True,
            )
    told = sum(x.identifiable for x in controls)
    highest = max(x.separation for x in controls)
    print(
        f"\nAnchors dealt to other items: identifiable in {told} of {len(controls)} (separation at most {highest:.3f}).\n"
    )
    print(
        "| spliced items | seed | planted offset | found | correlation there | next best lag | best by chance | wins in resamples "
        "| items that tell | of these right | sequences dealt to other items | seconds |\n|" + "---|" * 12
    )
    print("\n".join(offsets))


if __name__ == "__main__":
    main()

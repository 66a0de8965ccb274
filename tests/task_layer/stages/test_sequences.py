"""The stages of sequence modalities between references, on a demo with planted wrong segments and a planted time offset."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.arrays import Bool
from rectifier_core.base.numerics import separation
from rectifier_core.base.published_records import Status
from rectifier_core.base.sequence_records import NO_LAG, Segments, TimeOffset
from rectifier_core.sequences.config import SegmentsConfig, TimeOffsetConfig
from tasks.demo.catalog import DemoConfig, write_demo
from tasks.source.read import SourceConfig, read_source
from tasks.stages.anchors import anchors_stage
from tasks.stages.sequences import (
    offset_facts,
    segment_facts,
    segments_stage,
    time_offset_stage,
    write_mended,
)
from tasks.store.saved_records import load_record
from tasks.store.store import Ref, StageStore, StageWriter
from tasks.table.publish import PublishConfig
from tests.support.table.publish_support import publish, write_modality

DAY = date(2026, 6, 30)
CONFIG = SegmentsConfig()
OFFSETS = TimeOffsetConfig(max_lag=5, sample=8000, resamples=50)


class Chain(NamedTuple):
    """The stage outputs of a demo with sequences, and where it lies."""

    folder: Path
    store: StageStore
    source: Ref
    anchors: Ref
    segments: dict[str, Ref]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("sequences")
    write_demo(
        folder / "shop",
        DemoConfig(items=900, users=1500, interactions=40_000, seed=3, days=10, sequences=True, time_offset=-2),
    )
    config = SourceConfig(
        catalog=str(folder / "shop" / "catalog"),
        interactions=str(folder / "shop" / "interactions"),
        item_column="item_id",
        user_column="user_id",
        time_column="event_time",
        positive="rating >= 4",
        modalities={m: f"{m}_embedding" for m in ("text", "video", "audio")},
    )
    store = StageStore(folder / "stages")
    source = read_source(config, DAY, store)
    anchors = anchors_stage(source, AnchorsConfig(epochs=5, embedding_size=32), 0, store)
    return Chain(
        folder,
        store,
        source,
        anchors,
        {m: segments_stage(m, source, anchors, CONFIG, 0, store) for m in ("video", "audio")},
    )


def planted(chain: Chain, modality: str) -> Bool:
    """Which segments the demo planted wrong."""
    offsets = chain.source.array(f"offsets-{modality}")
    wrong = np.zeros(int(offsets[-1]), np.bool_)
    for row in pq.read_table(chain.folder / "shop" / "truth" / "segments.parquet").to_pylist():
        if row["modality"] == modality:
            wrong[offsets[int(row["item_id"].removeprefix("item-"))] + row["segment"]] = True
    return wrong


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_planted_segments_are_found_and_counted(chain: Chain, modality: str) -> None:
    judged, wrong = load_record(chain.segments[modality], Segments), planted(chain, modality)
    known = ~np.isnan(judged.probability)
    assert separation(judged.probability[known & ~wrong], judged.probability[known & wrong]) > 0.93
    facts = segment_facts(modality, chain.source, chain.segments[modality], CONFIG)
    assert facts["segments"] == len(wrong)
    assert facts["wrong_rate"] == pytest.approx(wrong.mean(), abs=0.02)
    assert facts["segments_doubtful"] == int((judged.probability < 0.5).sum())
    items = np.repeat(np.arange(900), np.diff(chain.source.array(f"offsets-{modality}")))
    assert facts["items_with_doubtful"] == len(np.unique(items[judged.probability < 0.5]))


def test_later_stages_read_the_trimmed_feature_from_it(chain: Chain) -> None:
    ref, doubt = chain.segments["video"], load_record(chain.segments["video"], Segments).probability < CONFIG.doubtful
    given, trimmed = chain.source.array("features-video"), ref.array("features-video")
    touched = (
        np.bincount(np.repeat(np.arange(900), np.diff(chain.source.array("offsets-video")))[doubt], minlength=900) > 0
    )
    moved = (np.asarray(given) != trimmed).any(axis=1)
    assert moved.any()
    assert not (moved & ~touched).any()
    assert ref.array("present-video").tolist() == chain.source.array("present-video").tolist()


def test_the_time_offset_is_recovered(chain: Chain) -> None:
    ref = time_offset_stage("video", "audio", chain.source, chain.segments, CONFIG.doubtful, OFFSETS, 0, chain.store)
    found = load_record(ref, TimeOffset)
    assert (found.lag, found.identifiable) == (-2, True)
    told = found.item_lags != NO_LAG
    facts = offset_facts(ref)
    assert facts["items_told"] == told.sum() > 200
    assert facts["items_agreeing"] > 0.9 * facts["items_told"]
    assert time_offset_stage(
        "video", "audio", chain.source, chain.segments, CONFIG.doubtful, OFFSETS, 0, chain.store
    ).reused


def test_a_mended_sequence_is_published(chain: Chain, tmp_path: Path) -> None:
    def build(writer: StageWriter) -> None:
        write_mended(writer, "video", chain.source, chain.segments["video"], CONFIG)
        features = chain.segments["video"].array("features-video")
        write_modality(writer, "video", features, chain.source.array("present-video"), np.nan)
        writer.meta({"features": ["video"], "sequences": ["video"]})

    rectified = chain.store.once("rectified", (chain.source, chain.segments["video"]), build)
    config = PublishConfig(uri=str(tmp_path / "table"))
    publish(config, (chain.source, rectified), "2026-06-30")
    read = pl.scan_delta(config.uri).collect()
    assert read["item_id"].to_list() == chain.source.array("item_ids").tolist()
    given, offsets = chain.source.array("segments-video"), chain.source.array("offsets-video")
    trust = load_record(chain.segments["video"], Segments).probability
    kept = changed = 0
    for i, (segments, own) in enumerate(
        zip(read["video_segments"].to_list(), read["video_segment_trust"].to_list(), strict=True)
    ):
        rows = slice(int(offsets[i]), int(offsets[i + 1]))
        if segments is None:
            assert rows.start == rows.stop
            continue
        np.testing.assert_array_equal(np.array(own, dtype=np.float32), trust[rows])
        same = (np.array(segments, np.float32) == given[rows]).all(axis=1)
        assert same[~(trust[rows] < CONFIG.doubtful)].all()
        kept, changed = kept + int(same.sum()), changed + int((~same).sum())
    assert changed > 100
    assert kept > 10 * changed


def test_a_segment_is_trusted_no_further_than_its_sequence(chain: Chain) -> None:
    trust = np.full(900, np.nan, np.float32)
    trust[100:200] = 0.1
    rectified = np.array(chain.segments["video"].array("features-video"))[::-1]
    status = np.full(900, Status.PASSED_THROUGH.code, np.int8)
    status[100:150] = Status.RECTIFIED.code

    def build(writer: StageWriter) -> None:
        write_mended(
            writer,
            "video",
            chain.source,
            chain.segments["video"],
            CONFIG,
            trust=trust,
            features=rectified,
            status=status,
        )
        writer.meta({})

    ref = chain.store.once("bounded", (chain.segments["video"],), build)
    item = np.repeat(np.arange(900), np.diff(chain.source.array("offsets-video")))
    own, found = load_record(chain.segments["video"], Segments).probability, ref.array("segment_trust-video")
    inside = (item >= 100) & (item < 200)
    np.testing.assert_array_equal(found[~inside], own[~inside])
    assert (found[inside] <= np.float32(0.1)).all()
    given, mended = chain.source.array("segments-video"), ref.array("segments-video")
    moved = (np.asarray(given) != mended).any(axis=1)
    # Of an item that was rectified every segment follows; one that was not has nothing to follow.
    assert moved[(item >= 100) & (item < 150)].mean() > 0.99
    assert not moved[(item >= 150) & (item < 200)].any()

"""Rectified rows as shards: each reads its rows, their plan and their donors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rectifier_core.base.numerics import Progress, row_blocks
from rectifier_core.base.records import Plan, Projection, Trust
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.expected import ExpectedFeature, Views
from rectifier_core.rectify.rectify import Mixing, Model, RectifiedRows, rectify_rows
from tasks.store.runner import Arrays, Runner, Shared, row_shards
from tasks.store.saved_records import open_record
from tasks.store.stage_outputs import ModalityRefs

FIELDS = ("features", "status", "moved")


@dataclass(frozen=True, slots=True, kw_only=True)
class RectifyShard:
    """Items ``first`` to ``last`` of one modality.

    ``shared`` holds the ``status`` of all items and the ``lengths`` of their features. Where an expected feature was fitted, it also holds
    its ``mean`` and ``maps``.
    """

    modality: str
    matched: Mapping[str, ModalityRefs]
    shared: Shared
    donor_weight: float
    config: RectifyConfig
    first: int
    last: int


def open_views(modality: str, matched: Mapping[str, ModalityRefs]) -> Views:
    """Return what is known of every item beside one modality's feature, memory-mapped."""
    others = [
        (x.places.array("items"), open_record(x.trust, Trust))
        for m, x in matched.items()
        if m != modality and x.places is not None
    ]
    return Views.beside(open_record(matched[modality].projection, Projection).target, others)


def rectify_shard(shard: RectifyShard) -> Arrays:
    """Rectify the shard's rows."""
    refs, shared = shard.matched[shard.modality], shard.shared.open()
    features, present = (refs.features.array(f"{x}-{shard.modality}") for x in ("features", "present"))
    model = None
    if "maps" in shared:
        expected = ExpectedFeature(
            modality=shard.modality, mean=shared["mean"], maps=shared["maps"], donor_weight=shard.donor_weight
        )
        folds = open_record(refs.projection, Projection).fold
        model = Model(expected=expected, views=open_views(shard.modality, shard.matched), folds=folds)
    plan, trust = open_record(refs.plan, Plan), open_record(refs.trust, Trust)
    mixing = Mixing(plan=plan, trust=trust, lengths=shared["lengths"], config=shard.config, model=model)
    count = shard.last - shard.first
    found = RectifiedRows(
        np.empty((count, features.shape[1]), np.float32), np.empty(count, np.int8), np.empty(count, np.float32)
    )
    for block in row_blocks(count, shard.config.block_rows):
        rows = slice(shard.first + block.start, shard.first + block.stop)
        found.put(block, rectify_rows(features, present, rows, shared["status"], mixing))
    return {name: getattr(found, name) for name in FIELDS}


def write_rectified(
    out: RectifiedRows,
    modality: str,
    matched: Mapping[str, ModalityRefs],
    mixing: Mixing,
    runner: Runner,
    progress: Progress,
) -> None:
    """Fill ``out``, whose ``status`` is what is to be done, with the rectified rows, shard by shard."""
    spans = row_shards(len(out.status), runner.shard_rows)
    with runner.open_work(f"rectify/{modality}") as work:
        fitted, donor_weight = {}, 1.0
        if mixing.model is not None:
            expected = mixing.model.expected
            fitted, donor_weight = {"mean": expected.mean, "maps": expected.maps}, expected.donor_weight
        shared = work.share(status=out.status.copy(), lengths=mixing.lengths, **fitted)
        shards = [
            RectifyShard(
                modality=modality,
                matched=matched,
                shared=shared,
                donor_weight=donor_weight,
                config=mixing.config,
                first=span.start,
                last=span.stop,
            )
            for span in spans
        ]
        for span, arrays in zip(spans, work.map(rectify_shard, shards), strict=True):
            out.put(span, RectifiedRows(*(arrays[name] for name in FIELDS)))
            progress(f"rectifying {modality}", span.stop, len(out.status))

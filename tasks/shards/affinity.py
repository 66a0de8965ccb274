"""The search of best donors as shards: the index is built once and mapped, the items that ask are divided in the order that suits it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rectifier_core.affinity.affinity import SPARE, FoundRows, index_features, neighbours_of, rows_in_work
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.inverted_lists import InvertedLists, Lists, by_likeness
from rectifier_core.affinity.top_k import in_threads
from rectifier_core.base.numerics import Progress, row_blocks
from rectifier_core.base.records import NO_NEIGHBOUR, Projection
from tasks.store.runner import Arrays, Runner, Shared, row_shards
from tasks.store.saved_records import load_record, open_record, save_lists, save_record
from tasks.store.store import Ref, StageWriter

LISTS = ("means", "radius", "vectors", "items", "offsets")
FOUND = ("neighbours", "scores", "spare")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchShard:
    """Positions ``first`` to ``last`` of the items that ask, in ``order``; ``lists`` are the index's arrays, ``reach`` its own."""

    projection: Ref
    lists: Shared
    order: Shared
    reach: float
    recall: float
    memory: int | None
    config: AffinityConfig
    first: int
    last: int

    @property
    def index(self) -> InvertedLists:
        """The index, mapped."""
        return InvertedLists(**{name: self.lists[name] for name in LISTS}, reach=self.reach, recall=self.recall)


def search_shard(shard: SearchShard) -> Arrays:
    """The best donors of the shard's items and their scores, in its order."""
    projection, index, config = open_record(shard.projection, Projection), shard.index, shard.config
    rows = np.ascontiguousarray(shard.order["rows"][shard.first : shard.last])
    made = FoundRows.of(len(rows), config)

    def work(block: slice) -> None:
        made.put(block, neighbours_of(projection, index, rows[block], config))

    threads = torch.get_num_threads()
    most = rows_in_work(config, projection.target.shape[1], index.vectors.nbytes, shard.memory, threads)
    for _ in in_threads(work, list(row_blocks(len(rows), max(1, min(most, -(-len(rows) // threads))))), threads):
        pass
    return {name: getattr(made, name) for name in FOUND}


def write_neighbours(
    writer: StageWriter,
    ref: Ref,
    config: AffinityConfig,
    runner: Runner,
    *,
    seed: int,
    memory: int | None,
    progress: Progress,
) -> None:
    """``affinity.find_neighbours`` of the projection ``ref``, its rows written as their shards are done."""
    projection = load_record(ref, Projection)
    shape, threads = (len(projection.target), config.num_neighbours), torch.get_num_threads()
    made = FoundRows(
        writer.memmap("neighbours", shape, np.int32),
        writer.memmap("scores", shape, np.float32),
        writer.memmap("spare", (shape[0], SPARE), np.int32),
    )
    for block in row_blocks(shape[0], config.block_rows):
        made.put(block, (NO_NEIGHBOUR, -np.inf, NO_NEIGHBOUR))
    rows, name, recall = np.flatnonzero(projection.target.any(axis=1)), "none", 1.0
    index = index_features(projection, config, seed=seed, threads=threads, memory=memory) if len(rows) else None
    if index is not None:
        name, recall = index.name, index.recall
        if len(index.means) > 1:
            save_lists(writer, Lists.of(index, shape[0]))
        order = by_likeness(index, projection.target, rows, threads=threads)
        spans = row_shards(len(order), runner.shard_rows)
        with runner.open_work(f"affinity/{projection.modality}") as work:
            lists, asked = work.share(**{x: getattr(index, x) for x in LISTS}), work.share(rows=order)
            shards = [
                SearchShard(
                    projection=ref,
                    lists=lists,
                    order=asked,
                    reach=index.reach,
                    recall=recall,
                    memory=memory,
                    config=config,
                    first=span.start,
                    last=span.stop,
                )
                for span in spans
            ]
            for span, found in zip(spans, work.map(search_shard, shards), strict=True):
                made.put(order[span], tuple(found[x] for x in FOUND))
                progress(f"affinity of {projection.modality} ({name})", span.stop, len(order))
    save_record(writer, made.affinity(projection.modality, recall, name))

"""The affinity search as shards: the index is built once, workers map its file, and each takes its share of the anchors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import faiss
import numpy as np
import torch

from rectifier_core.affinity.affinity import SPARE, AffinityRows, index_features, search_block
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.index import NearestRows
from rectifier_core.affinity.places import Places
from rectifier_core.base.numerics import Progress
from rectifier_core.base.records import NO_NEIGHBOUR
from rectifier_core.base.threads import on_row_blocks
from tasks.store.runner import Arrays, Runner, Shared, row_shards
from tasks.store.saved_records import save_part, save_record
from tasks.store.store import StageWriter

COLUMNS = ("neighbours", "scores", "spare")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AffinityShard:
    """Positions ``first`` to ``last`` of the anchors in ``rows`` of ``shared``, which also holds the places: ``donors``, ``items``, ``own``.

    ``index`` is the index itself or the path of its file, and ``factor`` the candidates asked of it for each one wanted.
    """

    modality: str
    anchor_share: float
    shared: Shared
    index: NearestRows | Path
    factor: float
    config: AffinityConfig
    first: int
    last: int


def write_index(path: Path, index: NearestRows) -> None:
    """Write the FAISS index to a file."""
    faiss.write_index(index.index, str(path))


@lru_cache(maxsize=2)
def read_index(path: Path, factor: float, shared: Shared) -> NearestRows:
    """The index of the donors in a file: an exact one is memory-mapped, an inverted file has half a byte a number."""
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    return NearestRows(vectors=shared["donors"], index=index, factor=factor)


def search_shard(shard: AffinityShard) -> Arrays:
    """The neighbours of the shard's items, their scores and spare ones, in the shard's order."""
    shared, config, index = shard.shared, shard.config, shard.index
    places = Places(
        modality=shard.modality,
        donors=shared["donors"],
        items=shared["items"],
        own=shared["own"],
        anchor_share=shard.anchor_share,
    )
    opened = read_index(index, shard.factor, shared) if isinstance(index, Path) else index
    rows = np.ascontiguousarray(shared["rows"][shard.first : shard.last])
    found = AffinityRows.empty(len(rows), config)

    def work(block: slice) -> None:
        found.put(block, search_block(places, opened, rows[block], config))

    on_row_blocks(work, len(rows), config.block_rows, torch.get_num_threads())
    return {name: getattr(found, name) for name in COLUMNS}


def write_affinity(
    writer: StageWriter,
    places: Places,
    config: AffinityConfig,
    runner: Runner,
    *,
    seed: int,
    progress: Progress,
) -> None:
    """Write ``affinity.find_affinity`` of ``places``, the rows of each shard as soon as they are found."""
    threads, num_items = torch.get_num_threads(), len(places.items)
    found = AffinityRows(
        writer.memmap("neighbours", (num_items, config.num_neighbours), np.int32),
        writer.memmap("scores", (num_items, config.num_neighbours), np.float32),
        writer.memmap("spare", (num_items, SPARE), np.int32),
    )
    found.neighbours[:], found.scores[:], found.spare[:] = NO_NEIGHBOUR, -np.inf, NO_NEIGHBOUR
    rows = np.flatnonzero(places.items.any(axis=1))
    index = index_features(places, config, rows, seed=seed, threads=threads) if len(rows) else None
    if index is not None:
        if index.clusters is not None:
            save_part(writer, "clusters", index.clusters)
        order = index.order(places.items, rows, threads=threads)
        # A block's queries may show in the choice between equal rows, so a shard holds whole blocks.
        spans = row_shards(len(order), runner.shard_rows, config.block_rows)
        with runner.open_work(f"affinity/{places.modality}") as work:
            path = work.folder / "index.faiss"
            if runner.remote:
                write_index(path, index)
            opened = path if runner.remote else index
            shared = work.share(rows=order, donors=places.donors, items=places.items, own=places.own)
            shards = [
                AffinityShard(
                    modality=places.modality,
                    anchor_share=places.anchor_share,
                    shared=shared,
                    index=opened,
                    factor=index.factor,
                    config=config,
                    first=span.start,
                    last=span.stop,
                )
                for span in spans
            ]
            for span, part in zip(spans, work.map(search_shard, shards), strict=True):
                found.put(order[span], AffinityRows(**part))
                progress(f"affinity of {places.modality} ({index.name})", span.stop, len(order))
    save_record(writer, found.record(places, index))

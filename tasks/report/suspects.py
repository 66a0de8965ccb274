"""The most suspect items of a modality, each beside its nearest items by behaviour and by feature."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import Any

import numba
import numpy as np
import polars as pl
import torch

from rectifier_core.affinity.top_k import in_threads
from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.threads import kernel, read_only
from tasks.report.inputs import ReportInputs
from tasks.report.summaries import BLOCK_BYTES, Array, Facts, tidy
from tasks.store.store import Ref

NUM_SUSPECTS = 50
NUM_NEAREST = 5
LONGEST_ID = 80
LONGEST_TITLE = 100
TINY = float(np.finfo(np.float32).tiny)
Nearest = tuple[Int64, Float32]


def least_trusted(trust: Array, item_ids: Array, count: int) -> Int64:
    """Rows of the ``count`` lowest values of ``trust`` [I], lowest first, ties by item id; NaN rows never."""
    known = np.flatnonzero(~np.isnan(trust))
    if len(known) > count:
        bar = np.partition(trust[known], count - 1)[count - 1]
        known = known[trust[known] <= bar]
    order = np.lexsort((item_ids[known], trust[known]))
    return known[order[:count]].astype(np.int64)


def nearest_rows(
    matrix: tuple[Ref, str],
    usable: Bool,
    rows: Int64,
    *,
    count: int = NUM_NEAREST,
    centre: Float32 | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Nearest:
    """The ``count`` usable rows nearest to each of ``rows`` [Q] by cosine, itself excepted, by exact search in blocks.

    ``matrix`` names a stage array [I, D] whose rows are taken at unit length, less ``centre`` [D] if given; rows that are not ``usable``
    [I] have no place in it, neither asked nor found. Returns rows int64 [Q, count] (-1 where there are fewer) and cosines float32, best
    first, ties by row.
    """
    ref, name = matrix
    whole = ref.array(name)
    shift = np.zeros(whole.shape[1], np.float32) if centre is None else np.asarray(centre, dtype=np.float32)
    queries = _unit_from(np.array(whole[rows], dtype=np.float32), shift)
    best = np.full((len(rows), count), -1, dtype=np.int64)
    score = np.full((len(rows), count), -np.inf, dtype=np.float32)
    cosines: dict[int, Float32] = {}

    def work(block: slice) -> None:
        # Six decimals: identical rows should tie, whatever order the matrix product summed in.
        cosines[block.start] = np.round(_unit_from(np.asarray(whole[block], dtype=np.float32), shift) @ queries.T, 6)

    blocks = list(row_blocks(len(whole) if len(rows) else 0, max(1, block_bytes // max(1, 4 * whole.shape[1]))))
    for block in in_threads(work, blocks, torch.get_num_threads()):
        cosine, allowed = cosines.pop(block.start), np.flatnonzero(usable[block])
        for query, row in enumerate(rows):
            if usable[row] and len(allowed):
                _merge(best[query], score[query], allowed + block.start, cosine[allowed, query], int(row))
    return best, score


@kernel(numba.void(numba.float32[:, ::1], read_only(numba.float32, 1)), fastmath={"reassoc", "contract"})
def _centre(rows: Any, centre: Any) -> None:
    for row in range(len(rows)):
        square = 0.0
        for at in range(len(centre)):
            square += np.float64(rows[row, at]) * np.float64(rows[row, at])
        length, square = np.float32(max(math.sqrt(square), TINY)), 0.0
        for at in range(len(centre)):
            rows[row, at] = rows[row, at] / length - centre[at]
            square += np.float64(rows[row, at]) * np.float64(rows[row, at])
        length = np.float32(max(math.sqrt(square), TINY))
        for at in range(len(centre)):
            rows[row, at] /= length


def _unit_from(rows: Float32, centre: Float32) -> Float32:
    """``rows`` [N, D], which are overwritten: at unit length, less ``centre`` [D], and at unit length again."""
    _centre(rows, centre)
    return rows


def mean_unit_row(matrix: tuple[Ref, str], usable: Bool, *, sample: int = 16_384) -> Float32:
    """The mean direction [D] of the usable rows, each at unit length, over an even sample of them; zeros if there is none."""
    ref, name = matrix
    rows = np.flatnonzero(usable)
    rows = rows[:: max(1, len(rows) // sample)]
    whole = ref.array(name)
    total = np.zeros(whole.shape[1])
    for block in row_blocks(len(rows), 1024):
        unit = np.array(whole[rows[block]], dtype=np.float32)
        total += _unit_from(unit, np.zeros(unit.shape[1], np.float32)).sum(axis=0, dtype=np.float64)
    return (total / max(1, len(rows))).astype(np.float32)


def _merge(best: Int64, score: Float32, candidates: Int64, cosine: Float32, itself: int) -> None:
    """Put the best of ``candidates`` into the running top list of one query, in place."""
    ahead = np.flatnonzero((cosine > score[-1]) & (candidates != itself))
    if len(ahead) > len(best):
        bar = np.partition(cosine[ahead], -len(best))[-len(best)]
        ahead = ahead[cosine[ahead] >= bar]
    if not len(ahead):
        return
    rows, scores = np.concatenate([best, candidates[ahead]]), np.concatenate([score, cosine[ahead]])
    order = np.lexsort((rows, -scores))[: len(best)]
    best[:], score[:] = rows[order], scores[order]


def suspects(inputs: ReportInputs, interactions: Int64) -> dict[str, list[Facts]]:
    """Per modality the least trusted items, worst first, at most 50; ``interactions`` [I] counts each item's."""
    item_ids, trained = inputs.source.array("item_ids"), np.array(inputs.anchors.array("trained"))
    chosen: dict[str, tuple[Array, Int64, Nearest, Nearest]] = {}
    for name in inputs.modalities:
        trust = np.array(inputs.rectified.array(f"trust-{name}"))
        rows = least_trusted(trust, item_ids, NUM_SUSPECTS)
        features = inputs.modalities[name].features
        present = np.array(features.array(f"present-{name}"))
        centre = mean_unit_row((features, f"features-{name}"), present)
        by_behaviour = nearest_rows((inputs.anchors, "items"), trained, rows)
        by_feature = nearest_rows((features, f"features-{name}"), present, rows, centre=centre)
        chosen[name] = (trust[rows], rows, by_behaviour, by_feature)
    shown = [
        index
        for _, rows, behaviour, feature in chosen.values()
        for index in (rows, behaviour[0].ravel(), feature[0].ravel())
    ]
    labels = Labels(inputs.source, np.unique(np.concatenate(shown)) if shown else np.empty(0, np.int64))
    return {
        name: [
            {
                **labels.of(int(row)),
                "trust": tidy(float(trust[i])),
                "interactions": int(interactions[row]),
                "nearest_by_behaviour": labels.similar(behaviour, i),
                "nearest_by_feature": labels.similar(feature, i),
            }
            for i, row in enumerate(rows)
        ]
        for name, (trust, rows, behaviour, feature) in chosen.items()
    }


class Labels:
    """Ids, titles and categories of the few items that are shown."""

    def __init__(self, source: Ref, rows: Int64) -> None:
        rows = rows[rows >= 0]
        ids = source.array("item_ids")[rows].tolist()
        self._ids = dict(zip(rows.tolist(), ids, strict=True))
        self._found = _read_labels(source, ids)

    def of(self, row: int) -> Facts:
        """``{item_id, title, category}`` of one row; title and category are None where the catalog gives none."""
        item_id = self._ids[row]
        title, category = self._found.get(item_id, (None, None))
        return {"item_id": shorten(item_id, LONGEST_ID), "title": shorten(title), "category": shorten(category)}

    def similar(self, nearest: Nearest, query: int) -> list[Facts]:
        """``[{item_id, title, similarity}]`` of one query's nearest items."""
        rows, scores = nearest
        pairs = zip(rows[query].tolist(), scores[query].tolist(), strict=True)
        return [self._neighbour(row, score) for row, score in pairs if row >= 0]

    def _neighbour(self, row: int, score: float) -> Facts:
        known = self.of(row)
        return {"item_id": known["item_id"], "title": known["title"], "similarity": tidy(round(score, 4))}


def _read_labels(source: Ref, ids: list[Any]) -> dict[Any, tuple[Any, Any]]:
    path = source.file("labels.parquet")
    if not path.exists() or not ids:
        return {}
    lazy = pl.scan_parquet(path)
    columns = set(lazy.collect_schema().names())
    wanted = [name for name in ("item_id", "title", "category") if name in columns]
    table = lazy.select(wanted).filter(pl.col("item_id").is_in(ids)).collect()
    return {row["item_id"]: (row.get("title"), row.get("category")) for row in table.iter_rows(named=True)}


def shorten(value: Any, longest: int = LONGEST_TITLE) -> str | None:
    """``value`` as one line of at most ``longest`` characters; control characters become spaces, None and blanks None."""
    if value is None:
        return None
    text = (
        ", ".join(map(str, value))
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes))
        else str(value)
    )
    text = text[: 20 * longest]
    line = " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).split())
    return (line if len(line) <= longest else line[: longest - 1] + "…") or None

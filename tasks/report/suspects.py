"""The most suspect items of a modality, each beside its nearest items by behaviour and by feature."""

from __future__ import annotations

import faiss
import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import row_blocks, row_lengths
from rectifier_core.base.threads import on_row_blocks
from tasks.report.catalog import Catalog
from tasks.report.inputs import ReportInputs
from tasks.report.summaries import Array, Facts, tidy
from tasks.store.store import Ref

NUM_SUSPECTS = 50
# A feature of lower trust is more likely another item's than its own.
SUSPECT = 0.5
NUM_NEAREST = 5
BLOCK_ROWS = 4096
_SHORTEST = 1e-6  # a shorter difference from the centre is rounding
Nearest = tuple[Int64, Float32]


def least_trusted(trust: Array, item_ids: Array, count: int) -> Int64:
    """Rows of the ``count`` lowest values of ``trust`` [I], lowest first, ties by item id; NaN rows never."""
    known = np.flatnonzero(~np.isnan(trust))
    if len(known) > count:
        bar = np.partition(trust[known], count - 1)[count - 1]
        known = known[trust[known] <= bar]
    order = np.lexsort((item_ids[known], trust[known]))
    return known[order[:count]].astype(np.int64)


def nearest_rows(matrix: tuple[Ref, str], usable: Bool, rows: Int64, *, centre: Float32 | None = None) -> Nearest:
    """The ``NUM_NEAREST`` usable rows nearest to each of ``rows`` [Q] by cosine, by exact search in blocks.

    ``matrix`` names a stage array [I, D]. Its rows are taken at unit length, less ``centre`` [D]. A row does not find itself, and a row
    that is not ``usable`` [I] neither searches nor is found. Returns rows int64 [Q, NUM_NEAREST] (-1 where there are fewer) and cosines
    float32, best first, ties by row.
    """
    ref, name = matrix
    queries = _unit(np.asarray(ref.array(name)[rows], np.float32), centre)
    found = [(np.full((len(rows), NUM_NEAREST), -1), np.full((len(rows), NUM_NEAREST), -np.inf, np.float32))]

    def search(block: slice) -> None:
        kept = np.flatnonzero(usable[block])
        if not len(kept):
            return
        vectors = _unit(np.asarray(ref.array(name)[block][kept], np.float32), centre)
        # One more than wanted, because a row finds itself. Six decimals, so that equal rows tie.
        cosine, place = faiss.knn(queries, vectors, min(NUM_NEAREST + 1, len(kept)), metric=faiss.METRIC_INNER_PRODUCT)
        found.append((kept[place] + block.start, np.round(cosine, 6)))

    on_row_blocks(search, len(usable) if len(rows) else 0, BLOCK_ROWS, faiss.omp_get_max_threads())
    items, score = (np.hstack(x) for x in zip(*found, strict=True))
    score[(items == rows[:, None]) | ~usable[rows][:, None]] = -np.inf
    order = np.lexsort((items, -score))[:, :NUM_NEAREST]
    items, score = (np.take_along_axis(x, order, 1) for x in (items, score))
    return np.where(np.isneginf(score), -1, items), score


def mean_unit_row(matrix: tuple[Ref, str], usable: Bool, *, sample: int = 16_384) -> Float32:
    """The mean direction [D] of an even sample of the usable rows, each at unit length; zeros if there is none."""
    ref, name = matrix
    rows, whole = np.flatnonzero(usable), ref.array(name)
    rows = rows[:: max(1, len(rows) // sample)]
    total = np.zeros(whole.shape[1])
    for block in row_blocks(len(rows), 1024):
        total += _unit(np.asarray(whole[rows[block]], np.float32), None).sum(axis=0, dtype=np.float64)
    return (total / max(1, len(rows))).astype(np.float32)


def _unit(rows: Float32, centre: Float32 | None) -> Float32:
    """``rows`` [N, D] at unit length; with ``centre`` [D] then less the centre, and at unit length again."""
    unit = _scaled(rows)
    return unit if centre is None else _scaled(unit - centre)


def _scaled(rows: Float32) -> Float32:
    lengths = row_lengths(rows)[:, None]
    scaled: Float32 = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > _SHORTEST)
    return scaled


def suspects(inputs: ReportInputs, interactions: Int64, catalog: Catalog) -> dict[str, list[Facts]]:
    """Per modality the least trusted items of trust below ``SUSPECT``, worst first, at most 50.

    ``interactions`` [I] counts each item's.
    """
    item_ids, trained = inputs.source.array("item_ids"), np.array(inputs.anchors.array("trained"))
    found = {}
    for name, refs in inputs.modalities.items():
        trust = np.array(inputs.rectified.array(f"trust-{name}"))
        rows = least_trusted(np.where(trust < SUSPECT, trust, np.nan), item_ids, NUM_SUSPECTS)
        matrix, present = (refs.features, f"features-{name}"), np.array(refs.features.array(f"present-{name}"))
        by_behaviour = nearest_rows((inputs.anchors, "items"), trained, rows)
        by_feature = nearest_rows(matrix, present, rows, centre=mean_unit_row(matrix, present))
        found[name] = [
            {
                **catalog.card(row),
                "trust": tidy(float(trust[row])),
                "interactions": int(interactions[row]),
                "nearest_by_behaviour": _similar(by_behaviour, at, catalog),
                "nearest_by_feature": _similar(by_feature, at, catalog),
            }
            for at, row in enumerate(rows.tolist())
        ]
    return found


def _similar(nearest: Nearest, query: int, catalog: Catalog) -> list[Facts]:
    """``[{item_id, title, similarity}]`` of one query's nearest items."""
    pairs = zip(nearest[0][query].tolist(), nearest[1][query].tolist(), strict=True)
    known = [(catalog.card(row), score) for row, score in pairs if row >= 0]
    return [{"item_id": x["item_id"], "title": x["title"], "similarity": tidy(round(score, 4))} for x, score in known]

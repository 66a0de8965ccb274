"""How well a published table's trust finds what was planted in a demo catalog."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from rectifier_core.base.arrays import Bool, Float64
from rectifier_core.base.numerics import separation
from tasks.errors import InputError


def score_ranking(
    uri: str, truth: Path, as_of: date | None = None, *, storage_options: dict[str, str] | None = None
) -> dict[str, Any]:
    """Compare the published ``<m>_trust`` of one day (None: the newest) with the demo's folder ``truth``.

    The ranked list holds the items with a trust value, least trusted first, ties by item id. It ends at the number of planted mismatches.
    Returns ``{"as_of", "rows", "modalities": {m: {...}}}`` with, for each modality: ``planted`` and ``planted_rate`` (of the items with
    the feature), ``planted_ranked`` (those with a trust value), ``ranked`` and ``unranked`` (published rows with and without one),
    ``listed`` (length of the list), ``found``, ``placeholders_listed``, ``precision`` (found / listed), ``recall`` (found / planted), and
    ``auc`` (the chance that a mismatch is trusted less than a matched item). A ratio is None where its denominator is 0. If the demo and
    the table have sequences, ``"sequences": {m: {...}}`` gives ``planted``, ``ranked``, ``listed``, ``found`` and ``auc`` of segments.

    Raises:
        InputError: no table, day, trust column or complete truth; the message names it.
    """
    try:
        summary: dict[str, Any] = json.loads((truth / "summary.json").read_text(encoding="utf-8"))
        names = ["mismatches", "placeholders", *(["segments"] if "sequences" in summary else [])]
        planted = {name: pq.read_table(truth / f"{name}.parquet") for name in names}
    except (OSError, ValueError) as error:
        raise InputError(
            f"truth {truth}: cannot be read ({error}); write the demo again with: catalog-rectifier demo"
        ) from error
    table, day = _open(uri, as_of, storage_options)
    published = _rows(table, day, ["item_id", *(f"{m}_trust" for m in summary["modalities"])])
    modalities = {}
    for m, counts in summary["modalities"].items():
        wrong, stock = (_of_modality(planted[name], m)["item_id"] for name in ("mismatches", "placeholders"))
        modalities[m] = {"planted": len(wrong), "planted_rate": counts["mismatch_rate"]}
        modalities[m] |= _score_items(published["item_id"], published[f"{m}_trust"], wrong, stock)
    sequences = {}
    for m in summary.get("sequences", {}).get("modalities", {}):
        columns = ["item_id", f"{m}_segment_positions", f"{m}_segment_trust"]
        if set(columns) <= {field.name for field in table.schema().fields}:
            sequences[m] = _score_segments(_rows(table, day, columns), _of_modality(planted["segments"], m))
    score = {"as_of": day.isoformat(), "rows": published.num_rows, "modalities": modalities}
    return score | ({"sequences": sequences} if sequences else {})


def _open(uri: str, as_of: date | None, storage_options: dict[str, str] | None) -> tuple[DeltaTable, date]:
    try:
        table = DeltaTable(uri, storage_options=storage_options)
        days = sorted({str(partition["as_of"]) for partition in table.partitions()})
    except (DeltaError, OSError, KeyError) as error:
        raise InputError(
            f"table {uri}: no published table can be read there; publish one with: catalog-rectifier rectify"
        ) from error
    day = as_of.isoformat() if as_of else days[-1] if days else "any day"
    if day not in days:
        raise InputError(
            f"table {uri}: nothing is published for as_of {day}; it holds {', '.join(days[-5:]) or 'no day'}"
        )
    return table, date.fromisoformat(day)


def _rows(table: DeltaTable, day: date, columns: list[str]) -> pa.Table:
    missing = sorted(set(columns) - {field.name for field in table.schema().fields})
    if missing:
        raise InputError(
            f"table {table.table_uri}: the column {missing[0]} is missing, so it cannot be compared with the demo's truth"
        )
    return table.to_pyarrow_table(filters=[("as_of", "=", day)], columns=columns)


def _of_modality(table: pa.Table, modality: str) -> pa.Table:
    return table.filter(pc.equal(table["modality"], modality))


def _score_items(items: pa.ChunkedArray, trust: pa.ChunkedArray, planted: pa.Array, stock: pa.Array) -> dict[str, Any]:
    known = pc.and_kleene(pc.is_valid(trust), pc.invert(pc.is_nan(trust)))
    ranked = pa.table({"item": items, "trust": trust}).filter(known)
    ranked = ranked.sort_by([("trust", "ascending"), ("item", "ascending")])
    doubt = 1 - ranked["trust"].to_numpy().astype(np.float64)
    wrong = pc.is_in(ranked["item"], planted).to_numpy().astype(np.bool_)
    listed = min(len(planted), len(wrong))
    hits = int(wrong[:listed].sum())
    return {
        "planted_ranked": int(wrong.sum()),
        "ranked": len(wrong),
        "unranked": len(items) - len(wrong),
        "listed": listed,
        "found": hits,
        "placeholders_listed": int(pc.sum(pc.is_in(ranked["item"][:listed], stock)).as_py() or 0),
        "precision": hits / listed if listed else None,
        "recall": hits / len(planted) if len(planted) else None,
        "auc": _auc(doubt, wrong),
    }


def _score_segments(rows: pa.Table, planted: pa.Table) -> dict[str, Any]:
    ids, positions, trusts = (column.combine_chunks() for column in rows.columns)
    names = _segment_names(ids.take(pc.list_parent_indices(positions)), pc.list_flatten(positions))
    trust = pc.list_flatten(trusts)
    known = pc.is_valid(trust)
    doubt = 1 - trust.filter(known).to_numpy().astype(np.float64)
    is_planted = pc.is_in(names, _segment_names(planted["item_id"], planted["segment"]))
    wrong = is_planted.filter(known).to_numpy(zero_copy_only=False).astype(np.bool_)
    listed = min(len(planted), len(wrong))
    hits = int(wrong[np.argsort(-doubt, kind="stable")[:listed]].sum())
    auc = _auc(doubt, wrong)
    return {"planted": len(planted), "ranked": len(wrong), "listed": listed, "found": hits, "auc": auc}


def _segment_names(items: pa.Array, positions: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(items.cast(pa.string()), positions.cast(pa.string()), "/")


def _auc(doubt: Float64, wrong: Bool) -> float | None:
    return separation(doubt[wrong], doubt[~wrong]) if wrong.any() and not wrong.all() else None


def describe_score(score: dict[str, Any]) -> str:
    """The result of ``score_ranking`` in words, one line a modality."""
    lines = [f"{m}: {_describe(counts, 'item')}" for m, counts in score["modalities"].items()]
    segments = score.get("sequences", {}).items()
    return "\n".join(lines + [f"segments of {m}: {_describe(counts, 'segment')}" for m, counts in segments])


def _describe(counts: dict[str, Any], unit: str) -> str:
    if not counts["ranked"]:
        return f"no {unit} has a trust value, so none of the {counts['planted']:,} planted mismatches is ranked"
    if not counts["planted"]:
        return f"no mismatch was planted, so there is none to find among {counts['ranked']:,} ranked {unit}s"
    line = (
        f"the {counts['listed']:,} least trusted hold {counts['found']:,} of {counts['planted']:,} planted mismatches"
    )
    if "planted_rate" in counts:
        line += f" (precision {100 * counts['precision']:.0f} %; by chance {100 * counts['planted_rate']:.0f} %)"
    if counts["auc"] is not None:
        line += f", AUC {counts['auc']:.2f}".replace(" 0.", " .")
    if counts.get("placeholders_listed"):
        line += f"; {counts['placeholders_listed']:,} of the others show the planted placeholder"
    if counts.get("unranked"):
        line += f"; {counts['unranked']:,} of {counts['ranked'] + counts['unranked']:,} items have no trust value"
    if counts.get("planted_ranked", counts["planted"]) < counts["planted"]:
        line += f"; {counts['planted'] - counts['planted_ranked']:,} planted mismatches have no trust value"
    return line

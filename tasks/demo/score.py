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

from rectifier_core.base.numerics import separation
from tasks.errors import InputError


def score_ranking(
    uri: str, truth: Path, as_of: date | None = None, *, storage_options: dict[str, str] | None = None
) -> dict[str, Any]:
    """Compare the published ``<m>_trust`` of one day (None: the newest) with ``truth``, the folder of that name in a demo.

    The ranked list is the items with a trust value, least trusted first, ties by item id; it is cut at the number of planted mismatches.
    Returns ``{"as_of", "rows", "modalities": {m: {...}}}`` with, for each modality: ``planted`` and ``planted_rate`` (of the items that
    have the feature), ``planted_ranked`` (those with a trust value), ``ranked`` and ``unranked`` (published rows with and without one),
    ``listed`` (length of the list), ``found``, ``placeholders_listed``, ``precision`` (found / listed), ``recall`` (found / planted), and
    ``auc`` (the chance that a mismatch is trusted less than a matched item). A share with nothing to divide by is None. Where the demo has
    sequences that the table shows, ``"sequences": {m: {...}}`` gives ``planted``, ``ranked``, ``listed``, ``found`` and ``auc`` of their
    segments likewise.

    Raises:
        InputError: no table, day, trust column or whole truth; the message names it.
    """
    summary = _summary(truth)
    mismatches, placeholders = _truth_table(truth / "mismatches.parquet"), _truth_table(truth / "placeholders.parquet")
    planted = {m: _ids(mismatches, m) for m in summary["modalities"]}
    day, published = _published(uri, list(planted), as_of, storage_options)
    scores = {}
    for m, found in summary["modalities"].items():
        scores[m] = {"planted": len(planted[m]), "planted_rate": found["mismatch_rate"]}
        scores[m] |= _score(published["item_id"], published[f"{m}_trust"], planted[m], _ids(placeholders, m))
    result = {"as_of": day, "rows": published.num_rows, "modalities": scores}
    return result | _score_sequences(uri, truth, summary, date.fromisoformat(day), storage_options)


def _score_sequences(
    uri: str, truth: Path, summary: dict[str, Any], day: date, storage_options: dict[str, str] | None
) -> dict[str, dict[str, Any]]:
    if "sequences" not in summary:
        return {}
    table, planted = DeltaTable(uri, storage_options=storage_options), _truth_table(truth / "segments.parquet")
    shown, scores = {field.name for field in table.schema().fields}, {}
    for m in summary["sequences"]["modalities"]:
        columns = ["item_id", f"{m}_segment_positions", f"{m}_segment_trust"]
        if shown.issuperset(columns):
            rows = table.to_pyarrow_table(filters=[("as_of", "=", day)], columns=columns).combine_chunks()
            scores[m] = _score_segments(rows, planted.filter(pc.equal(planted["modality"], m)))
    return {"sequences": scores} if scores else {}


def _score_segments(rows: pa.Table, planted: pa.Table) -> dict[str, Any]:
    ids, positions, trusts = (column.combine_chunks() for column in rows.columns)
    names = _segment_names(ids.take(pc.list_parent_indices(positions)), pc.list_flatten(positions))
    wanted = _segment_names(planted["item_id"].combine_chunks(), planted["segment"].combine_chunks())
    trust = pc.list_flatten(trusts)
    known = pc.is_valid(trust)
    doubt = 1 - trust.filter(known).to_numpy().astype(np.float64)
    wrong = pc.is_in(names, wanted).filter(known).to_numpy(zero_copy_only=False).astype(np.bool_)
    listed = min(len(wanted), len(wrong))
    return {
        "planted": len(wanted),
        "ranked": len(wrong),
        "listed": listed,
        "found": int(wrong[np.argsort(-doubt, kind="stable")[:listed]].sum()),
        "auc": separation(doubt[wrong], doubt[~wrong]) if wrong.any() and not wrong.all() else None,
    }


def _segment_names(items: pa.Array, positions: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(items.cast(pa.string()), positions.cast(pa.string()), "/")


def _score(items: pa.ChunkedArray, trust: pa.ChunkedArray, planted: pa.Array, placeholders: pa.Array) -> dict[str, Any]:
    known = pc.and_kleene(pc.is_valid(trust), pc.invert(pc.is_nan(trust)))
    ranked = (
        pa.table({"item": items, "trust": trust}).filter(known).sort_by([("trust", "ascending"), ("item", "ascending")])
    )
    doubt = 1 - ranked["trust"].to_numpy().astype(np.float64)
    wrong = pc.is_in(ranked["item"], planted).to_numpy().astype(np.bool_)
    listed = min(len(planted), len(wrong))
    found = int(wrong[:listed].sum())
    return {
        "planted_ranked": int(wrong.sum()),
        "ranked": len(wrong),
        "unranked": len(items) - len(wrong),
        "listed": listed,
        "found": found,
        "placeholders_listed": int(pc.sum(pc.is_in(ranked["item"][:listed], placeholders)).as_py() or 0),
        "precision": found / listed if listed else None,
        "recall": found / len(planted) if len(planted) else None,
        "auc": separation(doubt[wrong], doubt[~wrong]) if wrong.any() and not wrong.all() else None,
    }


def describe_score(score: dict[str, Any]) -> str:
    """The result of ``score_ranking`` in words, a line a modality."""
    lines = [f"{m}: {_describe(found)}" for m, found in score["modalities"].items()]
    return "\n".join(
        lines + [f"segments of {m}: {_describe_segments(found)}" for m, found in score.get("sequences", {}).items()]
    )


def _describe_segments(found: dict[str, Any]) -> str:
    if not found["ranked"]:
        return f"none has a trust value, so none of the {found['planted']:,} planted wrong ones is ranked"
    words = f"the {found['listed']:,} least trusted hold {found['found']:,} of {found['planted']:,} planted wrong ones"
    return words if found["auc"] is None else f"{words}, AUC {found['auc']:.2f}".replace(" 0.", " .")


def _describe(found: dict[str, Any]) -> str:
    if not found["ranked"]:
        return f"no item has a trust value, so none of the {found['planted']:,} planted mismatches is ranked"
    if not found["planted"]:
        return f"no mismatch was planted, so there is none to find among {found['ranked']:,} ranked items"
    words = [
        f"the {found['listed']:,} least trusted hold {found['found']:,} of {found['planted']:,} planted mismatches "
        f"({100 * found['precision']:.0f} % pure; by chance {100 * found['planted_rate']:.0f} %)"
    ]
    if found["auc"] is not None:
        words[0] += f", AUC {found['auc']:.2f}".replace(" 0.", " .")
    if found["placeholders_listed"]:
        words.append(f"the planted placeholder accounts for {found['placeholders_listed']:,} of the others")
    if found["unranked"]:
        words.append(f"no trust value: {found['unranked']:,} of {found['ranked'] + found['unranked']:,} items")
    if found["planted_ranked"] < found["planted"]:
        words.append(f"planted but not ranked: {found['planted'] - found['planted_ranked']:,}")
    return "; ".join(words)


def _summary(truth: Path) -> dict[str, Any]:
    path = truth / "summary.json"
    try:
        summary: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"truth {path}: cannot be read ({error}); write the demo again with: python -m flows demo"
        ) from error
    if not summary.get("complete"):
        raise InputError(
            f"truth {path}: the demo was not written to the end; write it again with: python -m flows demo"
        )
    return summary


def _truth_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"truth {path}: cannot be read ({error}); write the demo again with: python -m flows demo"
        ) from error


def _ids(table: pa.Table, modality: str) -> pa.Array:
    return table.filter(pc.equal(table["modality"], modality))["item_id"].combine_chunks()


def _published(
    uri: str, modalities: list[str], as_of: date | None, storage_options: dict[str, str] | None
) -> tuple[str, pa.Table]:
    try:
        table = DeltaTable(uri, storage_options=storage_options)
        days = sorted({str(partition["as_of"]) for partition in table.partitions()})
    except (DeltaError, OSError, KeyError) as error:
        raise InputError(
            f"table {uri}: no published table can be read there; publish one with: python -m flows rectify"
        ) from error
    day = as_of.isoformat() if as_of else days[-1] if days else None
    if day not in days:
        raise InputError(
            f"table {uri}: nothing is published for as_of {day}; it holds {', '.join(days[-5:]) or 'no day'}"
        )
    columns = ["item_id", *(f"{m}_trust" for m in modalities)]
    absent = sorted(set(columns) - {field.name for field in table.schema().fields})
    if absent:
        raise InputError(
            f"table {uri}: the column {absent[0]} is missing, so it cannot be compared with the demo's truth"
        )
    return day, table.to_pyarrow_table(filters=[("as_of", "=", date.fromisoformat(day))], columns=columns)

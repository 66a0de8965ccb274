"""An audit's findings as tables, a row an item and modality."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from rectifier_core.audit.owners import Suggestions
from rectifier_core.base.arrays import Float32, Float64, Int64
from tasks.audit.explanations import Catalog, reasons
from tasks.audit.findings import WHY, Findings
from tasks.audit.labels import Labels

_FLOATS = pl.List(pl.Float32)


def suspect_table(found: Findings, catalog: Catalog, labels: Labels | None) -> pl.DataFrame:
    """Every suspect of every modality, least trusted first, with its owners and the reason; those beyond the detailed have neither."""
    return pl.concat([_suspects(name, found, catalog, labels) for name in sorted(found.judged)])


def _suspects(name: str, found: Findings, catalog: Catalog, labels: Labels | None) -> pl.DataFrame:
    judged, searched = found.judged[name], found.searched[name]
    rows, detailed = judged.listed.rows, len(searched.clear)
    mended = judged.recalibration is not None
    owners = _padded(suggestion_columns("owner", searched.owners, catalog), len(rows))
    clear = [catalog.ids[row].item() if row >= 0 else None for row in searched.clear.tolist()] + [None] * (
        len(rows) - detailed
    )
    return pl.DataFrame(
        {
            **_items(name, rows, catalog),
            "probability": _values(judged.trust.probability[rows]),
            "probability_recalibrated": _values(judged.current[rows])
            if mended
            else pl.Series([None] * len(rows), dtype=pl.Float32),
            "innocent_share_so_far": judged.expected,
            "innocent_share_at_most": judged.at_most,
            "behaviour": _values(judged.trust.behaviour[rows]),
            "cross_modal": _values(judged.trust.cross_modal[rows]),
            "interactions": found.interactions[rows],
            "reliability": found.reliability[rows],
            **owners,
            "clear_owner_id": pl.Series(clear, dtype=_id_type(catalog)),
            "is_mismatch_by_hand": pl.Series(_verdicts(name, rows, labels), dtype=pl.Boolean),
            "reason": pl.Series([*reasons(name, found, catalog), *[None] * (len(rows) - detailed)], dtype=pl.String),
        }
    )


def feature_table(found: Findings, catalog: Catalog) -> pl.DataFrame:
    """Whose feature each detailed suspect item may have lost, best first, and how much of it the plan already gives the item."""
    parts = []
    for name in sorted(found.judged):
        searched, judged = found.searched[name], found.judged[name]
        rows = judged.listed.rows[: len(searched.clear)]
        columns = suggestion_columns("feature_of", searched.features, catalog)
        weights = _lists(searched.plan_weights, searched.features.others)
        parts.append(
            pl.DataFrame(
                {
                    **_items(name, rows, catalog),
                    "probability": _values(judged.current[rows]),
                    **columns,
                    "feature_of_plan_weights": pl.Series(weights, dtype=_FLOATS),
                }
            )
        )
    return pl.concat(parts)


def unjudged_table(found: Findings, catalog: Catalog) -> pl.DataFrame:
    """Every item that has no probability in a modality, and why."""
    parts = []
    for name in sorted(found.judged):
        why = found.judged[name].why
        rows = np.flatnonzero(why >= 0)
        said = pl.Series(WHY).gather(why[rows])
        parts.append(
            pl.DataFrame(
                {"item_id": _ids(rows, catalog), "modality": pl.repeat(name, len(rows), eager=True), "why": said}
            )
        )
    return pl.concat(parts)


def placeholder_table(found: Findings, catalog: Catalog) -> pl.DataFrame:
    """The members of every group of unlike items that share one feature, largest group first."""
    schema: dict[str, Any] = {
        "modality": pl.String,
        "group": pl.Int32,
        "items_in_group": pl.Int64,
        "likeness": pl.Float32,
    }
    schema |= {"item_id": _id_type(catalog), "title": pl.String, "category": pl.String}
    parts = [pl.DataFrame(schema=schema)]
    for name in sorted(found.judged):
        copies = found.judged[name].copies
        rows = np.flatnonzero(copies.placeholder)
        rows = rows[np.argsort(copies.group[rows], kind="stable")]
        group = copies.group[rows]
        columns = {
            "modality": [name] * len(rows),
            "group": group,
            "items_in_group": np.bincount(copies.group[copies.group >= 0], minlength=1)[group],
            "likeness": _values(copies.likeness[group]),
            "item_id": _ids(rows, catalog),
            "title": catalog.column("title", rows),
            "category": catalog.column("category", rows),
        }
        parts.append(pl.DataFrame(columns, schema=schema))
    return pl.concat(parts)


def hand_check_table(found: Findings, catalog: Catalog) -> pl.DataFrame:
    """The items to look at, in the order drawn; nothing in it says what the estimate makes of them, so that a verdict is a person's own."""
    parts = []
    for name in sorted(found.judged):
        rows = found.judged[name].drawn
        columns = {key: value for key, value in _items(name, rows, catalog).items() if key != "rank"}
        if catalog.has_pictures:
            columns["picture"] = pl.Series(catalog.column("picture", rows), dtype=pl.String)
        parts.append(pl.DataFrame({**columns, "is_mismatch": pl.Series([None] * len(rows), dtype=pl.String)}))
    return pl.concat(parts)


def suggestion_columns(prefix: str, suggestions: Suggestions, catalog: Catalog) -> dict[str, pl.Series]:
    """List columns of the suggestions: ids, titles, probabilities, cosines and log-likelihood ratios."""
    others = suggestions.others
    kept = others[others >= 0]
    ids, titles = iter(catalog.ids[kept].tolist()), iter(catalog.column("title", kept))
    lengths = (others >= 0).sum(axis=1).tolist()
    return {
        f"{prefix}_ids": pl.Series([[next(ids) for _ in range(n)] for n in lengths], dtype=pl.List(_id_type(catalog))),
        f"{prefix}_titles": pl.Series([[next(titles) for _ in range(n)] for n in lengths], dtype=pl.List(pl.String)),
        f"{prefix}_probabilities": pl.Series(_lists(suggestions.probability, others), dtype=_FLOATS),
        f"{prefix}_cosines": pl.Series(_lists(suggestions.cosine, others), dtype=_FLOATS),
        f"{prefix}_log_likelihood_ratios": pl.Series(_lists(suggestions.evidence, others), dtype=_FLOATS),
    }


def _items(name: str, rows: Int64, catalog: Catalog) -> dict[str, Any]:
    return {
        "modality": pl.Series([name] * len(rows), dtype=pl.String),
        "rank": np.arange(1, len(rows) + 1),
        "item_id": _ids(rows, catalog),
        "title": pl.Series(catalog.column("title", rows), dtype=pl.String),
        "category": pl.Series(catalog.column("category", rows), dtype=pl.String),
    }


def _ids(rows: Int64, catalog: Catalog) -> pl.Series:
    return pl.Series(catalog.ids[rows].tolist(), dtype=_id_type(catalog))


def _id_type(catalog: Catalog) -> pl.DataType:
    return pl.Int64() if catalog.ids.dtype.kind == "i" else pl.String()


def _values(values: Float32 | Float64) -> pl.Series:
    return pl.Series(values).fill_nan(None)


def _lists(values: Float32, others: Int64) -> list[list[float]]:
    return [row[: int(n)].tolist() for row, n in zip(values, (others >= 0).sum(axis=1), strict=True)]


def _padded(columns: dict[str, pl.Series], length: int) -> dict[str, pl.Series]:
    return {name: x.extend_constant(None, length - len(x)) if length > len(x) else x for name, x in columns.items()}


def _verdicts(name: str, rows: Int64, labels: Labels | None) -> list[bool | None]:
    if labels is None:
        return [None] * len(rows)
    known = dict(zip(labels.rows[name].tolist(), labels.is_mismatch[name].tolist(), strict=True))
    return [known.get(row) for row in rows.tolist()]

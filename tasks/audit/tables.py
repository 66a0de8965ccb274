"""An audit's findings as tables, a row an item and modality: Parquet for programs, CSV for spreadsheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from rectifier_core.audit.owners import Suggestions
from rectifier_core.base.arrays import Float32, Float64, Int64
from tasks.audit.csv_guard import guarded
from tasks.audit.explanations import reasons
from tasks.audit.findings import WHY, Findings
from tasks.audit.labels import Labels
from tasks.report.catalog import Catalog
from tasks.store.atomic_files import write_whole

NUM_SHOWN = 5
WAY_OUT = "free or fix the disk, or choose another --out, then run again"
_TEXTS = pl.List(pl.String)


def suspect_table(findings: Findings, catalog: Catalog, labels: Labels | None) -> pl.DataFrame:
    """Return every suspect of every modality, least trusted first. Only the detailed ones have owners and a reason."""
    return pl.concat([_suspects(name, findings, catalog, labels) for name in sorted(findings.judged)])


def _suspects(name: str, findings: Findings, catalog: Catalog, labels: Labels | None) -> pl.DataFrame:
    judged, searched = findings.judged[name], findings.searched[name]
    rows, unknown = judged.listed.rows, np.full(len(judged.current), np.nan, np.float32)
    by_hand = {} if labels is None else dict(zip(labels.rows[name].tolist(), labels.is_mismatch[name], strict=True))
    suspects = _items(name, rows, catalog).with_columns(
        pl.int_range(1, pl.len() + 1).alias("rank"),
        _values("probability", judged.trust.probability[rows]),
        _values("probability_recalibrated", (judged.current if judged.recalibration is not None else unknown)[rows]),
        pl.Series("false_alarm_share_so_far", judged.expected),
        pl.Series("false_alarm_share_at_most", judged.at_most),
        _values("behaviour", judged.trust.behaviour[rows]),
        _values("cross_modal", judged.trust.cross_modal[rows]),
        _values("moved", judged.moved[rows]),
        pl.Series("interactions", findings.interactions[rows]),
        pl.Series("reliability", findings.reliability[rows]),
        pl.Series("is_mismatch_by_hand", [by_hand.get(row) for row in rows.tolist()], dtype=pl.Boolean),
    )
    details = pl.DataFrame(
        [
            *_suggestions("owner", searched.owners, catalog),
            catalog.column("item_id", searched.clear).alias("clear_owner_id"),
            pl.Series("reason", reasons(name, findings, catalog), dtype=pl.String),
        ]
    )
    return pl.concat([suspects, details], how="horizontal_extend")


def feature_table(findings: Findings, catalog: Catalog) -> pl.DataFrame:
    """Return whose feature each detailed suspect may have lost, best first, and that feature's weight in the plan."""
    parts = []
    for name, searched in sorted(findings.searched.items()):
        rows = searched.features.rows
        columns = [
            pl.int_range(1, pl.len() + 1).alias("rank"),
            _values("probability", findings.judged[name].current[rows]),
            *_suggestions("feature_of", searched.features, catalog),
            _lists("feature_of_plan_weights", searched.plan_weights, searched.features.others),
        ]
        parts.append(_items(name, rows, catalog).with_columns(columns))
    return pl.concat(parts)


def unjudged_table(findings: Findings, catalog: Catalog) -> pl.DataFrame:
    """Return every item without a probability in a modality, and why."""
    parts = []
    for name, judged in sorted(findings.judged.items()):
        rows = np.flatnonzero(judged.why >= 0)
        why = pl.Series("why", WHY).gather(judged.why[rows])
        parts.append(_items(name, rows, catalog).select("item_id", "modality", why))
    return pl.concat(parts)


def placeholder_table(findings: Findings, catalog: Catalog) -> pl.DataFrame:
    """Return the members of every group of unlike items that share one feature, largest group first."""
    parts = []
    for name, judged in sorted(findings.judged.items()):
        copies = judged.copies
        rows = np.flatnonzero(copies.placeholder)
        rows = rows[np.argsort(copies.group[rows], kind="stable")]
        group = copies.group[rows]
        sizes = np.bincount(copies.group[copies.group >= 0], minlength=1)
        columns = [
            pl.Series("group", group),
            pl.Series("items_in_group", sizes[group]),
            _values("likeness", copies.likeness[group]),
        ]
        parts.append(_items(name, rows, catalog).with_columns(columns))
    return pl.concat(parts)


def hand_check_table(findings: Findings, catalog: Catalog) -> pl.DataFrame:
    """Return the items to check, in the order drawn, with what a person judges by.

    It holds no estimate, so that the verdict is the person's own.
    """
    parts, more = [], [x for x in ("text", "picture") if catalog.has(x)]
    for name, judged in sorted(findings.judged.items()):
        near = pl.Series([catalog.names(rows[:NUM_SHOWN]) for rows in findings.drawn_buyers[name]], dtype=_TEXTS)
        columns = [catalog.column(x, judged.drawn) for x in more]
        empty = pl.lit(None, pl.String).alias("is_mismatch")
        table = _items(name, judged.drawn, catalog).with_columns(*columns, near.alias("nearest_by_behaviour"), empty)
        parts.append(table)
    return pl.concat(parts)


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write ``table`` atomically. Raises StorageError."""
    write_whole(path, lambda place: table.write_parquet(place, compression="zstd"), way_out=WAY_OUT)


def write_csv(path: Path, table: pl.DataFrame) -> None:
    """Write ``table`` atomically, lists joined by `` | ``, text guarded against formulas. Raises StorageError."""
    flat = table.with_columns(_joined(name, kind) for name, kind in table.schema.items() if isinstance(kind, pl.List))
    safe = flat.with_columns(pl.col(pl.String).map_elements(guarded, return_dtype=pl.String))
    write_whole(path, safe.write_csv, way_out=WAY_OUT)


def _joined(name: str, kind: pl.List) -> pl.Expr:
    parts = pl.element().round(4).cast(pl.String) if kind.inner.is_float() else pl.element().cast(pl.String)
    return pl.col(name).list.eval(parts.fill_null("")).list.join(" | ")


def _items(name: str, rows: Int64, catalog: Catalog) -> pl.DataFrame:
    labels = [catalog.column(part, rows) for part in ("item_id", "title", "category")]
    return pl.DataFrame(labels).select(pl.lit(name).alias("modality"), pl.all())


def _suggestions(prefix: str, suggestions: Suggestions, catalog: Catalog) -> list[pl.Series]:
    others = suggestions.others
    return [
        _lists(f"{prefix}_ids", catalog.column("item_id", others.ravel()), others),
        _lists(f"{prefix}_titles", catalog.column("title", others.ravel()), others),
        _lists(f"{prefix}_probabilities", suggestions.probability, others),
        _lists(f"{prefix}_cosines", suggestions.cosine, others),
        _lists(f"{prefix}_log_likelihood_ratios", suggestions.evidence, others),
    ]


def _lists(name: str, values: Float32 | pl.Series, others: Int64) -> pl.Series:
    """Return a list column with each row's values [S, K] where ``others`` [S, K] is not -1."""
    flat = values if isinstance(values, pl.Series) else pl.Series(values.ravel())
    rows = np.arange(len(others)).repeat(others.shape[1])
    table = pl.DataFrame({"row": rows, name: flat, "kept": others.ravel() >= 0})
    return table.group_by("row", maintain_order=True).agg(pl.col(name).filter("kept"))[name]


def _values(name: str, values: Float32 | Float64) -> pl.Series:
    return pl.Series(name, values).fill_nan(None)

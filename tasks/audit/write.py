"""An audit's output: tables for programs and spreadsheets, one page for people, and one JSON object with every count.

In the folder: ``suspects``, ``suggested_features`` (``.parquet`` and ``.csv``), ``unjudged.parquet``, ``placeholders.parquet``,
``hand_check.csv`` if asked for, ``audit.json`` and ``audit.html``. The tables hold every row; the page and its JSON twin have a constant
size. Nothing is published.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.audit.explanations import Catalog
from tasks.audit.facts import gallery, placeholder_groups, summarise
from tasks.audit.findings import Findings, find
from tasks.audit.inputs import AuditInputs, AuditOptions
from tasks.audit.labels import read_labels
from tasks.audit.page import render_audit
from tasks.audit.rows import feature_table, hand_check_table, placeholder_table, suspect_table, unjudged_table
from tasks.audit.tables import write_csv, write_parquet, write_text
from tasks.report.page_templates import fit_page


def write_audit(folder: Path, inputs: AuditInputs, options: AuditOptions) -> dict[str, Any]:
    """Find the suspects, write everything into ``folder``, and return the counts with the paths.

    Raises InputError for labels that cannot be used, StorageError if a file cannot be written.
    """
    labels = None if options.labels is None else read_labels(options.labels, inputs.source, list(inputs.modalities))
    found, catalog = find(inputs, options, labels), Catalog(inputs.source)
    summary = summarise(inputs, options, labels, found)
    suspects, features = suspect_table(found, catalog, labels), feature_table(found, catalog)
    for name, table in (("suspects", suspects), ("suggested_features", features)):
        write_parquet(folder / f"{name}.parquet", table)
        write_csv(folder / f"{name}.csv", table)
    write_parquet(folder / "unjudged.parquet", unjudged_table(found, catalog))
    write_parquet(folder / "placeholders.parquet", placeholder_table(found, catalog))
    if options.hand_check:
        write_csv(folder / "hand_check.csv", hand_check_table(found, catalog))
    _write_page(folder, summary, found, catalog)
    return {**summary, "out": str(folder), "page": str(folder / "audit.html")}


def _write_page(folder: Path, summary: dict[str, Any], found: Findings, catalog: Catalog) -> None:
    facts = {
        **summary,
        "pictures": catalog.has_pictures,
        "galleries": {name: gallery(name, found, catalog) for name in summary["modalities"]},
        "placeholder_groups": {name: placeholder_groups(found.judged[name], catalog) for name in summary["modalities"]},
    }
    text, page = fit_page(facts, list(facts["galleries"].values()), render_audit)
    write_text(folder / "audit.json", text)
    write_text(folder / "audit.html", page)

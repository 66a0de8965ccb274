"""Write an audit: tables with every row, a page for people, and a JSON file with the page's content. Nothing is published.

Files: ``suspects`` and ``suggested_features`` (``.parquet`` and ``.csv``), ``unjudged.parquet``, ``placeholders.parquet``,
``hand_check.csv`` if asked for, ``audit.json`` and ``audit.html``. The last two do not grow with the catalog.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.audit.facts import gallery, hand_check_gallery, placeholder_groups, summarise
from tasks.audit.findings import find
from tasks.audit.inputs import AuditInputs, AuditOptions
from tasks.audit.labels import read_labels
from tasks.audit.page import render_audit
from tasks.audit.tables import (
    WAY_OUT,
    feature_table,
    hand_check_table,
    placeholder_table,
    suspect_table,
    unjudged_table,
    write_csv,
    write_parquet,
)
from tasks.report.catalog import Catalog
from tasks.report.page_templates import fit_page
from tasks.store.atomic_files import write_text


def write_audit(folder: Path, inputs: AuditInputs, options: AuditOptions) -> dict[str, Any]:
    """Find the suspects, write everything into ``folder``, and return the counts with the paths.

    Raises InputError for labels that cannot be used, StorageError if a file cannot be written.
    """
    labels = None if options.labels is None else read_labels(options.labels, inputs.source, list(inputs.modalities))
    findings, catalog = find(inputs, options, labels), Catalog(inputs.source)
    tables = {
        "suspects": suspect_table(findings, catalog, labels),
        "suggested_features": feature_table(findings, catalog),
    }
    for name, table in tables.items():
        write_parquet(folder / f"{name}.parquet", table)
        write_csv(folder / f"{name}.csv", table)
    write_parquet(folder / "unjudged.parquet", unjudged_table(findings, catalog))
    write_parquet(folder / "placeholders.parquet", placeholder_table(findings, catalog))
    if options.hand_check:
        write_csv(folder / "hand_check.csv", hand_check_table(findings, catalog))
    summary = summarise(inputs, options, labels, findings)
    facts = {
        **summary,
        "pictures": catalog.has("picture"),
        "galleries": {m: gallery(m, findings, catalog) for m in summary["modalities"]},
        "hand_check_galleries": {m: hand_check_gallery(m, findings, catalog) for m in summary["modalities"]},
        "placeholder_groups": {m: placeholder_groups(findings.judged[m], catalog) for m in summary["modalities"]},
    }
    lists = [*facts["galleries"].values(), *facts["hand_check_galleries"].values()]
    text, page = fit_page(facts, lists, render_audit)
    write_text(folder / "audit.json", text, way_out=WAY_OUT)
    write_text(folder / "audit.html", page, way_out=WAY_OUT)
    return {**summary, "out": str(folder), "page": str(folder / "audit.html")}

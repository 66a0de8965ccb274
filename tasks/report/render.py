"""The run report: one self-contained HTML file, and ``report.json`` beside it with the same numbers.

Both have a constant size in the number of items: counts, histograms, curves of at most 200 points, at most 50 suspects per modality. The
page is rendered from the JSON text, so the two cannot differ. ``tasks.report.facts`` documents the shape.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from jinja2 import Template
from markupsafe import Markup

from tasks.report import figures
from tasks.report.facts import gather_facts
from tasks.report.inputs import ReportInputs
from tasks.report.page_templates import fit_page, page_environment
from tasks.report.summaries import Facts
from tasks.store.atomic_files import write_text

FIRST_SUSPECTS = 10


def write_report(folder: Path, inputs: ReportInputs) -> Path:
    """Write ``report.json``, then ``report.html`` into ``folder``, each atomically, and return the page's path.

    With very many modalities the page lists fewer suspects of each. Raises StorageError if a file cannot be written, and OSError or
    KeyError if a stage output lacks a file or a field.
    """
    facts = gather_facts(inputs)
    plots = draw_plots(facts)
    text, page = fit_page(facts, [x["suspects"] for x in facts["modalities"]], lambda twin: render_page(twin, plots))
    write_text(folder / "report.json", text)
    write_text(folder / "report.html", page)
    return folder / "report.html"


def render_page(facts: Facts, plots: dict[str, str] | None = None) -> str:
    """One HTML document without scripts that fetches nothing; every string from ``facts`` is escaped.

    ``plots`` is the result of ``draw_plots(facts)`` if the caller has it already.
    """
    plots = draw_plots(facts) if plots is None else plots
    page = _template().render(
        facts=facts,
        plots={name: Markup(plot) for name, plot in plots.items()},
        config=json.dumps(facts["config"], indent=2, sort_keys=True, ensure_ascii=False),
        first_suspects=FIRST_SUSPECTS,
        hub_names={which: label for which, label, _, _ in figures.HUB_SERIES},
    )
    return page.lstrip()


@cache
def _template() -> Template:
    environment = page_environment()
    environment.globals["sparkline"] = lambda values: Markup(figures.sparkline(values))
    return environment.get_template("report.html.j2")


def draw_plots(facts: Facts) -> dict[str, str]:
    """The SVG of every plot that has data, by the name that the template uses."""
    anchors, trend, plots = facts["anchors"], facts["trend"], {}
    if anchors["loss"]["length"]:
        plots["loss"] = figures.anchor_loss(facts)
    if anchors["recall"]["length"] > 1:
        plots["recall"] = figures.anchor_recall(facts)
    for index, modality in enumerate(trend["modalities"] if len(trend["days"]) > 1 else ()):
        for name, column, draw in (
            ("rate", "mismatch_rate", figures.trend_rate),
            ("drift", "drift", figures.trend_drift),
        ):
            if any(value is not None for value in modality[column]):
                plots[f"t{index}-{name}"] = draw(trend, modality, f"t{index}-{name}")
    for index, modality in enumerate(facts["modalities"]):
        for name, draw_one, data in (
            ("alignment", figures.alignment, modality["alignment"]["matched"]["total"]),
            ("trust", figures.trust, modality["trust"]["histogram"]["total"]),
            ("hubs", figures.hubs, any(modality["hubs"].values())),
            ("balance", figures.balance, modality["balance"]["errors"]["length"]),
        ):
            if data:
                plots[f"m{index}-{name}"] = draw_one(modality, f"m{index}")
    return plots

"""The report's page: a pure function of its facts, so it cannot show a number that the JSON twin does not hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from tasks.report import figures
from tasks.report import phrases as words
from tasks.report.page_templates import page_environment
from tasks.report.summaries import Facts

FIRST_SUSPECTS = 10


def render_page(facts: Facts, plots: dict[str, str] | None = None) -> str:
    """One self-contained HTML document: no script, nothing fetched; every string from ``facts`` escaped.

    ``plots`` are what ``draw_plots`` gives for the same facts, if the caller has them already.
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
    environment.filters |= {
        "duration": words.duration,
        "size": words.size,
        "compared": words.compared,
        "evidence": words.evidence_phrase,
    }
    environment.globals |= {name: getattr(words, name) for name in ("plan_name", "plural", "jump_phrase")}
    environment.globals["sparkline"] = lambda values: Markup(figures.sparkline(values))
    return environment.get_template("report.html.j2")


def draw_plots(facts: Facts) -> dict[str, str]:
    """The SVG of every plot that has something to draw, by a name the template knows."""
    plots: dict[str, str] = {}
    if facts["anchors"]["loss"]["length"]:
        plots["loss"] = figures.anchor_loss(facts)
    if facts["anchors"]["recall"]["length"] > 1:
        plots["recall"] = figures.anchor_recall(facts)
    for index, modality in enumerate(facts["trend"]["modalities"] if len(facts["trend"]["days"]) > 1 else ()):
        plots |= dict(_trend_plots(facts["trend"], modality, f"t{index}"))
    for index, modality in enumerate(facts["modalities"]):
        plots |= {f"m{index}-{name}": plot for name, plot in _modality_plots(modality, f"m{index}")}
    return plots


def _modality_plots(modality: dict[str, Any], key: str) -> list[tuple[str, str]]:
    drawn = [
        ("alignment", figures.alignment, modality["alignment"]["matched"]["total"]),
        ("trust", figures.trust, modality["trust"]["histogram"]["total"]),
        ("hubs", figures.hubs, any(modality["hubs"].values())),
        ("balance", figures.balance, modality["balance"]["errors"]["length"]),
    ]
    return [(name, draw(modality, key)) for name, draw, something in drawn if something]


def _trend_plots(trend: Facts, modality: Facts, key: str) -> Iterator[tuple[str, str]]:
    if any(rate is not None for rate in modality["mismatch_rate"]):
        yield f"{key}-rate", figures.trend_rate(trend, modality, f"{key}-rate")
    if any(drift is not None for drift in modality["drift"]):
        yield f"{key}-drift", figures.trend_drift(trend, modality, f"{key}-drift")

"""The audit's page: a pure function of its JSON twin, so it cannot show a number that the twin does not hold."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from tasks import report_words as words

FOLDER = Path(__file__).parent / "templates"
FIRST_CARDS = 12


def render_audit(facts: dict[str, Any]) -> str:
    """One HTML document without scripts, every string from ``facts`` escaped; only pictures that the catalog names are fetched."""
    return _template().render(facts=facts, first_cards=FIRST_CARDS).lstrip()


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "count": words.count,
        "percent": words.percent,
        "number": words.number,
        "fixed": words.fixed,
        "trust": words.trust,
        "rate_phrase": words.rate_phrase,
        "stretch": words.stretch_phrase,
    }
    environment.globals |= {"share_of": words.share_of}
    return environment.get_template("audit.html.j2")

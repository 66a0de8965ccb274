"""The audit's page: a pure function of its JSON twin, so it cannot show a number that the twin does not hold."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Template

from tasks.report.page_templates import page_environment

FIRST_CARDS = 12


def render_audit(facts: dict[str, Any]) -> str:
    """One HTML document without scripts, every string from ``facts`` escaped; only pictures that the catalog names are fetched."""
    return _template().render(facts=facts, first_cards=FIRST_CARDS).lstrip()


@cache
def _template() -> Template:
    return page_environment().get_template("audit.html.j2")

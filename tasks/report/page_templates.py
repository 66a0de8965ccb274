"""What the report's, the audit's and the evaluation's pages share: their templates, the text filters, the limit on size."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.report import phrases

FOLDER = Path(__file__).parent / "templates"
MAX_BYTES = 2_000_000


def page_environment() -> Environment:
    """A new Jinja environment that escapes every string and refuses unknown names."""
    loader = FileSystemLoader(FOLDER)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = ("count", "percent", "number", "compared", "fixed", "trust", "duration", "size", "rate_phrase")
    environment.filters |= {name: getattr(phrases, name) for name in filters}
    environment.filters |= {"stretch": phrases.stretch_phrase, "evidence": phrases.evidence_phrase}
    functions = ("share_of", "plan_name", "plural", "jump_phrase")
    environment.globals |= {name: getattr(phrases, name) for name in functions}
    return environment


def fit_page(
    facts: dict[str, Any], lists: Sequence[list[Any]], render: Callable[[dict[str, Any]], str]
) -> tuple[str, str]:
    """The JSON text of ``facts`` and the page that ``render`` makes of it, at most 2 MB: ``lists`` in ``facts`` are cut until it fits."""
    longest = max(map(len, lists), default=0)
    while True:
        text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        page = render(json.loads(text))
        if len(page.encode()) <= MAX_BYTES or not longest:
            return text, page
        longest //= 2
        for items in lists:
            del items[longest:]

"""The templates of the pages, and the words that every one of them may use."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.report import phrases as words

FOLDER = Path(__file__).parent / "templates"


def page_environment() -> Environment:
    """A fresh environment: everything escaped, an unknown name an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(words, name) for name in ("count", "percent", "number", "fixed", "trust", "rate_phrase")
    }
    environment.filters["stretch"] = words.stretch_phrase
    environment.globals["share_of"] = words.share_of
    return environment

"""The audit's page, rendered from the facts in ``audit.json`` alone, and the picture addresses that it may show."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Template
from markupsafe import Markup

from tasks.audit.explanations import none_listed
from tasks.report.page_templates import FOLDER, page_environment

FIRST_CARDS = 12
LONGEST_URL = 2_000
LONGEST_INLINE = 20_000
# A valid address has these escaped; unescaped ones are an attempt to end the attribute.
NO_ADDRESS = frozenset('"\\`')
# No SVG, because it can hold scripts.
_INLINE = re.compile(r"data:image/(?:png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/]+={0,2}")


def safe_picture(value: str | None) -> str | None:
    """``value`` if the page may show it: an http(s) address or an inlined bitmap. None for paths, other schemes, passwords, long values."""
    text = (value or "").strip()
    if len(text) <= LONGEST_INLINE and _INLINE.fullmatch(text):
        return text
    if len(text) > LONGEST_URL or any(c.isspace() or not c.isprintable() or c in NO_ADDRESS for c in text):
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    safe = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.password is None
    return text if safe else None


def render_audit(facts: dict[str, Any]) -> str:
    """One HTML document. Every string from ``facts`` is escaped, and it fetches only pictures that the catalog names.

    Its policy allows one script by its digest: the one that keeps the marks of right and wrong.
    """
    script = (FOLDER / "audit.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {"script": Markup(script), "script_hash": f"sha256-{digest}"}
    return _template().render(facts=facts, first_cards=FIRST_CARDS, **values).lstrip()


@cache
def _template() -> Template:
    environment = page_environment()
    environment.filters["none_listed"] = none_listed
    return environment.get_template("audit.html.j2")

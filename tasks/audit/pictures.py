"""Which picture addresses a page may show: fetched by https or http, or inlined as a bitmap; anything else is left out."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

LONGEST_URL = 2_000
LONGEST_INLINE = 20_000
# No address has these unescaped; one that does was meant to end an attribute.
NO_ADDRESS = frozenset('"\\`')
# SVG is a document that can hold scripts: never.
_INLINE = re.compile(r"data:image/(?:png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/]+={0,2}")


def safe_picture(value: str | None) -> str | None:
    """``value`` if a page may show it, None for paths, other schemes, addresses with a password, and what is too long."""
    if value is None:
        return None
    text = value.strip()
    if len(text) <= LONGEST_INLINE and _INLINE.fullmatch(text):
        return text
    if len(text) > LONGEST_URL or any(c.isspace() or not c.isprintable() or c in NO_ADDRESS for c in text):
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    return (
        text
        if parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.password is None
        else None
    )

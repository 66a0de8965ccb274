"""Text in a CSV that no spreadsheet takes for a formula."""

from __future__ import annotations

# A spreadsheet runs a cell that starts so. An apostrophe before it makes it text.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def guarded(text: str) -> str:
    """Return ``text`` with an apostrophe before a formula, and before what ``unguarded`` would change."""
    return f"'{text}" if text.startswith(FORMULA) or unguarded(text) != text else text


def unguarded(text: str) -> str:
    """Return the text that ``guarded`` got."""
    return text[1:] if text.startswith("'") and text[1:].startswith((*FORMULA, "'")) else text

"""Types and settings that every config class shares.

A config class is a pydantic dataclass: frozen, with keyword arguments only, and strict about numbers. ``true`` and ``"5"`` are no numbers.
A value that does not fit raises ``pydantic.ValidationError``, which is a ``ValueError``; ``explain`` makes one line of it.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

# A value may hold a secret, so errors do not repeat it unless `explain` does.
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
Int = Annotated[int, Field(strict=True)]
Float = Annotated[float, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
OpenShare = Annotated[float, Field(strict=True, gt=0, lt=1)]
Positive = Annotated[float, Field(strict=True, gt=0)]
NotNegative = Annotated[float, Field(strict=True, ge=0)]
Text = Annotated[str, Field(pattern=r"\S")]

UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
WANTED = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:g}",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_pattern_mismatch": "text that matches {pattern}",
    "literal_error": "{expected}",
    "tuple_type": "a list",
    "too_short": "at least {min_length} of them",
    "dict_type": "a table",
    "mapping_type": "a table",
    "dataclass_type": "a table",
}
"""What each kind of error of pydantic wanted. A kind that is not listed keeps pydantic's own words."""


SHOWN = 3
"""Mistakes that one line names; it counts the others."""


def explain(error: ValidationError, kind: Any, key: str = "") -> str:
    """One line for the first mistakes, each as ``section.key: wanted ..., got ...``, and how many more there are.

    ``kind`` is the config class that refused, and ``key`` the dotted name of its table.
    """
    lines = mistakes(error, kind, key)
    more = len(lines) - SHOWN
    return "; ".join(lines[:SHOWN]) + (f" (and {more} more)" if more > 0 else "")


def mistakes(error: ValidationError, kind: Any, key: str = "") -> list[str]:
    """Every mistake as a line. Unknown keys come first, then missing ones: a misspelled key is often both."""
    ordered = sorted(error.errors(), key=lambda x: (x["type"] not in UNKNOWN, not x["type"].startswith("missing")))
    names = [".".join([*([key] if key else []), *(str(x) for x in each["loc"] if x != "[key]")]) for each in ordered]
    return list(dict.fromkeys(_line(each, name, kind) for each, name in zip(ordered, names, strict=True)))


def _line(mistake: Any, name: str, kind: Any) -> str:
    if mistake["type"] in UNKNOWN:
        *tables, last = mistake["loc"]
        for table in tables:
            kind = kind.__pydantic_fields__[table].annotation
        near = difflib.get_close_matches(str(last), kind.__pydantic_fields__, n=1)
        return f"{name}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
    if mistake["type"].startswith("missing"):
        return f"{name}: missing, and it has no default"
    if mistake["type"] == "value_error":
        # A check of one key says "wanted ..."; a check across keys begins with the key that is wrong.
        text = str(mistake["ctx"]["error"])
        across_keys = re.match(r"[^\s:]+( \+ \w+)?: ", text)
        return (f"{name}.{text}" if across_keys else f"{name}: {text}") if name else text
    if mistake["type"] == "string_pattern_mismatch" and mistake["ctx"]["pattern"] == r"\S":
        return f"{name}: must not be empty; leave it out if there is none"
    wanted = WANTED.get(mistake["type"])
    if wanted is None:
        return f"{name}: {mistake['msg']}"
    given = json.dumps(mistake["input"], default=str)
    return f"{name}: wanted {wanted.format_map(mistake.get('ctx') or {})}, got {given[:80]}"

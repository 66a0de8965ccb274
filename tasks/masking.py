"""Mask credentials in logs, errors, reports and events."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "•••"
_SECRET = r"[\w.-]*(?:secret|passw|token|credential|access.?key|account.?key|api.?key|private.?key|auth.?string|authorization|signature)[\w.-]*"
_SECRET_KEY = re.compile(_SECRET, re.IGNORECASE)
_SECRET_PAIR = re.compile(rf"((?:^|[?&;,\s]){_SECRET}\s*=\s*)[^&;\s]+", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
_SHORTEST = 6


def is_secret_name(name: str) -> bool:
    """Return whether a key or an environment variable of that name is likely to hold a credential."""
    return _SECRET_KEY.fullmatch(name) is not None


def mask_credentials(value: Any) -> Any:
    """Return ``value`` with credentials masked: values of such keys, ``key=value`` pairs in text, user info in addresses."""
    if isinstance(value, Mapping):
        return {
            key: MASK if is_secret_name(str(key)) and inner not in (None, "", True, False) else mask_credentials(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [mask_credentials(inner) for inner in value]
    if isinstance(value, str):
        return _USER_INFO.sub(f"{MASK}@", _SECRET_PAIR.sub(rf"\g<1>{MASK}", value))
    return value


def masked(text: str) -> str:
    """Return ``text`` with credentials and the values of secret environment variables masked."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and value in text and is_secret_name(name):
            text = text.replace(value, MASK)
    return str(mask_credentials(text))

"""A run config file as plain values: TOML, overrides from the command line, and relative paths made absolute."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.errors import InputError

PATHS = (
    ("source", "catalog"),
    ("source", "interactions"),
    ("publish", "uri"),
    ("run", "folder"),
    ("feature_store", "folder"),
    ("evaluation", "out"),
    ("evaluation", "evidence"),
)
DEFAULT_FOLDERS = {"run": "runs", "feature_store": "feature_store"}


def read_config(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The values of ``path`` with ``a.b=value`` overrides applied; paths in it become absolute, relative ones to the file's folder.

    A value is read as TOML (``0.5``, ``true``, ``"text"``, ``[1, 2]``) and as plain text when it is not. Raises InputError naming the
    file or key.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: the config cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error
    for override in overrides:
        _override(values, override)
    base = path.resolve().parent
    for table, folder in DEFAULT_FOLDERS.items():
        section = values.setdefault(table, {})
        if isinstance(section, dict):
            section.setdefault("folder", folder)
    for table, key in PATHS:
        section = values.get(table)
        if isinstance(section, dict) and isinstance(section.get(key), str) and section[key].strip():
            section[key] = absolute(section[key], base)
    return values


def absolute(place: str, base: Path) -> str:
    """``place`` as it is when it is a URI or absolute, else below ``base``; ``..`` is resolved without following links."""
    return place if "://" in place else os.path.normpath(base / Path(place).expanduser())


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not separator or not all(names):
        raise InputError(f"--set {override}: wanted a.b=value")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    section = values
    for name in names[:-1]:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise InputError(f"--set {override}: {name} is a value, not a table")
    section[names[-1]] = value

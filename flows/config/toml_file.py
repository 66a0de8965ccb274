"""A run config file as plain values: TOML, overrides from the command line, and relative paths made absolute."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator
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
WRITTEN = (("publish", "uri"), ("run", "folder"))
LONGEST_NAME, LONGEST_PATH = 255, 3_000
DEFAULT_FOLDERS = {"run": "runs", "feature_store": "feature_store"}
# user:password@ of a URI, an AWS key id, or a named secret within a text.
CREDENTIALS = re.compile(
    r"://[^/\s]*@|\b(AKIA|ASIA)[A-Z0-9]{12,}\b|[?&](?i:(aws_)?(secret|password|access_key|session_token|token))[a-z_]*="
)


def read_config(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The values of ``path`` with ``a.b=value`` overrides applied; paths in it become absolute, relative ones to the file's folder.

    A value is read as TOML (``0.5``, ``true``, ``"text"``, ``[1, 2]``) and as plain text when it is not. Raises InputError naming the
    file or key.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: the config cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error
    for override in overrides:
        _override(values, override)
    for key, text in _texts(values, ()):
        _check_text(path, key, text)
    base = path.resolve().parent
    for table, folder in DEFAULT_FOLDERS.items():
        section = values.setdefault(table, {})
        if isinstance(section, dict):
            section.setdefault("folder", folder)
    for table, key in PATHS:
        section = values.get(table)
        if isinstance(section, dict) and isinstance(section.get(key), str) and section[key].strip():
            try:
                section[key] = absolute(section[key], base)
            except RuntimeError as error:
                raise InputError(f"{path}: {table}.{key}: {section[key]!r} names the home of nobody here") from error
            _check_place(path, f"{table}.{key}", section[key], written=(table, key) in WRITTEN)
    return values


def absolute(place: str, base: Path) -> str:
    """``place`` as it is when it is a URI or absolute, else below ``base``; ``..`` is resolved without following links."""
    return place if "://" in place else os.path.normpath(base / Path(place).expanduser())


def _texts(value: Any, key: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Every text in the config, names of keys too, with the dotted key that it stands at."""
    if isinstance(value, str):
        yield ".".join(key), value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield ".".join(key) or "the file", name
            yield from _texts(inner, (*key, name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)


def _check_text(path: Path, key: str, text: str) -> None:
    """Refuse what no key may hold. A config is copied into reports and logs, so a secret must not be in it, nor repeated here."""
    if CREDENTIALS.search(text):
        raise InputError(
            f"{path}: {key}: holds credentials; take them out, and give them by the environment (AWS_ACCESS_KEY_ID and so on)"
        )
    if "\0" in text:
        raise InputError(f"{path}: {key}: holds a NUL character; take it out")


def _check_place(path: Path, key: str, place: str, *, written: bool) -> None:
    """Refuse a local place that no file can lie at; one that is written to must not lie below a file."""
    if "://" in place:
        return
    if len(os.fsencode(place)) > LONGEST_PATH or any(len(os.fsencode(x)) > LONGEST_NAME for x in Path(place).parts):
        raise InputError(f"{path}: {key}: {place[:80]}... is longer than a path may be; choose a shorter one")
    above = next((x for x in (Path(place), *Path(place).parents) if x.exists()), None)
    if written and above is not None and not above.is_dir():
        raise InputError(f"{path}: {key}: {above} is no folder; choose another place")


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

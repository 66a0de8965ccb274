"""Writes docs/configuration.md from the config dataclasses: every key, its type, its default, and what its docstring says of it.

PYTHONPATH=. python docs/config_reference.py > docs/configuration.md      (make docs)
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic_core import PydanticUndefined

from flows.config.run_config import RunConfig
from flows.config.toml_file import DEFAULT_FOLDERS

OPENING = """# Configuration

Generated from the code by `make docs`; a test holds it to the code. A run is told everything by one TOML file; the least that works is
in the [README](../README.md#on-your-catalog). Relative paths are relative to that file. An unknown key, a value of the wrong type and
one out of range are refused in one line that names the key, before anything is read. `--set section.key=value` overrides a key for
one run, the value read as TOML where it is TOML and as plain text where it is not.

What shapes the published rows is part of a run's identity: change it, and the day is published anew. `[publish]`, `[run]` and
`[resources]` are not, `[evaluation]` is only by its shadow, and `[incremental]` by what a night stands on.

| top-level key | type | default | meaning |
|---|---|---|---|
"""
SHARED = {
    "seed": "Every draw of every stage comes from it: the same inputs, config and seed give the same bytes on the CPU.",
    "block_rows": "Rows read at a time; `[resources] memory` may cut it. Bounds memory and changes no published byte.",
    "epochs": "Passes over the training pairs, at most.",
    "embedding_size": "Numbers an anchor has.",
    "num_layers": "Layers of propagation over the interaction graph.",
    "weight_decay": "Weight of the squared parameters in the loss.",
    "learning_rate": "Step size.",
    "num_neighbours": "Best-fitting features that are kept an item: K.",
    "max_iterations": "Balancing passes, at most; a graph that has no balance within tolerance is told apart from a slow one.",
    "mix": "How much of an item's own feature stays: by how far it is trusted, or the same share for all.",
    "folds": "Parts of the items of which one is always left out of the fit that judges it.",
    "seeds": "Seeds of every cell of the grid.",
}
"""Of keys that mean the same wherever they stand, and that a docstring need not say again."""
FILLED = {(section, "folder"): f'`"{name}"` beside the config' for section, name in DEFAULT_FOLDERS.items()}
"""What is filled in before the config is checked."""


def page() -> str:
    """The whole page as Markdown."""
    top, parts = [], []
    for name, field in RunConfig.model_fields.items():
        config = field.annotation
        if is_dataclass(config):
            parts += section(name, config)
        else:
            top.append(_row(name, _type(config), _default(field.default), meaning(RunConfig, name)))
    return OPENING + "\n".join(top) + "\n\n" + "\n".join(parts)


def section(name: str, config: Any) -> Iterator[str]:
    """The heading, summary and table of one section, then those of the tables within it."""
    hints = get_type_hints(config)
    nested = {x.name: hints[x.name] for x in fields(config) if is_dataclass(hints[x.name])}
    yield f"## [{name}]\n"
    summary = _paragraphs(config)[0]
    if not re.match(r"(Hyperparameters|Bounds|``)", summary):
        yield _shown(summary) + "\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for field in fields(config):
        if field.name not in nested:
            default = FILLED.get((name, field.name)) or _default_of(field)
            yield _row(field.name, _type(hints[field.name]), default, meaning(config, field.name))
    yield ""
    for key, inner in nested.items():
        yield from section(f"{name}.{key}", inner)


def meaning(config: Any, name: str) -> str:
    """The sentences of the config's docstring that name the key; what the key means everywhere, where there are none."""
    sentences = [x for paragraph in _paragraphs(config) for x in _sentences(paragraph)]
    said = " ".join(x for x in sentences if f"``{name}``" in x)
    said = said or SHARED.get(name, "") or " ".join(x for x in sentences if f"``{name} = " in x)
    return _shown(said)


def _paragraphs(config: Any) -> list[str]:
    return [" ".join(x.split()) for x in (inspect.getdoc(config) or "").split("\n\n")]


def _sentences(paragraph: str) -> list[str]:
    return re.split(r"(?<=\.) (?=[A-Z`])", paragraph)


def _shown(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _row(*cells: str) -> str:
    name, *rest = cells
    return f"| `{name}` | " + " | ".join(rest) + " |"


def _type(hint: Any) -> str:
    """A type as its TOML values look."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(x) for x in arguments if x is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{json.dumps(x)}`" for x in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "table"
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return plain.get(hint) or (
        _type(hint.__value__) if hasattr(hint, "__value__") else str(getattr(hint, "__name__", hint))
    )


def _default_of(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return _default(field.default_factory())
    return _default(field.default)


def _default(value: Any) -> str:
    if value is MISSING or value is PydanticUndefined:
        return "**required**"
    if value is None:
        return "not set"
    if isinstance(value, Mapping) and not value:
        return "empty"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


if __name__ == "__main__":
    print(page(), end="")

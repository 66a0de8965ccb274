"""Write docs/configuration.md from the config classes: every key, its type, its default and its description.

PYTHONPATH=. python docs/config_reference.py > docs/configuration.md      (make docs)
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from flows.config.run_config import RunConfig
from flows.config.toml_file import DEFAULT_FOLDERS

OPENING = """# Configuration

`make docs` generates this page from the code. One TOML file configures a run. The [README](../README.md#on-your-catalog) shows the smallest
one. Relative paths are relative to that file. An unknown key or a wrong value stops the run before it reads any data, with one line that
names the key. `--set section.key=value` overrides a key for one run. Its value is read as TOML, or as plain text where it is not TOML.

A change of a key that shapes the published rows publishes the day again. `[publish]`, `[run]` and `[resources]` do not shape them.
`[evaluation]` does only by its shadow, and `[incremental]` only by which previous run is used.
"""
GROUPS = {
    "what is read": ("source",),
    "what is published, kept and served": ("publish", "run", "feature_store", "alerts"),
    "what a run may use": ("resources", "incremental"),
    "the method, stage by stage": (
        *("anchors", "segments", "time_offset", "copies", "projection", "cross_modal", "affinity", "sinkhorn"),
        *("trust", "rectify"),
    ),
    "what stops a night": ("quality",),
    "what it is worth to recommenders": ("evaluation",),
}
FIRST = {
    "source.positive": "the log has ratings, or events of several kinds: only positive feedback says what an item is",
    "source.time_column": "the log has no `dt=` partitions, or you evaluate on later events",
    "source.lookback_days": "old behaviour misleads, or the log is large",
    "source.category_column": "you have one: rates and reports then separate swaps between similar items",
    "source.max_quarantined": "a known share of the rows is unusable, and the night should run all the same",
    "publish.keep_snapshots": "readers need more days, or the table takes too much room",
    "resources.memory": "the run shares its machine; a run that needs more memory is refused before it starts",
    "resources.device": "there is a GPU",
    "incremental.enabled": "nights take hours and little changes between them",
    "feature_store.enabled": "a Feast feature store serves the features",
}
HEADER = "| key | type | default | meaning |\n|---|---|---|---|"
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([OPENING, *first_keys(), *groups(), *section("", RunConfig)])


def first_keys() -> Iterator[str]:
    """The keys that matter first, with when to change each."""
    yield "## The ten keys to know\n\n`init` sets the columns that it finds. After them look at these.\n"
    yield "| key | default | change it when |\n|---|---|---|"
    for key, when in FIRST.items():
        table, _, name = key.partition(".")
        field = RunConfig.__pydantic_fields__[table].annotation.__pydantic_fields__[name]
        yield f"| `{key}` | {default(table, name, field)} | {when} |"
    yield ""


def groups() -> Iterator[str]:
    """Where which section is."""
    tables = [key for key, field in RunConfig.__pydantic_fields__.items() if is_dataclass(field.annotation)]
    assert sorted(tables) == sorted(x for names in GROUPS.values() for x in names)
    yield "## All keys\n\n| about | sections |\n|---|---|"
    for about, names in GROUPS.items():
        yield f"| {about} | {', '.join(f'[{x}](#{x})' for x in names)} |"
    yield ""


def section(name: str, config: Any) -> Iterator[str]:
    """The heading, summary and table of one section, then those of the tables within it."""
    keys = config.__pydantic_fields__.items()
    tables = {key: field.annotation for key, field in keys if is_dataclass(field.annotation)}
    if name:
        yield f"## [{name}]\n\n{' '.join(config.__doc__.split())}\n"
    yield HEADER
    for key, field in keys:
        if key not in tables:
            text = (field.description or "").replace("|", "\\|")
            yield f"| `{key}` | {type_name(field.annotation)} | {default(name, key, field)} | {text} |"
    yield ""
    order = [x for names in GROUPS.values() for x in names]
    for key, table in sorted(tables.items(), key=lambda x: order.index(x[0]) if x[0] in order else 0):
        yield from section(f"{name}.{key}" if name else key, table)


def type_name(hint: Any) -> str:
    """A type as its TOML values look."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(x) for x in arguments if x is not type(None))
    if origin is Literal:
        return ", ".join(f"`{json.dumps(x)}`" for x in arguments)
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    return "table" if origin is not None and issubclass(origin, Mapping) else PLAIN[hint]


def default(name: str, key: str, field: Any) -> str:
    """A key's default as TOML writes it."""
    value = field.get_default(call_default_factory=True)
    if key == "folder" and name in DEFAULT_FOLDERS:
        return f'`"{DEFAULT_FOLDERS[name]}"` beside the config'
    if value is PydanticUndefined:
        return "**required**"
    return {None: "not set", "{}": "empty"}.get(value if value is None else json.dumps(value), f"`{json.dumps(value)}`")


if __name__ == "__main__":
    print(page(), end="")

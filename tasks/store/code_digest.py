"""What code an output was made by: digests of source files, so that another version of it is another output."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import rectifier_core

_ROOT = Path(rectifier_core.__file__).parent
_EVALUATION = "rectifier_core.evaluation"


@cache
def code_digest() -> str:
    """A digest of every source file of ``rectifier_core`` that published rows depend on: all but ``evaluation/``."""
    return _digest(x for x in _ROOT.rglob("*.py") if "evaluation" not in x.relative_to(_ROOT).parts)


@cache
def worker_digest() -> str:
    """A digest of every source file of the core and of ``tasks``: what a cluster's workers must have the same of as the run."""
    return _digest({*_ROOT.rglob("*.py"), *Path(__file__).parents[1].rglob("*.py")})


@cache
def evaluation_digest(module: str) -> str:
    """A digest of ``rectifier_core.evaluation.<module>`` and of every file of ``evaluation/`` that it imports, however deep."""
    found: set[Path] = set()
    waiting = [_file(f"{_EVALUATION}.{module}")]
    while waiting:
        path = waiting.pop()
        if path is not None and path not in found:
            found.add(path)
            waiting += [_file(name) for name in _imports(path)]
    return _digest(found)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (x.name for x in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{x.name}" for x in node.names)


def _file(name: str) -> Path | None:
    """The source of a module of ``evaluation/``; None for any other."""
    if not f"{name}.".startswith(f"{_EVALUATION}."):
        return None
    path = _ROOT.joinpath(*name.split(".")[1:])
    for source in (path.with_suffix(".py"), path / "__init__.py"):
        if source.is_file():
            return source
    return None


def _digest(paths: Iterator[Path] | set[Path]) -> str:
    state = hashlib.blake2b(digest_size=12)
    for path in sorted(paths):
        state.update(str(path.relative_to(_ROOT.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()

"""Digests of source files: they are part of the key of an output, so another version of the code makes another output."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import rectifier_core

_CORE = Path(rectifier_core.__file__).parent
_EVALUATION = "rectifier_core.evaluation"


@cache
def code_digest() -> str:
    """The digest of every source file of the core that published rows depend on: all but `evaluation/`."""
    return _digest(path for path in _CORE.rglob("*.py") if "evaluation" not in path.relative_to(_CORE).parts)


@cache
def worker_digest() -> str:
    """The digest of every source file of the core and of `tasks`, which a cluster's workers must share with the run."""
    return _digest([*_CORE.rglob("*.py"), *Path(__file__).parents[1].rglob("*.py")])


@cache
def evaluation_digest(module: str) -> str:
    """The digest of `rectifier_core.evaluation.<module>` and of every file of `evaluation/` that it imports, also indirectly."""
    files: set[Path] = set()
    waiting = [_file(f"{_EVALUATION}.{module}")]
    while waiting:
        path = waiting.pop()
        if path is not None and path not in files:
            files.add(path)
            waiting += [_file(name) for name in _imports(path)]
    return _digest(files)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(name: str) -> Path | None:
    """The source file of a module of `evaluation/`, None for any other name."""
    if not f"{name}.".startswith(f"{_EVALUATION}."):
        return None
    path = _CORE.joinpath(*name.split(".")[1:])
    return next((x for x in (path.with_suffix(".py"), path / "__init__.py") if x.is_file()), None)


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(paths):
        digest.update(str(path.relative_to(_CORE.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()

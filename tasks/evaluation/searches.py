"""The settings that the searches of a grid chose: ``searches.json`` beside the results, and its tables and sentence in the report.

A search is an object with ``backbone``, ``seeds`` (that share its split) and the fields of ``rectifier_core.evaluation.search.Search``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.evaluation.grid import Cell
from tasks.evaluation.tables import DASH, Facts, Table
from tasks.store.atomic_files import write_text
from tasks.store.store import Ref

SEARCHES = "searches.json"


def write_searches(folder: Path, found: Mapping[Cell, Ref | str | None]) -> list[Facts]:
    """Write every search once as ``searches.json`` and return them. Raises StorageError if the file cannot be written."""
    refs: dict[tuple[str, str], Ref] = {}
    seeds: dict[tuple[str, str], set[int]] = {}
    for cell, ref in found.items():
        if isinstance(ref, Ref):
            key = (cell.backbone, ref.digest)
            refs[key] = ref
            seeds.setdefault(key, set()).add(cell.seed)
    searches: list[Facts] = [{"seeds": sorted(seeds[key]), **ref.meta} for key, ref in refs.items()]
    write_text(folder / SEARCHES, json.dumps(searches, indent=1, allow_nan=False) + "\n")
    return searches


def read_searches(results: Path) -> list[Facts]:
    """The searches beside ``results``; none where there is no file. Raises InputError for a file that is not theirs."""
    path = results.with_name(SEARCHES)
    if not path.exists():
        return []
    try:
        searches: list[Facts] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); run the evaluation again") from error
    return searches


def search_tables(searches: Sequence[Facts]) -> list[Table]:
    """What was chosen, and every candidate."""
    chosen = tuple(
        (
            x["backbone"],
            _seeds(x),
            _number(x["chosen"]["learning_rate"]),
            _number(x["chosen"]["weight_decay"]),
            _number(x["chosen"]["score"]),
            _setting(x["own"]),
            _number(x["own"]["score"]),
            "; ".join(x["edges"]) or DASH,
        )
        for x in searches
    )
    tried = tuple(
        (x["backbone"], _seeds(x), *(_number(c[name]) for name in ("learning_rate", "weight_decay", "epochs", "score")))
        for x in searches
        for c in sorted(x["candidates"], key=lambda c: (-c["epochs"], -(c["score"] or -1)))
    )
    return [
        Table(
            key="searches",
            title="Settings that were chosen on validation pairs",
            note="Every recommender was searched on training and validation pairs with raw, unchanged features; no test pair was read. All its "
            "features are trained with the same choice. Validation is Recall@20 of a short training. Where a value is at the edge of what was "
            "tried, a better one may lie beyond: widen evaluation.search.",
            head=(
                *("recommender", "seeds", "learning rate", "weight decay", "validation"),
                *("its own setting", "validation of it", "at the edge"),
            ),
            rows=chosen,
            words=2,
        ),
        Table(
            key="candidates",
            title="Every setting that was tried",
            note="Settings that were trained for fewer epochs ranked behind the others by then. A dash as validation means that the loss diverged.",
            head=("recommender", "seeds", "learning rate", "weight decay", "epochs", "validation"),
            rows=tried,
            words=2,
        ),
    ]


def edge_sentence(searches: Sequence[Facts]) -> str:
    """Which recommenders' choice is at the edge of what was tried; empty where none is."""
    at_edge: dict[str, dict[str, None]] = {}
    for x in searches:
        for edge in x["edges"]:
            at_edge.setdefault(x["backbone"], {})[edge] = None
    if not at_edge:
        return ""
    named = "; ".join(f"{name} ({'; '.join(edges)})" for name, edges in at_edge.items())
    return f"The best setting is at the edge of what was tried: {named}. A better one may lie beyond: widen evaluation.search."


def _setting(candidate: Facts) -> str:
    return ", ".join(_number(candidate[x]) for x in ("learning_rate", "weight_decay") if candidate[x] is not None)


def _seeds(search: Facts) -> str:
    return ", ".join(map(str, search["seeds"]))


def _number(value: Any) -> str:
    return DASH if value is None else f"{value:.4g}"

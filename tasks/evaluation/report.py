"""The evaluation's report: ``evaluation.html`` with its numbers in ``evaluation.json``, and the same as Markdown with pictures.

``evaluation.json`` holds (null where a number does not exist)::

    source        results, cells, backbones, seeds, users
    summary       sentences
    comparisons   what ``tasks.evaluation.comparisons.compare`` returns
    groups        backbone, setting, group, change {mean, sd, seeds}: Recall@20 from raw to rectified by kind of user and item
    conditions    the setting, and metrics {name: {mean, sd, seeds}}
    searches      what ``tasks.evaluation.searches.write_searches`` wrote: the chosen settings, and the validation score of every candidate
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rectifier_core.evaluation.trial import CHANCE
from tasks.evaluation.comparisons import below_popularity, compare, spread
from tasks.evaluation.figures import Picture, pictures
from tasks.evaluation.grid import RAW, RECTIFIED, Condition
from tasks.evaluation.results import Results, read_results
from tasks.evaluation.searches import edge_sentence, read_searches, search_tables
from tasks.evaluation.tables import GROUP, Facts, Table, markdown, sentences, tables
from tasks.report.page_templates import page_environment
from tasks.store.atomic_files import write_text, write_whole

HTML, TWIN, MARKDOWN = "evaluation.html", "evaluation.json", "evaluation.md"


def write_evaluation_report(folder: Path, results: Path) -> Path:
    """Write ``evaluation.json`` and ``evaluation.html`` into ``folder`` and return the path of the page.

    ``results`` is the ``results.parquet`` of an evaluation. Raises InputError if it cannot be read, StorageError if a file cannot be written.
    """
    facts = gather_evaluation(results)
    write_text(folder / TWIN, json.dumps(facts, indent=1, allow_nan=False) + "\n")
    write_text(folder / HTML, render_evaluation(facts))
    return folder / HTML


def write_evidence(folder: Path, results: Path) -> list[Path]:
    """Write the summary and the tables as ``evaluation.md`` and the pictures as PNG; return the paths, the document's first.

    The same results give the same bytes. Raises what ``write_evaluation_report`` raises.
    """
    facts = gather_evaluation(results)
    drawn = pictures(facts)
    for picture in drawn:
        write_whole(folder / f"{picture.key}.png", picture.save)
    write_text(folder / MARKDOWN, _document(facts, drawn))
    return [folder / MARKDOWN, *(folder / f"{x.key}.png" for x in drawn)]


def gather_evaluation(results: Path) -> Facts:
    """Everything that the report shows, as the module's docstring describes. Raises InputError for results that cannot be read."""
    read = read_results(results)
    facts: Facts = {
        "source": {
            "results": results.name,
            "cells": sum(map(len, read.metrics.values())),
            "backbones": list(dict.fromkeys(x.backbone for x in read.conditions)),
            "seeds": max(map(len, read.metrics.values())),
            "users": read.num_users,
        },
        "comparisons": compare(read),
        "groups": list(_groups(read)),
        "conditions": list(_conditions(read)),
        "searches": read_searches(results),
    }
    edge = edge_sentence(facts["searches"])
    return {"summary": [*sentences(facts), *([edge] if edge else [])]} | facts


def _tables(facts: Facts) -> list[Table]:
    """The tables of the report. Those of the search follow the first, which says whether its choices are good enough."""
    first, *others = tables(facts)
    chosen, tried = search_tables(facts["searches"])
    return [table for table in (first, chosen, *others, tried) if table.rows]


def render_evaluation(facts: Facts) -> str:
    """One HTML document without scripts that fetches nothing."""
    drawn = {x.title: base64.b64encode(x.png).decode() for x in pictures(facts)}
    template = page_environment().get_template("evaluation.html.j2")
    return template.render(facts=facts, tables=_tables(facts), pictures=drawn).lstrip()


def _document(facts: Facts, drawn: list[Picture]) -> str:
    parts = [*facts["summary"], *(f"![{x.title}]({x.key}.png)" for x in drawn)]
    for table in _tables(facts):
        folded = table.key in ("all", "candidates")
        parts += [f"## {table.title}", table.note, _folded(table) if folded else markdown(table)]
    return "\n\n".join(parts) + "\n"


def _folded(table: Table) -> str:
    return f"<details><summary>{len(table.rows):,} rows</summary>\n\n{markdown(table)}\n\n</details>"


def _groups(results: Results) -> Iterator[Facts]:
    for rectified in results.conditions:
        raw = replace(rectified, variant=RAW)
        if rectified.variant == RECTIFIED and rectified.plain and raw in results.metrics:
            names = dict.fromkeys(x for row in results.metrics[rectified].values() for x in row if x.startswith(GROUP))
            for metric in names:
                seeds = results.seeds(raw, rectified, metric=metric)
                before, after = (results.by_seed(x, metric, seeds) for x in (raw, rectified))
                if len(seeds) and before.mean() > _least(results, raw, seeds):
                    change = spread((after - before) / before.mean())
                    yield asdict(rectified) | {"group": metric.removeprefix(GROUP), "change": change}


def _least(results: Results, raw: Condition, seeds: Sequence[int]) -> float:
    """What a group's Recall@20 must exceed for a relative change of it: chance; infinity where ``raw`` ranks below popularity."""
    if below_popularity(results, raw, seeds):
        return math.inf
    known = set(seeds) <= set(results.seeds(raw, metric=CHANCE))
    return float(results.by_seed(raw, CHANCE, seeds).mean()) if known else 0.0


def _conditions(results: Results) -> Iterator[Facts]:
    for condition in results.conditions:
        names = dict.fromkeys(name for row in results.metrics[condition].values() for name in row)
        seeds = {name: results.seeds(condition, metric=name) for name in names}
        metrics = {name: spread(results.by_seed(condition, name, seeds[name])) for name in names}
        yield asdict(condition) | {"metrics": metrics}

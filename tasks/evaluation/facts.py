"""From an evaluation's results to one JSON-able dict: all that its report shows, and the report's JSON twin.

Shape (``null`` where a number does not exist; ``spread`` is ``{mean, sd, seeds}``; ``change`` is ``{mean, low, high}``, a 95 % interval)::

    format            1
    source            results, cells, repeats, backbones, inert (backbones that no change of features moves), seeds, uneven_seeds, users,
                        resamples, confidence
    opening           outcome (gain, mixed, harm), headline, paragraph, lines [{backbone, text}]
    focus             kind, damaged, share, shares, control_share: the damage that the opening speaks of
    comparisons       [{question, metric, backbone, kind, damaged, share, noise_kind, noise_share, variant, against, editing,
                        editing_against, seeds, a and b (spread), difference and relative (change), test (bootstrap, wilcoxon, null), p,
                        p_holm, verdict (better, worse, unclear, untested, same), wilcoxon {p, pairs, smallest},
                        recovered and cost (change)}]
    groups            [{backbone, kind, damaged, share, metric, raw, rectified, change (spreads over seeds)}]: by kind of user and item
    conditions        [{backbone, kind, damaged, share, noise_kind, noise_share, variant, editing, metrics {name: spread}}]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from rectifier_core.evaluation.significance import CONFIDENCE, ratio
from tasks.evaluation.comparisons import CLEAN, DAMAGE, NOISED, SAME, compare, find_focus, resamples_for, spread
from tasks.evaluation.conditions import RAW, RECALL, RECTIFIED, Grid, read_grid
from tasks.evaluation.opening import opening
from tasks.report.summaries import Facts

FORMAT = 1
GROUP_PREFIX = f"{RECALL}_"


def gather_evaluation(results: Path) -> Facts:
    """Everything the report says, in the shape the module's docstring gives. Raises InputError for results that cannot be read."""
    grid = read_grid(results)
    comparisons = compare(grid)
    facts: Facts = {
        "format": FORMAT,
        "source": _source(grid, results, comparisons) | {"inert": _inert(comparisons)},
        "opening": {},
        "focus": find_focus(comparisons),
        "comparisons": comparisons,
    }
    facts["opening"] = opening(facts)
    return facts | {"groups": list(_groups(grid)), "conditions": list(_conditions(grid))}


def _source(grid: Grid, results: Path, comparisons: list[Facts]) -> Facts:
    seeds = {len(by_seed) for by_seed in grid.metrics.values()}
    return {
        "results": results.name,
        "cells": sum(len(by_seed) for by_seed in grid.metrics.values()),
        "repeats": grid.repeats,
        "backbones": list(dict.fromkeys(x.backbone for x in grid.conditions)),
        "seeds": max(seeds),
        "uneven_seeds": len(seeds) > 1,
        "users": grid.num_users,
        "resamples": resamples_for(grid.num_users, comparisons) if grid.num_users else None,
        "confidence": CONFIDENCE,
    }


def _inert(comparisons: list[Facts]) -> list[str]:
    """Backbones that give the same numbers on rectified as on raw features, everywhere: they read none, or nothing was changed."""
    asked = [x for x in comparisons if x["question"] in (CLEAN, DAMAGE, NOISED)]
    moved = {x["backbone"] for x in asked if x["verdict"] != SAME}
    return [name for name in dict.fromkeys(x["backbone"] for x in asked) if name not in moved]


def _groups(grid: Grid) -> Iterator[Facts]:
    for rectified in grid.conditions:
        raw = replace(rectified, variant=RAW)
        if rectified.variant != RECTIFIED or not rectified.plain or raw not in grid.metrics:
            continue
        names = dict.fromkeys(x for row in grid.metrics[rectified].values() for x in row if x.startswith(GROUP_PREFIX))
        for metric in names:
            if seeds := grid.seeds((raw, rectified), metric):
                before, after = (grid.values(x, metric, seeds) for x in (raw, rectified))
                change = ratio(after - before, before.mean())
                yield {
                    **{name: getattr(rectified, name) for name in ("backbone", "kind", "damaged", "share")},
                    **{"metric": metric, "raw": spread(before), "rectified": spread(after), "change": spread(change)},
                }


def _conditions(grid: Grid) -> Iterator[Facts]:
    for condition in grid.conditions:
        by_seed = grid.metrics[condition]
        names = dict.fromkeys(name for row in by_seed.values() for name in row)
        values = {name: grid.values(condition, name, grid.seeds([condition], name)) for name in names}
        yield asdict(condition) | {"metrics": {name: spread(found) for name, found in values.items()}}

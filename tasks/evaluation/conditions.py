"""The results of an evaluation as its conditions: everything about a cell but its seed, with what each seed measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rectifier_core.base.arrays import Float64
from tasks.errors import InputError
from tasks.evaluation.config import BACKBONES

RAW, RECTIFIED = "raw", "rectified"
CONTROLS = ("shuffled_anchors", "smoothed", "smoothed_by_anchors", "anchors_appended")
RECALL, NDCG = "recall@20", "ndcg@20"
_TEXT = ("backbone", "kind", "damaged", "noise_kind", "variant", "editing")
_NUMBERS = ("share", "noise_share")
_KEYS = ("cell", "seed", *_TEXT, *_NUMBERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One point of the grid. What was not done has no name: share 0 goes with kind and damaged "", noise share 0 with noise kind "",
    and no editing is "".
    """

    backbone: str
    variant: str
    kind: str = ""
    damaged: str = ""
    share: float = 0.0
    noise_kind: str = ""
    noise_share: float = 0.0
    editing: str = ""

    @property
    def plain(self) -> bool:
        """Whether the interactions are as they came: no noise, no editing."""
        return not self.noise_kind and not self.editing

    @property
    def undamaged(self) -> Condition:
        """The same with the features as they came."""
        return replace(self, kind="", damaged="", share=0.0)

    @property
    def order(self) -> tuple[Any, ...]:
        """Backbones as the config lists them, damage and noise from none up, raw before rectified before controls before the rest."""
        variants = (RAW, RECTIFIED, *CONTROLS)
        return (
            BACKBONES.index(self.backbone) if self.backbone in BACKBONES else len(BACKBONES),
            self.backbone,
            *(self.kind, self.damaged != "all", self.damaged, self.share, self.noise_kind, self.noise_share),
            variants.index(self.variant) if self.variant in variants else len(variants),
            *(_natural(self.variant), _natural(self.editing)),
        )


def _natural(name: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """A key by which ``tau-5`` comes before ``tau-10``."""
    number = r"\d+(?:\.\d+)?"
    return tuple(re.split(number, name)), tuple(map(float, re.findall(number, name)))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """``metrics[condition][seed][name]`` of every finished cell, ``repeats`` of which were left out as measured twice.

    ``per_user[condition][seed]`` are user numbers [N] and their values [N] by metric; empty without a file of them.
    """

    metrics: Mapping[Condition, Mapping[int, Mapping[str, float]]]
    per_user: Mapping[Condition, Mapping[int, tuple[np.ndarray[Any, Any], Mapping[str, Float64]]]]
    num_users: int
    repeats: int

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """All of them in the order that tables and figures keep."""
        return tuple(sorted(self.metrics, key=lambda x: x.order))

    def seeds(self, conditions: Iterable[Condition], metric: str) -> tuple[int, ...]:
        """The seeds that measured ``metric`` in all of ``conditions``."""
        found = [{s for s, row in self.metrics[c].items() if metric in row} for c in conditions]
        return tuple(sorted(set.intersection(*found)))

    def values(self, condition: Condition, metric: str, seeds: Iterable[int]) -> Float64:
        """``metric`` by seed, [S]."""
        return np.array([self.metrics[condition][s][metric] for s in seeds], dtype=np.float64)

    def user_values(self, conditions: Iterable[Condition], metric: str, seeds: tuple[int, ...]) -> Float64 | None:
        """``metric`` [conditions, seeds, users], NaN where a user was not tested; None unless all cells tell it, of common users."""
        table = np.full((len(rows := list(conditions)), len(seeds), self.num_users), np.nan)
        for at, condition in enumerate(rows):
            for row, seed in enumerate(seeds):
                users, values = self.per_user.get(condition, {}).get(seed, (np.empty(0, np.int64), {}))
                if metric not in values:
                    return None
                table[at, row, users] = values[metric]
        common = np.isfinite(table).all(axis=0)
        return np.ascontiguousarray(table[:, :, common.any(axis=0)]) if common.any(axis=1).all() else None


def read_grid(results: Path) -> Grid:
    """The grid of a results Parquet, and of ``per_user.parquet`` beside it where there is one.

    Raises InputError, naming file and column, for a file that is not there, not Parquet, or lacks a column.
    """
    frame = _read(results, (*_KEYS, RECALL))
    if not frame.height:
        raise InputError(
            f"{results}: no cell is finished yet; let the evaluation run on, then ask for the report again"
        )
    metrics: dict[Condition, dict[int, dict[str, float]]] = {}
    cells: dict[str, tuple[Condition, int]] = {}
    for row in frame.sort("cell").iter_rows(named=True):
        condition, seed = _condition(row), int(row["seed"])
        if seed not in metrics.setdefault(condition, {}):
            metrics[condition][seed] = dict(_measured(row))
            cells[str(row["cell"])] = (condition, seed)
    per_user, num_users = _read_users(results.with_name("per_user.parquet"), cells)
    return Grid(metrics=metrics, per_user=per_user, num_users=num_users, repeats=frame.height - len(cells))


def _read(path: Path, columns: Iterable[str]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]}); run the evaluation first"
        ) from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: lacks the column {missing[0]!r}; wanted the results that the evaluation writes")
    return frame


def _condition(row: Mapping[str, Any]) -> Condition:
    given: dict[str, Any] = {name: str(row[name] or "") for name in _TEXT} | {
        name: float(row[name] or 0) for name in _NUMBERS
    }
    if given["editing"] == "none":
        given["editing"] = ""
    if not given["share"]:
        given["kind"] = given["damaged"] = ""
    if not given["noise_share"]:
        given["noise_kind"] = ""
    return Condition(**given)


def _measured(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if name not in _KEYS and isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value):
            yield name, float(value)


def _read_users(path: Path, cells: Mapping[str, tuple[Condition, int]]) -> tuple[dict[Condition, dict[int, Any]], int]:
    if not path.exists():
        return {}, 0
    frame = _read(path, ("cell", "user", RECALL))
    names = [name for name in (RECALL, NDCG) if name in frame.columns]
    frame = frame.with_columns((pl.col("user").rank("dense") - 1).cast(pl.Int64), pl.col("cell").cast(pl.String))
    users: dict[Condition, dict[int, Any]] = {}
    for (cell,), part in frame.select("cell", "user", *names).partition_by("cell", as_dict=True).items():
        if cell in cells:
            condition, seed = cells[cell]
            values = {name: part[name].cast(pl.Float64).to_numpy() for name in names}
            users.setdefault(condition, {})[seed] = (part["user"].to_numpy(), values)
    return users, frame["user"].n_unique()

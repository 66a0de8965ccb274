"""What every cell of a grid needs, stage by stage: the work that makes it, an output that serves already, or why there can be none.

Each method takes what the stages before it came to, by cell, and is asked about all cells at once; cells that need the same name the same
work, which is then done once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.grid import RAW, WITHOUT_FEATURES, Cell, EditSpec, Grid
from tasks.evaluation.work_items import (
    Trial,
    Work,
    alignment_work,
    anchors_work,
    cell_work,
    column_split_work,
    damage_work,
    edit_work,
    features_work,
    noise_work,
    prior_work,
    split_work,
)
from tasks.source.config import SourceConfig
from tasks.store.store import Ref

Need: TypeAlias = Work | Ref | str | None
"""Work to do; an output that is there; a line that says why it cannot be; or nothing, where a cell has no use for it."""
Had: TypeAlias = Mapping[Cell, Ref | str | None]
Needs: TypeAlias = dict[Cell, Need]


class _MissingError(Exception):
    """An output that a cell needs could not be made; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A grid over one source."""

    grid: Grid
    source: Ref
    as_of: date
    reading: SourceConfig
    config: EvaluationConfig

    def splits(self) -> Needs:
        """The interactions divided."""

        def need(cell: Cell) -> Need:
            if self.config.split_column is not None:
                return column_split_work(self.source, self.reading, self.as_of, self.config.split_column)
            return split_work(self.source, seed=cell.seed, validation=self.config.validation, test=self.config.test)

        return self._asked(need)

    def pairs(self, splits: Had) -> Needs:
        """The same with clicks added to training."""

        def need(cell: Cell) -> Need:
            return noise_work(_there(splits[cell]), cell.noise, seed=cell.seed) if cell.noise.share else splits[cell]

        return self._asked(need)

    def priors(self, pairs: Had) -> Needs:
        """What behaviour says of a pair; nothing where none is edited."""
        return self._asked(
            lambda cell: prior_work(_there(pairs[cell]), seed=cell.seed) if self._editing(cell) else None
        )

    def alignments(self, pairs: Had) -> Needs:
        """How far that can be trusted; nothing where the strength is given."""

        def need(cell: Cell) -> Need:
            spec = self._editing(cell)
            return (
                None
                if spec is None or spec.alignment is None
                else alignment_work(_there(pairs[cell]), spec.alignment, seed=cell.seed)
            )

        return self._asked(need)

    def edited(self, pairs: Had, priors: Had, alignments: Had) -> Needs:
        """The training pairs edited; nothing where they are not."""

        def need(cell: Cell) -> Need:
            spec, given = self._editing(cell), _there(pairs[cell])
            if spec is None:
                return None
            return edit_work(
                cell.editing, given, _there(priors[cell]), _perhaps(alignments[cell]), spec.config, seed=cell.seed
            )

        return self._asked(need)

    def damaged(self) -> Needs:
        """The features damaged; nothing where they are not."""

        def need(cell: Cell) -> Need:
            return (
                damage_work(self.source, cell.damage, self.grid.damaged(cell.damage), seed=cell.seed)
                if cell.damage.share
                else None
            )

        return self._asked(need)

    def anchors(self, pairs: Had, edited: Had) -> Needs:
        """Anchors of the training pairs, as the cell's variant wants them; nothing where no feature is made with them."""

        def need(cell: Cell) -> Need:
            if self._as_they_are(cell):
                return None
            spec = self._editing(cell)
            given = edited if spec is not None and spec.where in ("anchors", "both") else pairs
            return anchors_work(_there(given[cell]), self.grid.variants[cell.variant].config.anchors, seed=cell.seed)

        return self._asked(need)

    def features(self, pairs: Had, damaged: Had, anchors: Had) -> Needs:
        """The features that the backbone reads; nothing for one that reads none."""

        def need(cell: Cell) -> Need:
            given = _perhaps(damaged[cell]) or self.source
            if self._as_they_are(cell):
                return None if cell.backbone in WITHOUT_FEATURES else given
            learned = {"pairs": _there(pairs[cell]), "anchors": _there(anchors[cell])}
            return features_work(
                cell.features_name, self.grid.variants[cell.variant], given, self.source, **learned, seed=cell.seed
            )

        return self._asked(need)

    def trials(self, pairs: Had, edited: Had, damaged: Had, features: Had) -> Needs:
        """The cells themselves."""

        def need(cell: Cell) -> Need:
            spec = self._editing(cell)
            learned = (
                (_there(edited[cell]), spec.config.target)
                if spec is not None and spec.where in ("training", "both")
                else None
            )
            trial = Trial(
                backbone=cell.backbone,
                features=_perhaps(features[cell]),
                pairs=_there(pairs[cell]),
                damaged=_perhaps(damaged[cell]),
                edited=learned,
                model=self.grid.models[cell.backbone],
                training=self.grid.training[cell.backbone],
                seed=cell.seed,
            )
            return cell_work(cell.name, trial)

        return self._asked(need)

    def _editing(self, cell: Cell) -> EditSpec | None:
        return self.grid.editing[cell.editing]

    def _as_they_are(self, cell: Cell) -> bool:
        """Whether the cell's features, if it reads any, are not made from anything."""
        return cell.backbone in WITHOUT_FEATURES or self.grid.variants[cell.variant].base == RAW

    def _asked(self, need: Callable[[Cell], Need]) -> Needs:
        needs: Needs = {}
        for cell in self.grid.cells:
            try:
                needs[cell] = need(cell)
            except _MissingError as error:
                needs[cell] = str(error)
        return needs


def _perhaps(outcome: Ref | str | None) -> Ref | None:
    """An output that there may be none of."""
    if isinstance(outcome, str):
        raise _MissingError(outcome)
    return outcome


def _there(outcome: Ref | str | None) -> Ref:
    """An output that there must be."""
    found = _perhaps(outcome)
    if found is None:
        raise TypeError("a stage was asked for what the stage before it was never asked for")
    return found

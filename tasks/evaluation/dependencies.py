"""The work that every cell of a grid needs, stage by stage.

Each method of ``Chain`` takes the outputs of the stages before it, by cell, and returns a dependency for every cell. Cells that need the same
work share it, because its key is the same.
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

Dependency: TypeAlias = Work | Ref | str | None
"""Work to do, an output that exists, the reason why there can be none, or None where a cell does not use it."""
Results: TypeAlias = Mapping[Cell, Ref | str | None]
Dependencies: TypeAlias = dict[Cell, Dependency]


class _MissingError(Exception):
    """An output that a cell needs could not be made; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A grid over one source."""

    grid: Grid
    source: Ref
    as_of: date
    reading: SourceConfig
    config: EvaluationConfig

    def splits(self) -> Dependencies:
        """The interactions divided into training, validation and test."""

        def dependency(cell: Cell) -> Dependency:
            if self.config.split_column is not None:
                return column_split_work(self.source, self.reading, self.as_of, self.config.split_column)
            return split_work(self.source, cell.seed, self.config.validation, self.config.test)

        return self._for_cells(dependency)

    def pairs(self, splits: Results) -> Dependencies:
        """The same with clicks added to training."""

        def dependency(cell: Cell) -> Dependency:
            return noise_work(required(splits[cell]), cell.noise, cell.seed) if cell.noise.share else splits[cell]

        return self._for_cells(dependency)

    def priors(self, pairs: Results) -> Dependencies:
        """The prior that edges are edited by; None for a cell without editing."""
        return self._for_cells(lambda cell: prior_work(required(pairs[cell]), cell.seed) if self._edit(cell) else None)

    def alignments(self, pairs: Results) -> Dependencies:
        """How far the prior can be trusted; None where the strength is fixed."""

        def dependency(cell: Cell) -> Dependency:
            edit = self._edit(cell)
            if edit is None or edit.alignment is None:
                return None
            return alignment_work(required(pairs[cell]), edit.alignment, cell.seed)

        return self._for_cells(dependency)

    def edited(self, pairs: Results, priors: Results, alignments: Results) -> Dependencies:
        """The edited training pairs; None for a cell without editing."""

        def dependency(cell: Cell) -> Dependency:
            edit, logged = self._edit(cell), required(pairs[cell])
            if edit is None:
                return None
            name = f"{cell.editing}, seed {cell.seed}"
            return edit_work(name, logged, required(priors[cell]), optional(alignments[cell]), edit.config)

        return self._for_cells(dependency)

    def damaged(self) -> Dependencies:
        """The damaged features; None for a cell without damage."""

        def dependency(cell: Cell) -> Dependency:
            if not cell.damage.share:
                return None
            return damage_work(self.source, cell.damage, self.grid.damaged(cell.damage), cell.seed)

        return self._for_cells(dependency)

    def anchors(self, pairs: Results, edited: Results) -> Dependencies:
        """The anchors of the training pairs; None where the cell's features are not made with any."""

        def dependency(cell: Cell) -> Dependency:
            if self._reads_source_features(cell):
                return None
            edit = self._edit(cell)
            learned = edited if edit is not None and edit.where in ("anchors", "both") else pairs
            return anchors_work(required(learned[cell]), self.grid.variants[cell.variant].config.anchors, cell.seed)

        return self._for_cells(dependency)

    def features(self, pairs: Results, damaged: Results, anchors: Results) -> Dependencies:
        """The features that the backbone reads; None for a backbone that reads none."""

        def dependency(cell: Cell) -> Dependency:
            features = optional(damaged[cell]) or self.source
            if self._reads_source_features(cell):
                return None if cell.backbone in WITHOUT_FEATURES else features
            refs = (features, self.source, required(pairs[cell]), required(anchors[cell]))
            return features_work(cell.features_name, self.grid.variants[cell.variant], *refs, cell.seed)

        return self._for_cells(dependency)

    def trials(self, pairs: Results, edited: Results, damaged: Results, features: Results) -> Dependencies:
        """The cells themselves."""

        def dependency(cell: Cell) -> Dependency:
            edit = self._edit(cell)
            trains_edited = edit is not None and edit.where in ("training", "both")
            trial = Trial(
                backbone=cell.backbone,
                features=optional(features[cell]),
                pairs=required(pairs[cell]),
                damaged=optional(damaged[cell]),
                edited=(required(edited[cell]), edit.config.target) if edit is not None and trains_edited else None,
                model=self.grid.models[cell.backbone],
                training=self.grid.training[cell.backbone],
                seed=cell.seed,
            )
            return cell_work(cell.name, trial)

        return self._for_cells(dependency)

    def _edit(self, cell: Cell) -> EditSpec | None:
        return self.grid.editing[cell.editing]

    def _reads_source_features(self, cell: Cell) -> bool:
        """Whether the cell's features, if it reads any, are those of the source or of the damage."""
        return cell.backbone in WITHOUT_FEATURES or self.grid.variants[cell.variant].base == RAW

    def _for_cells(self, dependency: Callable[[Cell], Dependency]) -> Dependencies:
        dependencies: Dependencies = {}
        for cell in self.grid.cells:
            try:
                dependencies[cell] = dependency(cell)
            except _MissingError as error:
                dependencies[cell] = str(error)
        return dependencies


def optional(result: Ref | str | None) -> Ref | None:
    """The output, None if the cell does not use it."""
    if isinstance(result, str):
        raise _MissingError(result)
    return result


def required(result: Ref | str | None) -> Ref:
    """The output that the cell cannot do without."""
    ref = optional(result)
    assert ref is not None, "the stage before returned None for a cell that needs it"
    return ref

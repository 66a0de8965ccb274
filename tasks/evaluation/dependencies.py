"""The work that every cell of a grid needs, stage by stage.

Each method of ``Chain`` takes the outputs of the stages before it, by cell, and returns a dependency for every cell. Cells that need the same
work share it, because its key is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import wraps
from typing import Concatenate, ParamSpec, TypeAlias

from rectifier_core.evaluation.config import PriorConfig
from rectifier_core.evaluation.search import Candidate, list_candidates, most_steps, with_settings
from tasks.evaluation import work_items as stages
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.grid import RAW, WITHOUT_FEATURES, Cell, EditSpec, Grid
from tasks.evaluation.work_items import Trial, Work
from tasks.source.config import SourceConfig
from tasks.source.raw_log import log_files
from tasks.store.store import Ref

Dependency: TypeAlias = Work | Ref | str | None
"""Work to do, an output that exists, the reason why there can be none, or None where a cell does not use it."""
Results: TypeAlias = Mapping[Cell, Ref | str | None]
Dependencies: TypeAlias = dict[Cell, Dependency]
P = ParamSpec("P")


class _MissingError(Exception):
    """An output that a cell needs could not be made; the message is the reason."""


def _for_cells(
    dependency: Callable[Concatenate[Chain, Cell, P], Dependency],
) -> Callable[Concatenate[Chain, P], Dependencies]:
    """A method that returns the dependency of every cell of the grid."""

    @wraps(dependency)
    def of_all(chain: Chain, /, *results: P.args, **named: P.kwargs) -> Dependencies:
        dependencies: Dependencies = {}
        for cell in chain.grid.cells:
            try:
                dependencies[cell] = dependency(chain, cell, *results, **named)
            except _MissingError as error:
                dependencies[cell] = str(error)
        return dependencies

    return of_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A grid over one source."""

    grid: Grid
    source: Ref
    as_of: date
    reading: SourceConfig
    config: EvaluationConfig

    @_for_cells
    def splits(self, cell: Cell) -> Dependency:
        """The interactions divided into training, validation and test."""
        column, shares = self.config.split_column, (self.config.validation, self.config.test)
        if column is None:
            return Work(f"at random, seed {cell.seed}", stages.split_at_random, self.source, cell.seed, *shares)
        fingerprint = log_files(self.reading, self.as_of).fingerprint
        return Work(f"by {column}", stages.split_by_log, self.source, self.reading, self.as_of, column, fingerprint)

    @_for_cells
    def searches(self, cell: Cell, splits: Results) -> Dependency:
        """The search for the recommender's settings on clean, raw data, one a split; None where there is nothing to search."""
        name, grid, config = cell.backbone, self.grid, self.config.search
        model, training, fixed = grid.models[name], grid.training[name], grid.fixed[name]
        tried = len(list_candidates(name, config, model, training, fixed)) if config.enabled else 1
        if tried < 2:
            return None
        split = required(splits[cell])
        at = f"seed {cell.seed}" if self.config.split_column is None else "the log's split"
        shown = f"{name}, {at}, {tried} settings in at most {most_steps(config, tried):,} steps"
        features, first = None if name in WITHOUT_FEATURES else self.source, grid.cells[0].seed
        return Work(shown, stages.run_search, name, features, split, config, model, training, fixed, first)

    @_for_cells
    def pairs(self, cell: Cell, splits: Results) -> Dependency:
        """The same with clicks added to training."""
        if not cell.noise_share:
            return splits[cell]
        name = f"{cell.noise_share:g} {cell.noise_kind}, seed {cell.seed}"
        return Work(name, stages.add_clicks, required(splits[cell]), cell.noise_kind, cell.noise_share, cell.seed)

    @_for_cells
    def priors(self, cell: Cell, pairs: Results) -> Dependency:
        """The prior that edges are edited by; None for a cell without editing."""
        if self._edit(cell) is None:
            return None
        return Work(f"seed {cell.seed}", stages.fit_edge_prior, required(pairs[cell]), PriorConfig(), cell.seed)

    @_for_cells
    def alignments(self, cell: Cell, pairs: Results) -> Dependency:
        """How far the prior can be trusted; None where the strength is fixed."""
        edit = self._edit(cell)
        if edit is None or edit.alignment is None:
            return None
        return Work(f"seed {cell.seed}", stages.assess_prior, required(pairs[cell]), edit.alignment, cell.seed)

    @_for_cells
    def edited(self, cell: Cell, pairs: Results, priors: Results, alignments: Results) -> Dependency:
        """The edited training pairs; None for a cell without editing."""
        edit, logged = self._edit(cell), required(pairs[cell])
        if edit is None:
            return None
        strengths = optional(alignments[cell]) or (edit.config.completion, edit.config.pruning)
        return Work(f"{cell.editing}, seed {cell.seed}", stages.edit_pairs, logged, required(priors[cell]), strengths)

    @_for_cells
    def damaged(self, cell: Cell) -> Dependency:
        """The damaged features; None for a cell without damage."""
        if not cell.share:
            return None
        name = f"{cell.kind} {cell.share:g} of {cell.damaged}, seed {cell.seed}"
        modalities = self.grid.damaged(cell)
        return Work(name, stages.damage_features, self.source, cell.kind, cell.share, modalities, cell.seed)

    @_for_cells
    def anchors(self, cell: Cell, pairs: Results, edited: Results) -> Dependency:
        """The anchors of the training pairs; None where the cell's features are not made with any."""
        if self._reads_source_features(cell):
            return None
        edit = self._edit(cell)
        logged = edited if edit is not None and edit.where in ("anchors", "both") else pairs
        config = self.grid.variants[cell.variant].config.anchors
        return Work(f"seed {cell.seed}", stages.learn_anchors, required(logged[cell]), config, cell.seed)

    @_for_cells
    def features(self, cell: Cell, pairs: Results, damaged: Results, anchors: Results) -> Dependency:
        """The features that the backbone reads; None for a backbone that reads none."""
        features = optional(damaged[cell]) or self.source
        if self._reads_source_features(cell):
            return None if cell.backbone in WITHOUT_FEATURES else features
        refs = (features, self.source, required(pairs[cell]), required(anchors[cell]))
        return Work(cell.features_name, stages.make_variant, self.grid.variants[cell.variant], *refs, cell.seed)

    @_for_cells
    def trials(
        self,
        cell: Cell,
        pairs: Results,
        edited: Results,
        damaged: Results,
        features: Results,
        searches: Results,
    ) -> Dependency:
        """The cells themselves, with the settings that the search chose."""
        model, training = self.grid.models[cell.backbone], self.grid.training[cell.backbone]
        search = optional(searches[cell])
        if search is not None:
            model, training = with_settings(Candidate(**search.meta["chosen"]), model, training)
        edit = self._edit(cell)
        trains_edited = edit is not None and edit.where in ("training", "both")
        trial = Trial(
            backbone=cell.backbone,
            features=optional(features[cell]),
            pairs=required(pairs[cell]),
            damaged=optional(damaged[cell]),
            edited=(required(edited[cell]), edit.config.target) if edit is not None and trains_edited else None,
            model=model,
            training=training,
            seed=cell.seed,
        )
        return Work(cell.name, stages.run_cell, trial)

    def _edit(self, cell: Cell) -> EditSpec | None:
        return self.grid.editing[cell.editing]

    def _reads_source_features(self, cell: Cell) -> bool:
        """Whether the cell's features, if it reads any, are those of the source or of the damage."""
        return cell.backbone in WITHOUT_FEATURES or self.grid.variants[cell.variant].base == RAW


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

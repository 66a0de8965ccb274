"""The evaluation's stages: the functions that build each output, and ``Work``, an output that is found in the store or built in a worker.

``tasks.evaluation.arrays`` describes the files of pairs and features. ``truth-<m>.npy`` [I] beside damaged features marks the damaged rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any

import numpy as np

from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.records import Anchors
from rectifier_core.evaluation.backbones.config import TrainingConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.config import (
    AlignmentConfig,
    ClickKind,
    DamageKind,
    EditTarget,
    PriorConfig,
    SearchConfig,
)
from rectifier_core.evaluation.edge_alignment import assess_alignment
from rectifier_core.evaluation.edge_prior import Prior, fit_prior
from rectifier_core.evaluation.edges import edit_edges
from rectifier_core.evaluation.interaction_noise import inject_clicks
from rectifier_core.evaluation.search import search_settings
from rectifier_core.evaluation.splits import split_users
from rectifier_core.evaluation.trial import run_trial
from rectifier_core.evaluation.variants import make_features
from tasks.evaluation.arrays import adopt, load_catalog, load_features, load_split, save_split
from tasks.evaluation.damage import damage_source
from tasks.evaluation.grid import VariantSpec
from tasks.evaluation.split import split_by_column
from tasks.source.config import SourceConfig
from tasks.stages.anchors import load_interactions
from tasks.stages.trust import category_numbers
from tasks.store.code_digest import evaluation_digest
from tasks.store.saved_records import load_record, save_record
from tasks.store.store import Ref, StageStore, StageWriter, plain, stage_key

STRENGTHS = ("completion", "pruning")
TIMING = "timing.json"


def split_at_random(source: Ref, seed: int, validation: float, test: float, writer: StageWriter) -> None:
    """The pairs of every user divided at random."""
    save_split(writer, split_users(load_interactions(source), seed=seed, validation=validation, test=test))


def split_by_log(
    source: Ref, config: SourceConfig, as_of: date, column: str, fingerprint: str, writer: StageWriter
) -> None:
    """The pairs divided by a column of the log, whose files have this fingerprint."""
    save_split(writer, split_by_column(source, config, as_of, column))


def add_clicks(split: Ref, kind: ClickKind, share: float, seed: int, writer: StageWriter) -> None:
    """The split with false clicks added to its training pairs."""
    logged = load_split(split)
    noisy, injected = inject_clicks(logged.training, kind, share, seed=seed)
    save_split(writer, replace(logged, training=noisy))
    writer.array("injected", injected)


def fit_edge_prior(pairs: Ref, config: PriorConfig, seed: int, writer: StageWriter) -> None:
    """The edge prior, fitted on the training pairs alone."""
    save_record(writer, fit_prior(load_interactions(pairs), config, seed=seed))


def assess_prior(pairs: Ref, config: AlignmentConfig, seed: int, writer: StageWriter) -> None:
    """How far the prior can be trusted: the strengths of editing, and the scores that pruning uses."""
    alignment = assess_alignment(load_interactions(pairs), config, seed=seed)
    writer.array("scores", alignment.scores)
    names = (*STRENGTHS, "separation", "stability", "trust", "gains")
    writer.meta({name: plain(getattr(alignment, name)) for name in names})


def edit_pairs(pairs: Ref, prior: Ref, strengths: Ref | tuple[float, float], writer: StageWriter) -> None:
    """The edited training pairs. ``strengths`` is an alignment, or the ratios of completion and pruning."""
    if isinstance(strengths, Ref):
        meta, scores = strengths.meta, np.array(strengths.array("scores"))
    else:
        meta, scores = dict(zip(STRENGTHS, strengths, strict=True)), None
    by_name = {name: meta[name] for name in STRENGTHS}
    edited = edit_edges(load_interactions(pairs), load_record(prior, Prior), scores=scores, **by_name)
    writer.array("users", edited.pairs.users)
    writer.array("items", edited.pairs.items)
    writer.array("dropped", edited.dropped)
    facts = {
        **{f"edit_{name}": value for name, value in by_name.items()},
        "edit_added": len(edited.added.users),
        "edit_dropped": int(edited.dropped.sum()),
        **{f"edit_{name}": meta[name] for name in ("trust", "separation", "stability") if name in meta},
    }
    writer.meta({"num_users": edited.pairs.num_users, "num_items": edited.pairs.num_items, "facts": facts})


def learn_anchors(pairs: Ref, config: AnchorsConfig, seed: int, writer: StageWriter) -> None:
    """Anchors of the training pairs alone."""
    save_record(writer, train_anchors(load_interactions(pairs), config, seed=seed))


def damage_features(
    source: Ref, kind: DamageKind, share: float, modalities: tuple[str, ...], seed: int, writer: StageWriter
) -> None:
    """The catalog's features with a share of those of ``modalities`` damaged, and which rows were damaged."""
    damaged, truth = damage_source(source, load_catalog(source, source), kind, share, modalities, seed=seed)
    for m in damaged.features:
        if m in modalities:
            writer.array(f"features-{m}", damaged.features[m])
            writer.array(f"present-{m}", damaged.present[m])
            writer.array(f"truth-{m}", truth[m])
        else:
            for name in (f"features-{m}.npy", f"present-{m}.npy"):
                adopt(writer, source, name)
    writer.meta({"modalities": list(damaged.features)})


def make_variant(
    variant: VariantSpec, features: Ref, source: Ref, pairs: Ref, anchors: Ref, seed: int, writer: StageWriter
) -> None:
    """The features of one variant, made from ``features``: the source itself or its damaged copy."""
    catalog, training = load_catalog(source, features), load_interactions(pairs)
    learned, category = load_record(anchors, Anchors), category_numbers(source)
    made = make_features(variant.base, catalog, training, learned, variant.config, seed=seed, category=category)
    for m, values in made.features.items():
        writer.array(f"features-{m}", values)
        writer.array(f"present-{m}", made.present[m])
    writer.meta({"modalities": list(made.features), "facts": plain(made.facts)})


def run_search(
    backbone: str,
    features: Ref | None,
    pairs: Ref,
    config: SearchConfig,
    model: Any,
    training: TrainingConfig,
    fixed: tuple[str, ...],
    seed: int,
    writer: StageWriter,
) -> None:
    """The settings of a recommender, chosen on training and validation pairs; the fields of a ``Search``."""
    values, present = load_features(features) if features is not None else ({}, {})
    split = load_split(pairs)
    data = TrainingSet.plain(split.training, values, present)
    settings: dict[str, Any] = {"seed": seed, "model": model, "training": training, "fixed": fixed}
    writer.meta(plain(search_settings(backbone, data, split.validation, config, **settings)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The inputs of a cell.

    ``features`` is None for a backbone that reads none. ``damaged`` has the truth about damage, if there is any. ``edited`` are the pairs to
    train on instead, with their target.
    """

    backbone: str
    features: Ref | None
    pairs: Ref
    damaged: Ref | None
    edited: tuple[Ref, EditTarget] | None
    model: Any
    training: TrainingConfig
    seed: int


def run_cell(cell: Trial, writer: StageWriter) -> None:
    """One trained and tested recommender."""
    start, split = time.monotonic(), load_split(cell.pairs)
    features, present = load_features(cell.features) if cell.features is not None else ({}, {})
    known = split.training
    edited, target = (known, None) if cell.edited is None else (load_interactions(cell.edited[0]), cell.edited[1])
    positives, graph = (edited if target in (part, "both") else known for part in ("train", "graph"))
    data = TrainingSet(positives=positives, graph=graph, known=known, features=features, present=present)
    files = [] if cell.damaged is None else sorted(cell.damaged.file("").glob("truth-*.npy"))
    truth = {x.stem: np.load(x, allow_pickle=False) for x in files}
    settings: dict[str, Any] = {"seed": cell.seed, "model": cell.model, "training": cell.training}
    trial = run_trial(cell.backbone, data, split, **settings, truth=truth)
    writer.array("users", trial.users)
    for name, scores in trial.per_user.items():
        writer.array(name, scores)
    writer.array("losses", np.asarray(trial.history.losses))
    epochs = {"epochs": len(trial.history.losses), "best_epoch": trial.history.best_epoch}
    writer.meta({"metrics": plain(trial.metrics), "per_user": list(trial.per_user), **epochs})
    # In a file of its own, because it differs between two runs and the rest does not.
    (writer.folder / TIMING).write_text(json.dumps({"seconds": round(time.monotonic() - start, 3)}))


STAGES: dict[Callable[..., None], tuple[str, str | None]] = {
    split_at_random: ("split", "splits"),
    split_by_log: ("split", "splits"),
    add_clicks: ("noise", "interaction_noise"),
    fit_edge_prior: ("prior", "edge_prior"),
    assess_prior: ("alignment", "edge_alignment"),
    edit_pairs: ("edit", "edges"),
    learn_anchors: ("anchors", None),
    damage_features: ("damage", "corruption"),
    make_variant: ("features", "variants"),
    run_search: ("search", "search"),
    run_cell: ("cell", "trial"),
}
"""The kind of the output that each function builds, and the module of ``rectifier_core.evaluation`` that it calls, if any."""


class Work:
    """An output that a grid needs: ``build``, a function of ``STAGES``, called with ``inputs`` and a writer. ``name`` is for people."""

    def __init__(self, name: str, build: Callable[..., None], *inputs: Any) -> None:
        self.name, self.build, self.inputs = name, build, inputs
        kind, self._code = STAGES[build]
        self.kind = f"evaluation-{kind}"

    @property
    def depends(self) -> tuple[Any, ...]:
        """The inputs, and the digest of the code."""
        return self.inputs if self._code is None else (*self.inputs, evaluation_digest(self._code))

    @property
    def key(self) -> str:
        """The key of the output in the store."""
        return stage_key(self.kind, self.depends)

    def find(self, store: StageStore) -> Ref | None:
        """The output if the store has it."""
        return store.find(self.kind, self.key)

    def run(self, store: StageStore) -> Ref:
        """The output, built if the store does not have it."""
        return store.once(self.kind, self.depends, partial(self.build, *self.inputs))

"""The evaluation's stages: the inputs of each output, and the function that builds it in a worker process.

The functions named ``*_work`` build nothing. They return a ``Work``, which can be looked up in the store or sent to another process.
``tasks.evaluation.arrays`` describes the files of pairs and features. ``truth-<m>.npy`` [I] beside damaged features marks the damaged rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any, cast

import numpy as np

from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.records import Anchors
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.config import (
    AlignmentConfig,
    ClickKind,
    DamageKind,
    EditConfig,
    EditTarget,
    PriorConfig,
    TrainingConfig,
)
from rectifier_core.evaluation.edge_alignment import assess_alignment
from rectifier_core.evaluation.edge_prior import Prior, fit_prior
from rectifier_core.evaluation.edges import edit_edges
from rectifier_core.evaluation.interaction_noise import inject_clicks
from rectifier_core.evaluation.splits import split_users
from rectifier_core.evaluation.trial import run_trial
from rectifier_core.evaluation.variants import make_features
from tasks.evaluation.arrays import adopt, load_catalog, load_features, load_split, save_split
from tasks.evaluation.damage import damage_source
from tasks.evaluation.grid import Damage, Noise, VariantSpec
from tasks.evaluation.split import split_by_column
from tasks.source.config import SourceConfig
from tasks.source.raw_log import log_files
from tasks.stages.anchors import load_interactions
from tasks.stages.trust import category_numbers
from tasks.store.code_digest import evaluation_digest
from tasks.store.saved_records import load_record, save_record
from tasks.store.store import Ref, StageStore, StageWriter, plain, stage_key

STRENGTHS = ("completion", "pruning")
TIMING = "timing.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An output that a grid needs.

    ``name`` is for people, ``kind`` the stage, ``inputs`` what the output depends on. ``build`` travels to another process, so it is a
    function of a module with small arguments. ``code`` is the module of ``rectifier_core.evaluation`` that it calls, if any.
    """

    name: str
    kind: str
    inputs: tuple[Any, ...]
    build: Callable[[StageWriter], None]
    code: str | None = None

    @property
    def depends(self) -> tuple[Any, ...]:
        """The inputs, and the digest of the code."""
        return self.inputs if self.code is None else (*self.inputs, evaluation_digest(self.code))

    @property
    def key(self) -> str:
        """The key of the output in the store."""
        return stage_key(self.kind, self.depends)

    def find(self, store: StageStore) -> Ref | None:
        """The output if the store has it."""
        return store.find(self.kind, self.key)

    def run(self, store: StageStore) -> Ref:
        """The output, built if the store does not have it."""
        return store.once(self.kind, self.depends, self.build)


def _work(name: str, kind: str, build: Callable[..., None], *inputs: Any, code: str | None = None) -> Work:
    """Work whose ``build`` takes the inputs and a writer."""
    return Work(name=name, kind=f"evaluation-{kind}", inputs=inputs, build=partial(build, *inputs), code=code)


def split_work(source: Ref, seed: int, validation: float, test: float) -> Work:
    """The pairs of every user divided at random."""
    return _work(f"at random, seed {seed}", "split", _split_at_random, source, seed, validation, test, code="splits")


def _split_at_random(source: Ref, seed: int, validation: float, test: float, writer: StageWriter) -> None:
    save_split(writer, split_users(load_interactions(source), seed=seed, validation=validation, test=test))


def column_split_work(source: Ref, config: SourceConfig, as_of: date, column: str) -> Work:
    """The pairs divided by a column of the log."""
    inputs = (source, log_files(config, as_of).fingerprint, column)
    build = partial(_split_by_column, source, config, as_of, column)
    return Work(name=f"by {column}", kind="evaluation-split", inputs=inputs, build=build, code="splits")


def _split_by_column(source: Ref, config: SourceConfig, as_of: date, column: str, writer: StageWriter) -> None:
    save_split(writer, split_by_column(source, config, as_of, column))


def noise_work(split: Ref, noise: Noise, seed: int) -> Work:
    """The split with clicks that nobody made added to its training pairs."""
    name = f"{noise.share:g} {noise.kind}, seed {seed}"
    return _work(name, "noise", _add_noise, split, noise, seed, code="interaction_noise")


def _add_noise(split: Ref, noise: Noise, seed: int, writer: StageWriter) -> None:
    logged = load_split(split)
    noisy = inject_clicks(logged.training, cast(ClickKind, noise.kind), noise.share, seed=seed)
    save_split(writer, replace(logged, training=noisy.interactions))
    writer.array("injected", noisy.injected)


def prior_work(pairs: Ref, seed: int) -> Work:
    """The edge prior, fitted on the training pairs alone."""
    return _work(f"seed {seed}", "prior", _fit_prior, pairs, PriorConfig(), seed, code="edge_prior")


def _fit_prior(pairs: Ref, config: PriorConfig, seed: int, writer: StageWriter) -> None:
    save_record(writer, fit_prior(load_interactions(pairs), config, seed=seed))


def alignment_work(pairs: Ref, config: AlignmentConfig, seed: int) -> Work:
    """How far the prior can be trusted: the strengths of editing, and the scores that pruning uses."""
    return _work(f"seed {seed}", "alignment", _align, pairs, config, seed, code="edge_alignment")


def _align(pairs: Ref, config: AlignmentConfig, seed: int, writer: StageWriter) -> None:
    alignment = assess_alignment(load_interactions(pairs), config, seed=seed)
    writer.array("scores", alignment.scores)
    names = (*STRENGTHS, "separation", "stability", "trust", "gains", "reason")
    writer.meta({name: plain(getattr(alignment, name)) for name in names})


def edit_work(name: str, pairs: Ref, prior: Ref, alignment: Ref | None, config: EditConfig) -> Work:
    """The edited training pairs, at the strengths of ``alignment`` if there is one.

    ``config.target`` is no input: one output serves all targets.
    """
    strengths = None if alignment is not None else (config.completion, config.pruning)
    return _work(name, "edit", _edit, pairs, prior, alignment, strengths, code="edges")


def _edit(
    pairs: Ref, prior: Ref, alignment: Ref | None, strengths: tuple[float, float] | None, writer: StageWriter
) -> None:
    meta = {} if alignment is None else alignment.meta
    completion, pruning = (meta[x] for x in STRENGTHS) if strengths is None else strengths
    scores = None if alignment is None else np.array(alignment.array("scores"))
    config = EditConfig(completion=completion, pruning=pruning)
    edited = edit_edges(load_interactions(pairs), config, load_record(prior, Prior), scores=scores)
    writer.array("users", edited.positives.users)
    writer.array("items", edited.positives.items)
    writer.array("dropped", edited.dropped)
    facts = {
        "edit_completion": completion,
        "edit_pruning": pruning,
        "edit_added": len(edited.added.users),
        "edit_dropped": int(edited.dropped.sum()),
        **{f"edit_{name}": meta[name] for name in ("trust", "separation", "stability") if name in meta},
    }
    writer.meta({"num_users": edited.positives.num_users, "num_items": edited.positives.num_items, "facts": facts})


def anchors_work(pairs: Ref, config: AnchorsConfig, seed: int) -> Work:
    """Anchors of the training pairs alone."""
    return _work(f"seed {seed}", "anchors", _train_anchors, pairs, config, seed)


def _train_anchors(pairs: Ref, config: AnchorsConfig, seed: int, writer: StageWriter) -> None:
    save_record(writer, train_anchors(load_interactions(pairs), config, seed=seed))


def damage_work(source: Ref, damage: Damage, modalities: tuple[str, ...], seed: int) -> Work:
    """The catalog's features with a share of those of ``modalities`` damaged, and which rows were damaged."""
    name = f"{damage.kind} {damage.share:g} of {damage.damaged}, seed {seed}"
    inputs = (source, cast(DamageKind, damage.kind), damage.share, modalities, seed)
    return _work(name, "damage", _damage, *inputs, code="corruption")


def _damage(
    source: Ref, kind: DamageKind, share: float, modalities: tuple[str, ...], seed: int, writer: StageWriter
) -> None:
    catalog, truth = damage_source(source, load_catalog(source, source), kind, share, modalities, seed=seed)
    for m in catalog.features:
        if m in modalities:
            writer.array(f"features-{m}", catalog.features[m])
            writer.array(f"present-{m}", catalog.present[m])
            writer.array(f"truth-{m}", truth[m])
        else:
            for name in (f"features-{m}.npy", f"present-{m}.npy"):
                adopt(writer, source, name)
    writer.meta({"modalities": list(catalog.features)})


def features_work(
    name: str, variant: VariantSpec, features: Ref, source: Ref, pairs: Ref, anchors: Ref, seed: int
) -> Work:
    """The features of one variant, made from ``features``: the source itself or its damaged copy."""
    inputs = (variant.base, features, source, pairs, anchors, variant.config, seed)
    return _work(name, "features", _make_features, *inputs, code="variants")


def _make_features(
    base: str,
    features: Ref,
    source: Ref,
    pairs: Ref,
    anchors: Ref,
    config: PipelineConfig,
    seed: int,
    writer: StageWriter,
) -> None:
    catalog, training, anchor = load_catalog(source, features), load_interactions(pairs), load_record(anchors, Anchors)
    made = make_features(base, catalog, training, anchor, config, seed=seed, category=category_numbers(source))
    for m, values in made.features.items():
        writer.array(f"features-{m}", values)
        writer.array(f"present-{m}", made.present[m])
    writer.meta({"modalities": list(made.features), "facts": plain(made.facts)})


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


def cell_work(name: str, trial: Trial) -> Work:
    """One trained and tested recommender."""
    return _work(name, "cell", _run_cell, trial, code="trial")


def _run_cell(cell: Trial, writer: StageWriter) -> None:
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

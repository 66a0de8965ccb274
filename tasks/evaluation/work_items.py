"""The evaluation's stages: what each depends on, and how a worker builds it from references.

Nothing here is Prefect's, and nothing is built when a function here is called: it returns the ``Work``, which can be looked for in the
store, or sent to another process and run there.

How pairs (``evaluation-split``, ``-noise``) and features (``-damage``, ``-features``) lie in them ``tasks.evaluation.arrays`` says;
``truth-<m>.npy`` [I] beside features marks those that were damaged.
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
    """An output that a grid needs: its name for people, its kind, what it depends on, and what builds it.

    ``build`` travels to another process, so it is a module's function with small arguments bound to it. ``code`` is the module of
    ``rectifier_core.evaluation`` that it calls, None for one that calls none.
    """

    name: str
    kind: str
    inputs: tuple[Any, ...]
    build: Callable[[StageWriter], None]
    code: str | None = None

    @property
    def depends(self) -> tuple[Any, ...]:
        """The inputs, and the version of the code."""
        return self.inputs if self.code is None else (*self.inputs, evaluation_digest(self.code))

    @property
    def key(self) -> str:
        """What its output is stored under."""
        return stage_key(self.kind, self.depends)

    def find(self, store: StageStore) -> Ref | None:
        """The output, if it is there whole."""
        return store.find(self.kind, self.key)

    def run(self, store: StageStore) -> Ref:
        """The output, built if it is not there."""
        return store.once(self.kind, self.depends, self.build)


def split_work(source: Ref, *, seed: int, validation: float, test: float) -> Work:
    """The pairs of every user divided at random."""
    inputs = (source, seed, validation, test)
    return Work(
        name=f"at random, seed {seed}",
        kind="evaluation-split",
        inputs=inputs,
        build=partial(_split_at_random, *inputs),
        code="splits",
    )


def _split_at_random(source: Ref, seed: int, validation: float, test: float, writer: StageWriter) -> None:
    save_split(writer, split_users(load_interactions(source), seed=seed, validation=validation, test=test))


def column_split_work(source: Ref, config: SourceConfig, as_of: date, column: str) -> Work:
    """The pairs divided as a column of the log says."""
    inputs = (source, log_files(config, as_of).fingerprint, column)
    build = partial(_split_by_column, source, config, as_of, column)
    return Work(name=f"by {column}", kind="evaluation-split", inputs=inputs, build=build, code="splits")


def _split_by_column(source: Ref, config: SourceConfig, as_of: date, column: str, writer: StageWriter) -> None:
    save_split(writer, split_by_column(source, config, as_of, column))


def noise_work(split: Ref, noise: Noise, *, seed: int) -> Work:
    """The same division with clicks added to training that nobody made; ``injected.npy`` says which they are."""
    inputs = (split, noise, seed)
    name = f"{noise.share:g} {noise.kind}, seed {seed}"
    return Work(
        name=name, kind="evaluation-noise", inputs=inputs, build=partial(_add_noise, *inputs), code="interaction_noise"
    )


def _add_noise(split: Ref, noise: Noise, seed: int, writer: StageWriter) -> None:
    given = load_split(split)
    noisy = inject_clicks(given.training, cast(ClickKind, noise.kind), noise.share, seed=seed)
    save_split(writer, replace(given, training=noisy.interactions))
    writer.array("injected", noisy.injected)


def prior_work(pairs: Ref, *, seed: int) -> Work:
    """What behaviour says about every pair, of the training pairs alone."""
    inputs = (pairs, PriorConfig(), seed)
    return Work(
        name=f"seed {seed}",
        kind="evaluation-prior",
        inputs=inputs,
        build=partial(_fit_prior, *inputs),
        code="edge_prior",
    )


def _fit_prior(pairs: Ref, config: PriorConfig, seed: int, writer: StageWriter) -> None:
    save_record(writer, fit_prior(load_interactions(pairs), config, seed=seed))


def alignment_work(pairs: Ref, config: AlignmentConfig, *, seed: int) -> Work:
    """How far the prior can be trusted: the strengths that follow, and the scores that pruning goes by."""
    inputs = (pairs, config, seed)
    return Work(
        name=f"seed {seed}",
        kind="evaluation-alignment",
        inputs=inputs,
        build=partial(_align, *inputs),
        code="edge_alignment",
    )


def _align(pairs: Ref, config: AlignmentConfig, seed: int, writer: StageWriter) -> None:
    found = assess_alignment(load_interactions(pairs), config, seed=seed)
    writer.array("scores", found.scores)
    writer.meta(
        {
            name: plain(getattr(found, name))
            for name in (*STRENGTHS, "separation", "stability", "trust", "gains", "reason")
        }
    )


def edit_work(name: str, pairs: Ref, prior: Ref, alignment: Ref | None, config: EditConfig, *, seed: int) -> Work:
    """The training pairs with likely ones added and unlikely ones dropped, at the strengths of ``alignment`` if there is one.

    What the editing is for (``config.target``) is no part of it.
    """
    strengths = None if alignment is not None else (config.completion, config.pruning)
    inputs = (pairs, prior, alignment, strengths)
    return Work(
        name=f"{name}, seed {seed}", kind="evaluation-edit", inputs=inputs, build=partial(_edit, *inputs), code="edges"
    )


def _edit(
    pairs: Ref, prior: Ref, alignment: Ref | None, strengths: tuple[float, float] | None, writer: StageWriter
) -> None:
    found = {} if alignment is None else alignment.meta
    completion, pruning = (found[x] for x in STRENGTHS) if strengths is None else strengths
    scores = None if alignment is None else np.array(alignment.array("scores"))
    config = EditConfig(completion=completion, pruning=pruning)
    edited = edit_edges(load_interactions(pairs), config, load_record(prior, Prior), scores=scores)
    writer.array("users", edited.positives.users)
    writer.array("items", edited.positives.items)
    writer.array("dropped", edited.dropped)
    told = {
        "edit_completion": completion,
        "edit_pruning": pruning,
        "edit_added": len(edited.added.users),
        "edit_dropped": int(edited.dropped.sum()),
    }
    told |= {f"edit_{name}": found[name] for name in ("trust", "separation", "stability") if name in found}
    writer.meta({"num_users": edited.positives.num_users, "num_items": edited.positives.num_items, "facts": told})


def anchors_work(pairs: Ref, config: AnchorsConfig, *, seed: int) -> Work:
    """Anchors of the training pairs alone."""
    inputs = (pairs, config, seed)
    return Work(name=f"seed {seed}", kind="evaluation-anchors", inputs=inputs, build=partial(_train_anchors, *inputs))


def _train_anchors(pairs: Ref, config: AnchorsConfig, seed: int, writer: StageWriter) -> None:
    save_record(writer, train_anchors(load_interactions(pairs), config, seed=seed))


def damage_work(source: Ref, damage: Damage, modalities: tuple[str, ...], *, seed: int) -> Work:
    """The catalog's features with a share of those of ``modalities`` damaged, and which ones were."""
    inputs = (source, cast(DamageKind, damage.kind), damage.share, modalities, seed)
    name = f"{damage.kind} {damage.share:g} of {damage.damaged}, seed {seed}"
    return Work(name=name, kind="evaluation-damage", inputs=inputs, build=partial(_damage, *inputs), code="corruption")


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
    name: str, variant: VariantSpec, damaged: Ref, source: Ref, *, pairs: Ref, anchors: Ref, seed: int
) -> Work:
    """The features of one variant; ``damaged`` is the source itself where nothing was."""
    inputs = (variant.base, damaged, source, pairs, anchors, variant.config, seed)
    return Work(
        name=name, kind="evaluation-features", inputs=inputs, build=partial(_make_features, *inputs), code="variants"
    )


def _make_features(
    base: str,
    damaged: Ref,
    source: Ref,
    pairs: Ref,
    anchors: Ref,
    config: PipelineConfig,
    seed: int,
    writer: StageWriter,
) -> None:
    catalog, training, anchor = load_catalog(source, damaged), load_interactions(pairs), load_record(anchors, Anchors)
    made = make_features(base, catalog, training, anchor, config, seed=seed, category=category_numbers(source))
    for m, values in made.features.items():
        writer.array(f"features-{m}", values)
        writer.array(f"present-{m}", made.present[m])
    writer.meta({"modalities": list(made.features), "facts": plain(made.facts)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a cell is made of: ``features`` None for a backbone that reads none, ``damaged`` where the truth about damage lies, if any was
    done, and ``edited`` pairs with what they are for, if the recommender is trained on any."""

    backbone: str
    features: Ref | None
    pairs: Ref
    damaged: Ref | None
    edited: tuple[Ref, EditTarget] | None
    model: Any
    training: TrainingConfig
    seed: int


def cell_work(name: str, trial: Trial) -> Work:
    """One trial."""
    inputs = (trial,)
    return Work(name=name, kind="evaluation-cell", inputs=inputs, build=partial(_run_cell, *inputs), code="trial")


def _run_cell(given: Trial, writer: StageWriter) -> None:
    start, split = time.monotonic(), load_split(given.pairs)
    features, present = load_features(given.features) if given.features is not None else ({}, {})
    known = split.training
    edited, target = (known, None) if given.edited is None else (load_interactions(given.edited[0]), given.edited[1])
    positives, graph = (edited if target in (part, "both") else known for part in ("train", "graph"))
    data = TrainingSet(positives=positives, graph=graph, known=known, features=features, present=present)
    truth = (
        None
        if given.damaged is None
        else {x.stem: np.load(x, allow_pickle=False) for x in sorted(given.damaged.file("").glob("truth-*.npy"))}
    )
    trial = run_trial(
        given.backbone, data, split, seed=given.seed, model=given.model, training=given.training, truth=truth
    )
    writer.array("users", trial.users)
    for name, scores in trial.per_user.items():
        writer.array(name, scores)
    writer.array("losses", np.asarray(trial.history.losses))
    writer.meta(
        {
            "metrics": plain(trial.metrics),
            "per_user": list(trial.per_user),
            "epochs": len(trial.history.losses),
            "best_epoch": trial.history.best_epoch,
        }
    )
    # Apart from the rest, which two runs have in common to the last bit.
    (writer.folder / TIMING).write_text(json.dumps({"seconds": round(time.monotonic() - start, 3)}))

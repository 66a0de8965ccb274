"""Small planted worlds and record builders that the core's tests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rectifier_core.affinity.places import Places
from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import (
    Affinity,
    Anchors,
    BalanceOutcome,
    Catalog,
    Interactions,
    Plan,
    Projection,
    Trust,
)


def normals(rng: np.random.Generator, *shape: int) -> Float32:
    return rng.standard_normal(shape).astype(np.float32)


def random_units(rng: np.random.Generator, rows: int, width: int) -> Float32:
    return unit_rows(normals(rng, rows, width))


def log_of(users: ArrayLike, items: ArrayLike, num_users: int, num_items: int) -> Interactions:
    return Interactions(
        users=np.asarray(users, np.int32),
        items=np.asarray(items, np.int32),
        times=None,
        num_users=num_users,
        num_items=num_items,
    )


def anchors_of(items: Float32, trained: Bool | None = None) -> Anchors:
    known = np.ones(len(items), np.bool_) if trained is None else trained
    rows = np.where(known[:, None], items, np.float32(0))
    return Anchors(
        items=rows,
        ego=rows,
        trained=known,
        reliability=known.astype(np.float32),
        losses=np.zeros(0),
        recalls=np.zeros(0),
    )


def projection_of(
    projected: Float32, target: Float32, alignment: Float32 | None = None, null: Float32 | None = None
) -> Projection:
    rows, width = projected.shape
    return Projection(
        modality="image",
        weight=np.zeros((3, width), np.float32),
        feature_mean=np.zeros(3, np.float32),
        target_mean=np.zeros(width, np.float32),
        fold_weights=np.zeros((5, 3, width), np.float32),
        fold_means=np.zeros((5, 3), np.float32),
        projected=projected,
        target=target,
        alignment=np.full(rows, np.nan, np.float32) if alignment is None else alignment,
        length=np.linalg.norm(projected, axis=1).astype(np.float32),
        fold=(np.arange(rows) % 5).astype(np.int32),
        null_alignment=np.zeros(0, np.float32) if null is None else null,
        kept=np.zeros(rows, np.bool_),
        ridge=None,
    )


def places_of(donors: Float32, items: Float32) -> Places:
    """Places as if ``donors`` had been projected onto ``items``."""
    own = np.einsum("ij,ij->i", donors, items)
    return Places(modality="image", donors=donors, items=items, own=own, anchor_share=0.0)


def affinity_of(neighbours: ArrayLike, scores: ArrayLike) -> Affinity:
    return Affinity(
        modality="image",
        neighbours=np.asarray(neighbours, np.int32),
        scores=np.asarray(scores, np.float32),
        recall=1.0,
        index="flat",
    )


def plan_of(indptr: ArrayLike, indices: ArrayLike, weights: ArrayLike) -> Plan:
    """A balanced plan of one row per item."""
    rows = np.asarray(indptr, np.int64)
    return Plan(
        modality="image",
        indptr=rows,
        indices=np.asarray(indices, np.int32),
        weights=np.asarray(weights, np.float32),
        potential=np.zeros(len(rows) - 1),
        marginal_errors=np.zeros(1),
        iterations=1,
        column_sums=np.ones(len(rows) - 1, np.float32),
        column_error=0.0,
        diagonal_mass=1.0,
        outcome=BalanceOutcome.CONVERGED,
    )


def trust_of(probability: Float32, rates: Sequence[float | None] | None) -> Trust:
    """Trust of these probabilities. ``rates`` are of mismatches: estimate and interval, interval of unlike ones; None where nothing can be told."""
    rate, low, high, low_unlike, high_unlike = rates or (None,) * 5
    return Trust(
        modality="image",
        probability=probability,
        probability_upper=probability,
        behaviour=probability,
        cross_modal=np.full(len(probability), np.nan, np.float32),
        mismatch_rate=rate,
        low=low,
        high=high,
        low_unlike=low_unlike,
        high_unlike=high_unlike,
        identifiable=rates is not None,
        separation=0.51 if rates is None else 0.83,
        reason="own pairs look like re-paired ones" if rates is None else "own pairs stand clear",
    )


def dense(affinity: Affinity) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Scores as a square matrix, -inf off the support."""
    matrix = np.full((len(affinity.neighbours),) * 2, -np.inf)
    rows, slots = np.nonzero(affinity.neighbours >= 0)
    matrix[rows, affinity.neighbours[rows, slots]] = affinity.scores[rows, slots]
    return matrix


def block_log(*, blocks: int, users: int, items: int, seed: int) -> Interactions:
    """A checkerboard: every user likes a random half of the items of one block, and nothing else."""
    rng = np.random.default_rng(seed)
    own = np.arange(users)[:, None] % blocks == np.arange(items)[None, :] % blocks
    taking, taken = np.nonzero(own & (rng.random((users, items)) < 0.5))
    return log_of(taking, taken, users, items)


def swapped(
    rng: np.random.Generator, present: Bool, share: float
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Bool]:
    """Whose feature each item gets when ``share`` of the present ones are shuffled round in a cycle, and which ones were moved."""
    chosen = rng.permutation(np.flatnonzero(present))[: round(share * int(present.sum()))]
    source = np.arange(len(present))
    source[chosen] = np.roll(chosen, 1)
    return source, source != np.arange(len(present))


@dataclass(frozen=True)
class Planted:
    """Anchors, features that are a linear map of them through noise, and the items whose feature belongs to another."""

    anchors: Anchors
    features: Float32
    wrong: Bool


def planted_features(*, items: int, width: int, noise: float, share: float, seed: int, size: int = 12) -> Planted:
    rng = np.random.default_rng(seed)
    units = random_units(rng, items, size)
    features = (units @ normals(rng, size, width) + noise * normals(rng, items, width) + 0.5).astype(np.float32)
    source, wrong = swapped(rng, np.ones(items, np.bool_), share)
    return Planted(anchors=anchors_of(units), features=features[source], wrong=wrong)


@dataclass(frozen=True)
class Scene:
    """Several modalities of one catalog, each a linear map of the anchors' latent place through noise, and what was planted wrong."""

    catalog: Catalog
    anchors: Anchors
    wrong: dict[str, Bool]


def planted_scene(
    seed: int,
    noise: Mapping[str, float],
    *,
    share: float = 0.2,
    items: int = 500,
    untrained: int = 0,
    width: int = 24,
    anchor_noise: float = 0.3,
    missing: float = 0.0,
) -> Scene:
    """``noise`` per modality stands beside a signal of about unit variance; the last ``untrained`` items have no anchor."""
    rng = np.random.default_rng(seed)
    latent = random_units(rng, items, 12)
    trained = np.arange(items) < items - untrained
    anchors = anchors_of(
        unit_rows((latent + anchor_noise / np.sqrt(12) * normals(rng, items, 12)).astype(np.float32)), trained
    )
    features: dict[str, Float32] = {}
    present: dict[str, Bool] = {}
    wrong: dict[str, Bool] = {}
    for at, (name, level) in enumerate(noise.items()):
        there = rng.random(items) >= missing
        clean = latent @ normals(rng, 12, width + at) + level * normals(rng, items, width + at)
        source, wrong[name] = swapped(rng, there, share)
        features[name] = np.ascontiguousarray(np.where(there[:, None], clean[source], 0), dtype=np.float32)
        present[name] = there
    return Scene(
        catalog=Catalog(item_ids=np.arange(items), features=features, present=present), anchors=anchors, wrong=wrong
    )


@dataclass(frozen=True)
class World:
    """A catalog whose modalities see the users' taste, the log that shows it, and what was planted wrong."""

    catalog: Catalog
    log: Interactions
    wrong: dict[str, Bool]


def taste_world(seed: int = 5, *, items: int = 360, users: int = 500, share: float = 0.2) -> World:
    """Modalities "image" and "Klang α" see taste (``share`` swapped, some missing), "noise" does not. Nobody takes the last four items."""
    rng = np.random.default_rng(seed)
    taste, likes = normals(rng, items, 6), normals(rng, users, 6)
    appeal = likes @ taste.T + rng.gumbel(size=(users, items)) + rng.standard_normal(items)
    appeal[:, -4:] = -np.inf
    taken = np.argsort(-appeal, axis=1)[:, :20]
    features: dict[str, Float32] = {}
    present: dict[str, Bool] = {}
    wrong: dict[str, Bool] = {}
    for name, width, noise in (("image", 24, 0.6), ("Klang α", 10, 0.4), ("noise", 16, 0.0)):
        there = rng.random(items) > 0.05
        clean = (
            normals(rng, items, width)
            if name == "noise"
            else taste @ normals(rng, 6, width) + noise * normals(rng, items, width)
        )
        source, wrong[name] = swapped(rng, there, share)
        features[name] = np.ascontiguousarray(np.where(there[:, None], 3 * clean[source], 0), dtype=np.float32)
        present[name] = there
    catalog = Catalog(item_ids=np.array([f"item-{i}" for i in range(items)]), features=features, present=present)
    return World(catalog=catalog, log=log_of(np.repeat(np.arange(users), 20), taken.ravel(), users, items), wrong=wrong)

"""Anchors of a log that grew by little: known nodes keep their ego rows, new ones get them from their neighbours.

Source: folding-in (Deerwester et al., "Indexing by Latent Semantic Analysis", JASIS 1990) puts a new node where its neighbours are. The
layer mean (He et al., "LightGCN", SIGIR 2020, equation 8) then moves every item by its new interactions. Nothing is trained, so the space
keeps its axes, and maps into it stay valid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.anchors.held_out_recall import HeldOutRecall
from rectifier_core.anchors.interaction_sampling import hold_out
from rectifier_core.anchors.propagation import ITEMS, USERS, InteractionGraph, layer_mean, layer_mean_rows
from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Anchors, Interactions
from rectifier_core.base.seeding import generator
from rectifier_core.base.weighted_sums import sparse_product


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousRows:
    """Ego rows of the previous run in this run's order, NaN for new nodes: ``users`` [U, A], ``items`` [I, A], and ``reliability`` [I]."""

    users: Float32
    items: Float32
    reliability: Float32


def update_anchors(interactions: Interactions, previous: PreviousRows, config: AnchorsConfig, *, seed: int) -> Anchors:
    """One unit row an item, from the ego rows of the previous run.

    A new node's ego row has the direction of its neighbours' mean, and the length and reliability of known nodes with as many pairs.
    ``recalls`` holds the held-out Recall@20. Most pairs held out now were trained on before, so it does not measure quality: it only shows
    a fall from one such run to the next.
    """
    layers, num_users = config.num_layers, interactions.num_users
    ego = _ego(InteractionGraph.of(interactions), previous, interactions)
    training, held_out = hold_out(interactions, config.held_out, generator(seed, "anchors", "hold-out"))
    judge = HeldOutRecall(training, held_out, generator(seed, "anchors", "judge"))
    recall = judge(layer_mean(InteractionGraph.of(training), torch.from_numpy(ego), layers))
    # Only one graph is in memory at a time.
    del judge, training, held_out
    degree = np.bincount(interactions.items, minlength=interactions.num_items)
    items = unit_rows(layer_mean_rows(InteractionGraph.of(interactions), ego, layers)[num_users:])
    items[degree == 0] = 0
    trained = (degree > 0) & (np.abs(items).sum(axis=1) > 0)
    item_ego = ego[num_users:].copy()
    item_ego[degree == 0] = 0
    known = trained & ~np.isnan(previous.reliability)
    reliability = _filled_by_degree(np.nan_to_num(previous.reliability), known, degree)
    return Anchors(
        items=items,
        ego=item_ego,
        user_ego=ego[:num_users].copy(),
        trained=trained,
        reliability=np.where(trained, reliability, 0).astype(np.float32),
        losses=np.zeros(0),
        recalls=np.array([recall]),
        method=config.method_for(len(interactions.users)),
    )


def _ego(graph: InteractionGraph, previous: PreviousRows, interactions: Interactions) -> Float32:
    ego: Float32 = np.nan_to_num(np.concatenate([previous.users, previous.items]))
    users, items = np.split(ego, [graph.num_users])
    # Users first: a new item usually has known users, while a new user may have new items only.
    for side, rows, known_rows, nodes in (
        (USERS, users, previous.users, interactions.users),
        (ITEMS, items, previous.items, interactions.items),
    ):
        known = ~np.isnan(known_rows[:, 0]) & known_rows.any(axis=1)
        degree = np.bincount(nodes, minlength=len(rows))
        lengths = _filled_by_degree(np.linalg.norm(rows, axis=1), known, degree)
        new = np.flatnonzero(~known & (degree > 0))
        if len(new):
            folded = sparse_product(graph.towards[side], torch.from_numpy((users, items)[1 - side])).numpy()
            rows[new] = unit_rows(folded[new]) * lengths[new, None].astype(np.float32)
    return ego


def _filled_by_degree(values: Float32, known: Bool, degree: Int64) -> Float32:
    """``values`` [N] where ``known``, else the mean of the known ones whose number of pairs has as many binary digits."""
    digits = np.frexp(degree.astype(np.float64))[1]
    counts = np.bincount(digits[known], minlength=65)
    sums = np.bincount(digits[known], weights=values[known].astype(np.float64), minlength=65)
    overall = sums.sum() / max(1, counts.sum())
    usual = np.where(counts > 0, sums / np.maximum(counts, 1), overall)
    return np.where(known, values, usual[digits]).astype(np.float32)
